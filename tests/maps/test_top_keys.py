"""The strongest keys are those of the attention maps, for every scheme, also coarsened."""

import numpy as np
import pytest
import torch

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.attention import names
from timesformer.errors import InputError
from timesformer.maps import attention_maps, top_keys

SIZES = {"num_frames": 3, "image_size": (8, 20), "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
SIZES |= {"temporal_depth": 1, "num_classes": 3}
GRID = (3, 2, 5)


def random_model(scheme: str) -> TimeSformer:
    torch.manual_seed(0)
    model = TimeSformer(TimeSformerConfig(attention=scheme, time_std=0.5, position_std=0.5, **SIZES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def places(grid: tuple[int, ...]) -> list[tuple[int, int, int]]:
    return [(t, h, w) for t in range(grid[0]) for h in range(grid[1]) for w in range(grid[2])]


def dense(keys: np.ndarray, weights: np.ndarray, cells: int) -> np.ndarray:
    """(head, query, cell) from the kept keys."""
    out = np.zeros((*keys.shape[:2], cells))
    for head, query, place in np.ndindex(keys.shape):
        out[head, query, keys[head, query, place]] += weights[head, query, place]
    return out


def with_mean(weights: np.ndarray) -> np.ndarray:
    return np.concatenate([weights, weights.mean(0, keepdims=True)])


@pytest.mark.parametrize("scheme", names())
def test_with_all_keys_it_is_the_whole_map(scheme: str) -> None:
    model, clip = random_model(scheme), torch.randn(1, 3, 3, 8, 20)
    found = top_keys(model, clip, count=100)
    maps = attention_maps(model, clip, query=places(GRID))
    of_class = attention_maps(model, clip)
    assert [(one.layer, one.step) for one in found] == [(one.layer, one.step) for one in maps]
    for one, whole, row in zip(found, maps, of_class, strict=True):
        rows = range(len(places(GRID))) if one.encoder == 0 else [places(GRID).index((t, 0, 0)) for t in range(3)]
        expected = with_mean(whole.weights[0][:, rows])
        got = dense(one.keys, one.weights, one.grid[0] * one.grid[1] * one.grid[2])
        np.testing.assert_allclose(got, expected.reshape(got.shape), atol=1e-6)
        np.testing.assert_allclose(one.on_class, with_mean(whole.on_class[0][:, rows]), atol=1e-6)
        np.testing.assert_allclose(one.class_row, with_mean(row.weights[0, :, 0]), atol=1e-6)
        np.testing.assert_allclose(one.class_on_class, with_mean(row.on_class[0, :, 0]), atol=1e-6)
        np.testing.assert_allclose(one.kept, 1, atol=1e-5)


def test_the_strongest_are_kept_and_said_how_much_they_hold() -> None:
    model, clip = random_model("joint"), torch.randn(1, 3, 3, 8, 20)
    (few,), (all_of_them,) = top_keys(model, clip, count=4), top_keys(model, clip, count=30)
    assert few.keys.shape == (3, 30, 4)
    whole = dense(all_of_them.keys, all_of_them.weights, 30)
    np.testing.assert_allclose(few.weights, -np.sort(-whole, -1)[..., :4], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(whole, few.keys.astype(int), -1), few.weights, atol=1e-6)
    np.testing.assert_allclose(few.kept, few.weights.sum(-1) + few.on_class)
    assert few.kept.max() < 0.99
    np.testing.assert_array_equal(few.class_row, all_of_them.class_row)  # the class token's row is whole


@pytest.mark.parametrize("scheme", ["divided", "joint", "space", "factorised_dot_product", "factorised_encoder"])
def test_cells_add_up_keys_and_average_queries(scheme: str) -> None:
    model, clip = random_model(scheme), torch.randn(1, 3, 3, 8, 20)
    fine, coarse = top_keys(model, clip, count=100), top_keys(model, clip, count=100, coarsen=(2, 1, 3))
    for one, whole in zip(coarse, fine, strict=True):
        later = one.encoder > 0
        assert one.grid == ((2, 1, 1) if later else (2, 2, 2))
        assert one.cell == ((2, 1, 1) if later else (2, 1, 3))
        cell = [((t // 2) * one.grid[1] + h) * one.grid[2] + w // 3 for t, h, w in places(whole.grid)]
        sums = np.eye(int(np.prod(one.grid)))[cell]  # patch, cell
        weights = dense(whole.keys, whole.weights, len(cell))
        expected = (sums / sums.sum(0)).T @ weights @ sums
        np.testing.assert_allclose(dense(one.keys, one.weights, sums.shape[1]), expected, atol=1e-6)
        np.testing.assert_allclose(one.on_class, whole.on_class @ (sums / sums.sum(0)), atol=1e-6)
        flat = one.class_row.reshape(len(one.class_row), -1)
        np.testing.assert_allclose(flat, whole.class_row.reshape(len(flat), -1) @ sums, atol=1e-6)


def test_chosen_layers_steps_and_heads() -> None:
    model, clip = random_model("divided"), torch.randn(1, 3, 3, 8, 20)
    (one,) = top_keys(model, clip, steps=["space"], heads=[1], layers=[-1])
    assert (one.layer, one.step, one.heads) == (0, "space", (1,))
    np.testing.assert_array_equal(one.weights[0], one.weights[1])  # the mean of one head
    for wrong, said in (
        ({"count": 0}, "expected count and coarsen of at least 1"),
        ({"coarsen": (0, 1, 1)}, "expected count and coarsen of at least 1"),
        ({"layers": [3]}, "layers: expected numbers"),
    ):
        with pytest.raises(InputError, match=said):
            top_keys(model, clip, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected one clip, got 2"):
        top_keys(model, clip.repeat(2, 1, 1, 1, 1))
