"""Maps of models with registers, rotary positions and the other switches that attention depends on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.models.switches import SWITCHES, TINY
from timesformer import TimeSformer
from timesformer.maps import AttentionMaps, attention_maps, top_keys
from timesformer.maps.capture import Call, run, sites, watching
from timesformer.maps.gradients import relevance
from timesformer.maps.measures import entropy
from timesformer.maps.rollout import rollout

CLIP = torch.randn(2, 3, 3, 16, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
QUERIES: list[Any] = ["class", (1, 1, 2)]


def make(attention: str, **changes: Any) -> TimeSformer:
    torch.manual_seed(0)
    model = TimeSformer(replace(TINY, attention=attention, **changes)).double().eval()
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.3)
    return model


def all_rows(call: Call) -> Tensor:
    matrix = call.operator()
    return matrix.numbered_rows(torch.arange(matrix.size))


@pytest.mark.parametrize("attention", ["divided", "space", "local_global_window_fixed", "factorised_dot_product"])
@pytest.mark.parametrize("switch", ["registers", "rope_half", "rope_vjepa2", "qk_norm", "gate_head", "bias_qv"])
def test_a_map_times_the_values_is_what_the_model_computed(switch: str, attention: str) -> None:
    if switch == "registers" and attention == "factorised_dot_product":
        switch = "rope_unit"
    model, seen = make(attention, **SWITCHES[switch]), []

    def visit(call: Call) -> None:
        matrix = call.operator()
        values = torch.nn.functional.pad(matrix.v, (0, 0, 0, matrix.size - matrix.v.shape[2]))
        out = (all_rows(call) @ values).transpose(1, 2).flatten(2)
        torch.testing.assert_close(out[:, : matrix.patches], call.mixed[0].flatten(1, 3))
        if len(call.mixed) > 1:
            torch.testing.assert_close(out[:, matrix.patches :], call.mixed[1].reshape(len(out), matrix.specials, -1))
        seen.append(call.site.step.name)

    with watching(sites(model), visit):
        run(model, CLIP)
    assert len(seen) == len(sites(model))


@pytest.mark.parametrize("attention", ["divided", "space", "trajectory", "factorised_encoder"])
def test_registers_are_shown_as_such(attention: str, tmp_path: Path) -> None:
    model = make(attention, registers=3, position="rope")
    maps = attention_maps(model, CLIP, query=QUERIES)
    for one in maps:
        assert one.on_registers.shape == (*one.on_class.shape, 3)
        total = one.weights.sum((-3, -2, -1)) + one.on_class + one.on_registers.sum(-1)
        np.testing.assert_allclose(total, 1, atol=1e-6)
        assert np.isfinite(entropy(one)).all()
    space = next(one for one in maps if one.step != "time" or one.encoder)
    assert (space.on_registers[:, :, 0] > 0).all()
    path = maps.save(tmp_path / "maps.npz")
    for one, back in zip(maps, AttentionMaps.load(path), strict=True):
        np.testing.assert_array_equal(one.on_registers, back.on_registers)
    for one, keys in zip(maps, top_keys(model, CLIP[:1], count=99), strict=True):
        beside = one.on_class[0, :, 1] + one.on_registers[0, :, 1].sum(-1)
        row = 0 if one.encoder else 1 * 6 + 1 * 3 + 2
        if not one.encoder:
            np.testing.assert_allclose(keys.on_class[:-1, row], beside, atol=1e-6)
        np.testing.assert_allclose(keys.kept, 1, atol=1e-5)


def dense_rollout(model: TimeSformer, start: Tensor) -> Tensor:
    """(I + A) / 2 for each stage of one step, heads averaged, over all tokens of one encoder."""
    found: list[Tensor] = []
    with watching(sites(model), lambda call: found.append(all_rows(call).mean(1))):
        run(model, CLIP)
    y = start.expand(2, -1, -1)
    for matrix in reversed(found):
        y = (y + y @ matrix) / 2
    return y[:, 0]


@pytest.mark.parametrize("pool", ["class", "mean", "class+mean"])
def test_rollout_with_registers_starts_at_what_the_head_reads(pool: str) -> None:
    model = make("divided", registers=2, position="rope", pool=pool)
    start = torch.zeros(1, 1, 18 + 3, dtype=torch.float64)
    share = {"class": (1.0, 0.0), "mean": (0.0, 1.0), "class+mean": (0.5, 0.5)}[pool]
    start[..., 18], start[..., :18] = share[0], share[1] / 18
    expected = dense_rollout(model, start)
    found = rollout(model, CLIP)
    assert found.on_class is not None
    np.testing.assert_allclose(found.weights[:, 0].reshape(2, -1), expected[:, :18], atol=1e-6)
    np.testing.assert_allclose(found.on_class[:, 0], expected[:, 18:].sum(-1), atol=1e-6)


def test_rollout_with_an_attentive_pooler_starts_at_its_weights() -> None:
    model = make("joint", class_token=False, pool="attentive", pooler_depth=0)
    assert model.pooler is not None
    with torch.no_grad():
        tokens = model.forward_features(CLIP).patches
        start = model.pooler.weights(tokens).mean(1)[:, None]
    np.testing.assert_allclose(start.sum(-1), 1, atol=1e-9)
    found: list[Tensor] = []
    with watching(sites(model), lambda call: found.append(all_rows(call).mean(1))):
        run(model, CLIP)
    for matrix in reversed(found):
        start = (start + start @ matrix) / 2
    np.testing.assert_allclose(rollout(model, CLIP).weights.reshape(2, -1), start[:, 0], atol=1e-6)
    deeper = make("joint", class_token=False, pool="attentive", pooler_depth=2)
    np.testing.assert_allclose(rollout(deeper, CLIP).weights.sum((-3, -2, -1)), 1, atol=1e-6)


@pytest.mark.parametrize("switch", SWITCHES)
def test_relevance(switch: str) -> None:
    found = relevance(make("divided", **SWITCHES[switch]), CLIP)
    assert np.isfinite(found.weights).all()
    assert (found.weights >= 0).all()
    assert found.weights.any()


def test_relevance_sees_the_attention_before_the_gate() -> None:
    """An open gate changes nothing."""
    plain, gated = make("divided"), make("divided", gate="channel")
    gated.load_state_dict(plain.state_dict(), strict=False)
    for module in gated.modules():
        if getattr(module, "gate", None) is not None:
            torch.nn.init.zeros_(module.gate.weight)
            torch.nn.init.zeros_(module.gate.bias)
    np.testing.assert_allclose(relevance(gated, CLIP).weights, relevance(plain, CLIP).weights, atol=1e-6)
