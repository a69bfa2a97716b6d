"""Measures against values worked out by hand."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from tests.maps.models import EVERY, GRID, clips, make
from timesformer import InputError
from timesformer.attention.operator import Query
from timesformer.maps import (
    METHODS,
    AttentionMap,
    Saliency,
    attention_maps,
    class_share,
    deletion_insertion,
    distance,
    energy_inside,
    entropy,
    head_table,
    pointing_game,
)


def a_map(weights: dict[tuple[int, int, int], float], on_class: float, query: Query) -> AttentionMap:
    array = np.zeros((1, 1, 1, *GRID), np.float32)
    for place, weight in weights.items():
        array[(0, 0, 0, *place)] = weight
    return AttentionMap(0, 0, "step", (0,), (query,), array, np.full((1, 1, 1), on_class, np.float32))


def saliency(weights: np.ndarray) -> Saliency:
    return Saliency("by hand", ("class",), weights[:, None].astype(np.float32))


def test_of_a_map_by_hand() -> None:
    one = a_map({(0, 0, 0): 0.25, (2, 1, 3): 0.25}, 0.5, (0, 0, 0))
    assert entropy(one)[0, 0, 0] == pytest.approx(1.5 * math.log(2))
    space, time = distance(one)
    assert space[0, 0, 0] == pytest.approx(math.sqrt(10) / 2)  # one row and three columns away, with half the weight
    assert time[0, 0, 0] == pytest.approx(1)  # two frames away, with half the weight
    assert class_share(one)[0, 0, 0] == 0.5
    alone = a_map({(1, 1, 2): 1.0}, 0.0, (1, 1, 2))
    assert entropy(alone) == 0
    assert [float(x[0, 0, 0]) for x in distance(alone)] == [0, 0]
    assert np.isnan(distance(a_map({(1, 1, 2): 1.0}, 0.0, "class"))).all()


@pytest.mark.parametrize("attention", EVERY)
def test_the_table_is_the_mean_over_all_queries(attention: str) -> None:
    model, clip = make(attention), clips()
    table = head_table(model, clip)
    queries: list[Query] = [(t, h, w) for t, h, w in product(*(range(n) for n in GRID))]
    for one in attention_maps(model, clip, query=queries):
        rows = table[(table.layer == one.layer) & (table.step == one.step)]
        assert rows["head"].tolist() == [0, 1]
        assert set(rows.encoder) == {one.encoder}
        for column, values in (
            ("entropy_nats", entropy(one)),
            ("distance_space", distance(one)[0]),
            ("distance_time", distance(one)[1]),
            ("class_share", class_share(one)),
        ):
            np.testing.assert_allclose(rows[column], values.mean((0, 2)), atol=1e-5)


def test_what_steps_can_see_shows_in_the_table() -> None:
    table = head_table(make("divided"), clips()).set_index("step")
    assert (table.loc["time", "distance_space"] == 0).all()
    assert (table.loc["space", "distance_time"] == 0).all()
    assert (table.loc["time", "class_share"] == 0).all()
    assert (table.loc["space", "class_share"] > 0).all()


def test_energy_and_pointing_by_hand() -> None:
    weights = np.zeros((1, *GRID))
    weights[0, 1, 0, 2], weights[0, 2, 1, 3] = 3.0, 1.0
    mask = np.zeros((1, 3, 8, 16), bool)  # tokens of 4 x 4 pixels
    mask[0, 1, 0:4, 8:10] = True  # the left half of the heavier token
    mask[0, 2, 4:8, 12:16] = True  # all of the other
    assert energy_inside(saliency(weights), mask)[0, 0] == pytest.approx((3 * 0.5 + 1) / 4)
    assert pointing_game(saliency(weights), mask)[0, 0] == 0.5
    weights[0, 2, 1, 3] = 3.0
    assert pointing_game(saliency(weights), mask)[0, 0] == 0.75  # two equally high
    for measure in (energy_inside, pointing_game):
        for uniform in (np.ones((1, *GRID)), np.zeros((1, *GRID))):
            assert measure(saliency(uniform), mask)[0, 0] == pytest.approx(mask.mean())
        assert np.isnan(measure(saliency(weights), np.zeros_like(mask)))
        tokens = np.zeros((1, *GRID), bool)
        tokens[0, 1, 0, 2] = True
        assert measure(saliency(weights), torch.from_numpy(tokens))[0, 0] == 0.5


def test_tubelets_cover_several_frames() -> None:
    weights = np.zeros((1, 2, 1, 1))
    weights[0, 1] = 1
    mask = np.zeros((1, 4, 4, 4), bool)
    mask[0, 2] = True
    assert energy_inside(saliency(weights), mask)[0, 0] == 0.5


@pytest.mark.parametrize("shape", [(1, 3, 9, 16), (2, 3, 8, 16), (3, 8, 16), (1, 2, 8, 16)])
def test_masks_that_do_not_fit(shape: tuple[int, ...]) -> None:
    for measure in (energy_inside, pointing_game):
        with pytest.raises(InputError, match="mask"):
            measure(saliency(np.ones((1, *GRID))), np.ones(shape, bool))


class _ByHand(torch.nn.Module):
    """Logits 0 and the sum of the first channel of one token's pixels: what a curve looks like is plain."""

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        score = clip[:, 1, 0, :4, 8:12].sum((1, 2))
        return torch.stack([torch.zeros_like(score), score], 1)


def test_deletion_and_insertion_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("divided", num_classes=2)
    monkeypatch.setattr(model, "forward", _ByHand().forward)
    clip = torch.zeros(1, 3, 3, 8, 16, dtype=torch.float64)
    clip[0, 1, 0, :4, 8:12] = 1.0  # 16 pixels: a logit of 16; the mean colour of the clip is 1 / 24: 16 / 24
    high, low = (1 / (1 + math.exp(-score)) for score in (16, 16 / 24))
    best = np.arange(24, 0, -1.0)
    best[1 * 8 + 0 * 4 + 2] = 100
    found = deletion_insertion(model, clip, saliency(best.reshape(1, *GRID)), 1, steps=4)
    np.testing.assert_allclose(found.fractions, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(found.deleted[0], [high, low, low, low, low])
    np.testing.assert_allclose(found.inserted[0], [low, high, high, high, high])
    assert found.deletion[0] == pytest.approx(low + (high - low) / 8)
    assert found.insertion[0] == pytest.approx(high - (high - low) / 8)
    best[1 * 8 + 0 * 4 + 2] = -1  # the worst map: the token goes last
    worst = deletion_insertion(model, clip, saliency(best.reshape(1, *GRID)), 1, steps=4)
    np.testing.assert_allclose(worst.deleted[0], [high, high, high, high, low])
    other = deletion_insertion(model, clip, saliency(best.reshape(1, *GRID)), 0, steps=4)
    np.testing.assert_allclose(other.deleted, 1 - worst.deleted)


def test_curves_begin_and_end_alike() -> None:
    model, clip = make("space", num_classes=(2, 3)), clips()
    found = deletion_insertion(model, clip, saliency(np.random.default_rng(0).random((2, *GRID))), steps=3)
    np.testing.assert_allclose(found.deleted[:, 0], found.inserted[:, -1])
    np.testing.assert_allclose(found.deleted[:, -1], found.inserted[:, 0])
    with torch.no_grad():
        verb, noun = model(clip).split((2, 3), -1)
    expected = (verb.softmax(-1).amax(-1) + noun.softmax(-1).amax(-1)) / 2
    np.testing.assert_allclose(found.deleted[:, 0], expected)


def test_curves_that_are_refused() -> None:
    model, clip = make("divided"), clips()
    wrong: list[tuple[np.ndarray, dict[str, Any], str]] = [
        (np.ones((1, *GRID)), {}, "saliency"),
        (np.ones((2, 3, 2, 5)), {}, "saliency"),
        (np.ones((2, *GRID)), {"steps": 0}, "steps"),
        (np.ones((2, *GRID)), {"target": 7}, "target"),
    ]
    for weights, options, message in wrong:
        with pytest.raises(InputError, match=message):
            deletion_insertion(model, clip, saliency(weights), **options)


@pytest.mark.parametrize("attention", EVERY)
def test_every_method_explains_every_scheme(attention: str) -> None:
    model, clip = make(attention), clips()
    for name, method in METHODS.items():
        found = method(model, clip, None)
        assert found.weights.shape == (2, 1, *GRID), name
        assert found.weights.dtype == np.float32
        assert np.isfinite(found.weights).all()
        assert (found.weights >= 0).all()
        assert found.weights.sum() > 0
