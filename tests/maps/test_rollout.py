"""Rollout of every scheme against the product of dense matrices."""

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.maps.dense import Dense, reduced
from tests.maps.models import EVERY, GRID, clips, make
from tests.maps.pointing import pointing_model
from tests.maps.rolled import Mix, rolled
from timesformer import InputError, TimeSformer
from timesformer.attention.operator import Query
from timesformer.maps import Saliency, rollout
from timesformer.models.blocks import Attention

QUERIES: list[Query] = ["class", (0, 0, 0), (2, 1, 3)]


def mixed(fusion: str, discard: float, steps: list[str] | None = None) -> Mix:
    """(I + A) / 2, of several steps (I + A + B) / 3; other steps than `steps` are left out."""

    def mix(matrices: list[Tensor], names: list[str], number: int) -> Tensor:
        # Without a class token the reference's matrices have none, and no key is spared.
        chosen = [
            reduced(a, fusion, discard, has_class=a.shape[-1] in HAS_CLASS)
            for a, name in zip(matrices, names, strict=True)
            if steps is None or name in steps
        ]
        stay = torch.eye(matrices[0].shape[-1], dtype=matrices[0].dtype).expand(matrices[0][:, 0].shape)
        return (stay + sum(chosen)) / (1 + len(chosen))

    return mix


# Numbers of tokens with a class token: of a clip, of a frame, of one token a frame.
HAS_CLASS = (GRID[0] * GRID[1] * GRID[2] + 1, GRID[1] * GRID[2] + 1, GRID[0] + 1)


def dense_of(model: TimeSformer, clip: Tensor, monkeypatch: pytest.MonkeyPatch) -> Dense:
    with monkeypatch.context() as patched, torch.no_grad():
        dense = Dense(model, patched)
        model.forward_features(clip)
    return dense


def check(found: Saliency, model: TimeSformer, dense: Dense, mix: Mix, atol: float = 1e-6) -> None:
    assert found.on_class is not None
    assert found.weights.shape == (2, len(found.queries), *GRID)
    for number, query in enumerate(found.queries):
        ours = np.concatenate([found.weights[:, number].reshape(2, -1), found.on_class[:, number, None]], -1)
        np.testing.assert_allclose(ours, rolled(model, dense, mix, query, 2, GRID).numpy(), atol=atol)


@pytest.mark.parametrize("attention", EVERY)
def test_every_scheme_equals_the_dense_product(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip = make(attention), clips()
    dense = dense_of(model, clip, monkeypatch)
    found = rollout(model, clip, query=QUERIES)
    check(found, model, dense, mixed("mean", 0.0))
    np.testing.assert_allclose(found.weights.sum((-3, -2, -1)) + found.on_class, 1, atol=1e-6)


@pytest.mark.parametrize(
    "switches", [{"cls_policy": "global"}, {"cls_policy": "replicated", "temporal_fc": False}, {"share_qkv": True}]
)
@pytest.mark.parametrize("attention", ["divided", "divided_parallel"])
def test_class_policies_and_shared_projections(
    attention: str, switches: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, clip = make(attention, **switches), clips()
    dense = dense_of(model, clip, monkeypatch)
    check(rollout(model, clip, query=QUERIES), model, dense, mixed("mean", 0.0))


@pytest.mark.parametrize(("fusion", "discard"), [("max", 0.0), ("min", 0.4), ("mean", 0.5)])
@pytest.mark.parametrize("attention", ["divided_parallel", "factorised_encoder", "factorised_dot_product"])
def test_fusion_and_discard(attention: str, fusion: Any, discard: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip = make(attention), clips()
    dense = dense_of(model, clip, monkeypatch)
    found = rollout(model, clip, query=QUERIES, fusion=fusion, discard=discard)
    check(found, model, dense, mixed(fusion, discard))


@pytest.mark.parametrize("attention", EVERY)
def test_weighted_by_what_each_step_adds(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip = make(attention), clips()
    norms: list[tuple[Tensor, Tensor]] = []

    def keep(module: Attention, args: tuple[Any, ...], added: tuple[Tensor | None, Tensor | None]) -> None:
        patches, cls = args[:2]
        before, more = patches.flatten(1, 3), added[0]
        assert more is not None
        after = before + more.flatten(1, 3)
        if cls is not None:
            before = torch.cat([before, cls[:, None]], 1)
            after = torch.cat([after, (cls if added[1] is None else cls + added[1])[:, None]], 1)
        norms.append((before.square().sum(-1).sqrt(), (after - before).square().sum(-1).sqrt()))

    modules = [module for module in model.modules() if isinstance(module, Attention)]
    handles = [module.register_forward_hook(keep) for module in modules]
    dense = dense_of(model, clip, monkeypatch)
    for handle in handles:
        handle.remove()

    def mix(matrices: list[Tensor], names: list[str], number: int) -> Tensor:
        residual = norms[number][0]
        steps = [norms[number + i][1] for i in range(len(matrices))]
        out = torch.diag_embed(residual) + sum(
            added[..., None] * a.mean(1) for added, a in zip(steps, matrices, strict=True)
        )
        return out / (residual + sum(steps))[..., None]

    check(rollout(model, clip, query=QUERIES, weighting="norm"), model, dense, mix)


def test_a_zero_extra_linear_counts_nothing_when_weighted_by_norms() -> None:
    model, clip = make("divided"), clips()
    for block in model.encoders[0].blocks:
        torch.nn.init.zeros_(block.steps["time"].fc.weight)
        torch.nn.init.zeros_(block.steps["time"].fc.bias)
    alone = rollout(model, clip, query=(1, 1, 2), weighting="norm", steps=["time"]).weights[:, 0]
    assert (alone[:, 1, 1, 2] == 1).all()
    plain = rollout(model, clip, query=(1, 1, 2), steps=["time"]).weights[:, 0]
    assert (plain[:, [0, 2], 1, 2] > 0.1).all()
    both = rollout(model, clip, query="class", weighting="norm")
    space = rollout(model, clip, query="class", weighting="norm", steps=["space"])
    np.testing.assert_allclose(both.weights, space.weights, atol=1e-7)


@pytest.mark.parametrize("attention", ["divided", "axial", "divided_parallel", "factorised_encoder"])
def test_flow_of_one_step(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip = make(attention), clips()
    dense = dense_of(model, clip, monkeypatch)
    names = {step.name for stack in model.encoders for step in stack.encoder.steps}
    for name in sorted(names):
        found = rollout(model, clip, query=QUERIES, steps=[name])
        assert f"{name} alone" in found.method
        check(found, model, dense, mixed("mean", 0.0, [name]))
    time = rollout(model, clip, query=(2, 1, 3), steps=["time"]).weights[:, 0]
    if attention != "factorised_encoder":  # where time is a step of the second encoder
        assert (time[:, :, 1, 3] > 0.01).all()
    time[:, :, 1, 3] = 0
    assert (time == 0).all()


@pytest.mark.parametrize("backend", ["sdpa", "triton"])
def test_backends_agree(backend: str) -> None:
    clip = clips().float()
    reference, other = (
        rollout(make("divided", double=False, backend=name, embed_dim=32, depth=1), clip, weighting="norm")
        for name in ("reference", backend)
    )
    np.testing.assert_allclose(other.weights, reference.weights, atol=2e-6)


def test_of_a_model_fused_for_inference() -> None:
    """Folding the extra linear changes neither what is added nor what attends."""
    model, clip = make("divided", double=False), clips().float()
    for weighting in ("plain", "norm"):
        ours, theirs = (rollout(one, clip, weighting=weighting) for one in (model.fuse_for_inference(), model))
        np.testing.assert_allclose(ours.weights, theirs.weights, atol=1e-5)


@pytest.mark.parametrize("attention", ["joint", "divided", "axial", "local_global", "space", "factorised_encoder"])
def test_a_model_that_looks_at_one_patch(attention: str) -> None:
    model, clip, place = pointing_model(attention)
    shown = rollout(model, clip).weights[0, 0]
    assert shown.shape == (3, 2, 5)
    assert np.unravel_index(shown.argmax(), shown.shape) == place


def test_what_is_refused() -> None:
    model, clip = make("divided"), clips()
    for wrong in ({"fusion": "sum"}, {"discard": 1.0}, {"weighting": "value"}, {"steps": ["joint"]}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            rollout(model, clip, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("attention", ["divided", "factorised_encoder", "divided_parallel"])
def test_kept_and_recomputed_projections_give_the_same(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip = make(attention), clips()
    projected: list[int] = []
    for module in model.modules():
        if isinstance(module, Attention) and module.qkv is not None:
            module.qkv.register_forward_hook(lambda *args: projected.append(1))
    kept = rollout(model, clip, query=QUERIES)
    forward_alone = len(projected)
    monkeypatch.setattr(sys.modules["timesformer.maps.rollout"], "KEEP_BYTES", 0)
    recomputed = rollout(model, clip, query=QUERIES)
    assert len(projected) == 3 * forward_alone  # once in the forward pass, once on the way back
    np.testing.assert_allclose(kept.weights, recomputed.weights, rtol=1e-6)
