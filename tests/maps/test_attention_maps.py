"""Maps of every scheme against the dense reference, on every backend, and where the axes point."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.maps.dense import Dense
from tests.maps.models import EVERY, GRID, clips, make
from tests.maps.pointing import pointing_model
from timesformer import InputError, TimeSformer
from timesformer.attention.operator import Query
from timesformer.maps import AttentionMaps, attention_maps

QUERIES: list[Query] = ["class", (0, 0, 0), (2, 1, 3), (1, 0, 2)]


def expected(model: TimeSformer, clip: torch.Tensor, query: Query, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Of every step that runs: weights and weight on the class token side by side, (clip, head, p + 1)."""
    with monkeypatch.context() as patched, torch.no_grad():
        dense = Dense(model, patched)
        model.forward_features(clip)
    out = []
    for call in dense.calls:
        a = call.matrix
        if len(a) > len(clip):  # frame streams: a block for each frame
            streams = a.unflatten(0, (len(clip), -1))
            patches = a.shape[-1] - 1
            rows = torch.zeros(len(clip), a.shape[1], streams.shape[1] * patches + 1, dtype=a.dtype)
            for frame in range(streams.shape[1]):
                own = rows[..., frame * patches : (frame + 1) * patches]
                if query == "class":
                    own += streams[:, frame, :, -1, :-1] / streams.shape[1]
                    rows[..., -1] += streams[:, frame, :, -1, -1] / streams.shape[1]
                elif query[0] == frame:
                    row = streams[:, frame, :, query[1] * GRID[2] + query[2]]
                    own += row[..., :-1]
                    rows[..., -1] = row[..., -1]
        else:
            has_class = dense.has_class[id(call.step)]
            patches = a.shape[-1] - has_class
            if query == "class":
                rows = a[:, :, -1] if has_class else a.mean(2)
            else:
                frame = (query[0] * GRID[1] + query[1]) * GRID[2] + query[2]
                rows = a[:, :, query[0] if patches == GRID[0] else frame]
            rows = rows if has_class else torch.nn.functional.pad(rows, (0, 1))
        out.append(rows.numpy())
    return out


@pytest.mark.parametrize("attention", EVERY)
def test_every_scheme_equals_the_dense_reference(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip = make(attention), clips()
    maps = attention_maps(model, clip, query=QUERIES)
    assert [one.layer for one in maps] == sorted(one.layer for one in maps)
    for number, query in enumerate(QUERIES):
        dense = expected(model, clip, query, monkeypatch)
        assert len(dense) == len(maps)
        for one, theirs in zip(maps, dense, strict=True):
            assert one.weights.dtype == np.float32
            assert one.weights.shape == (2, 2, 4, *((GRID[0], 1, 1) if one.encoder else GRID))
            ours = np.concatenate([one.weights[:, :, number].reshape(2, 2, -1), one.on_class[:, :, number, None]], -1)
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
            np.testing.assert_allclose(ours.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("attention", EVERY)
def test_only_what_is_asked_for(attention: str) -> None:
    model, clip = make(attention), clips()
    every = attention_maps(model, clip, query=QUERIES)
    last = every[-1]
    (one,) = attention_maps(model, clip, layers=[-1], steps=[last.step], heads=[1], query=(2, 1, 3))
    assert (one.layer, one.step, one.heads) == (last.layer, last.step, (1,))
    assert one.queries == (((2, 0, 0),) if last.encoder else ((2, 1, 3),))
    np.testing.assert_array_equal(one.weights, last.weights[:, 1:, 2:3])
    np.testing.assert_array_equal(one.on_class, last.on_class[:, 1:, 2:3])


@pytest.mark.parametrize("backend", ["reference", "sdpa", "triton"])
@pytest.mark.parametrize("attention", ["local_global", "factorised_encoder"])
def test_backends_agree(attention: str, backend: str) -> None:
    clip = clips(1).float()
    maps = [
        attention_maps(
            make(attention, double=False, backend=name, embed_dim=32, depth=1), clip, query=["class", (1, 1, 2)]
        )
        for name in ("reference", backend)
    ]
    for ours, theirs in zip(*maps, strict=True):
        np.testing.assert_allclose(ours.weights, theirs.weights, atol=2e-6)


@pytest.mark.parametrize("attention", ["divided_st", "axial", "joint", "factorised_dot_product"])
def test_a_model_fused_for_inference_gives_the_same(attention: str) -> None:
    model, clip = make(attention, double=False), clips().float()
    for ours, theirs in zip(attention_maps(model.fuse_for_inference(), clip), attention_maps(model, clip), strict=True):
        np.testing.assert_allclose(ours.weights, theirs.weights, atol=1e-5)


def test_another_size_than_the_models() -> None:
    (one, *_) = attention_maps(make("divided"), clips(1, frames=5, height=12, width=20), query=(4, 2, 4))
    assert one.weights.shape == (1, 2, 1, 5, 3, 5)
    assert (one.weights[0, :, 0, :, 2, 4] > 0).all()  # its own place, in every frame
    assert one.weights.sum() == pytest.approx(2)


LOOKERS: dict[str, Query] = {  # a patch that sees the place in the scheme's first step
    "joint": (2, 1, 0),
    "divided": (2, 0, 3),
    "axial": (0, 0, 3),
    "local_global": (2, 0, 4),
    "local_global_window": (0, 0, 2),
    "space": (1, 1, 0),
    "factorised_encoder": (1, 1, 4),
    "factorised_self_attention": (1, 1, 0),
}


@pytest.mark.parametrize("attention", LOOKERS)
def test_a_model_that_looks_at_one_patch(attention: str) -> None:
    """T, H and W differ; all queries that see the bright patch of the clip look at it and at nothing else."""
    model, clip, place = pointing_model(attention)
    one = attention_maps(model, clip, layers=[0], query=[LOOKERS[attention], "class"])[0]
    assert one.weights.shape == (1, 2, 2, 3, 2, 5)
    assert (one.weights[0, :, 0, *place] > 0.99).all()
    if one.on_class[0, 0, 1] < 1 and model.encoders[0].cls_token is not None:  # the class token takes part
        shown = one.weights[0, 0, 1]
        assert np.unravel_index(shown.argmax(), shown.shape) == place


def test_the_model_is_left_as_it_was() -> None:
    model, clip = make("divided").train(), clips()
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    attention_maps(model, clip)
    assert model.training
    assert hooks == sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_saved_and_loaded(tmp_path: Path) -> None:
    maps = attention_maps(make("divided"), clips(), query=["class", (2, 1, 3)])
    found = AttentionMaps.load(maps.save(tmp_path / "maps.npz"))
    assert len(found) == len(maps)
    for ours, theirs in zip(found, maps, strict=True):
        assert (ours.layer, ours.encoder, ours.step, ours.heads) == (
            theirs.layer,
            theirs.encoder,
            theirs.step,
            theirs.heads,
        )
        assert ours.queries == ("class", (2, 1, 3))
        np.testing.assert_array_equal(ours.weights, theirs.weights)
        np.testing.assert_array_equal(ours.on_class, theirs.on_class)
    np.savez(tmp_path / "other.npz", x=np.zeros(2))
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("other.npz", "text.npz", "pickled.npy", "missing.npz"):
        with pytest.raises(InputError, match=name):
            AttentionMaps.load(tmp_path / name)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layers": [2]}, "layers: expected numbers from 0 to 1, got 2"),
        ({"steps": ["joint"]}, "expected time, space for scheme 'divided', got 'joint'"),
        ({"heads": [2]}, "heads"),
        ({"heads": []}, "heads"),
        ({"query": (3, 0, 0)}, "expected a patch inside the grid"),
        ({"query": "cls"}, "expected"),
        ({"query": []}, "got none"),
        ({"query": [(0, 1)]}, "expected"),
    ],
)
def test_what_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        attention_maps(make("divided"), clips(), **wrong)


def test_clips_that_are_refused() -> None:
    model = make("divided")
    for clip, message in ((clips()[0], "expected"), (clips(height=9), "height: .* got 9"), (clips(0), "expected")):
        with pytest.raises(InputError, match=message):
            attention_maps(model, clip)
    with pytest.raises(InputError, match=r"expected one of .*, got layer 9"):
        attention_maps(model, clips()).get(9, "time")
    with pytest.raises(InputError, match="have none of the steps"):
        attention_maps(make("factorised_encoder"), clips(), layers=[0], steps=["time"])
