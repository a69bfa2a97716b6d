"""Sparse patterns: their counted densities, and recall from records."""

from typing import Any

import pytest

from timesformer.attention import build
from timesformer.errors import InputError
from timesformer_experiments.cost.break_even import first_less
from timesformer_experiments.paper.artefacts.sparse import sparse
from timesformer_experiments.paper.setting import PROBES


def record(probe: str, seed: int, recall: float) -> dict[str, Any]:
    each = {"pattern": "swin(window=[2,2,2])", "layer": 0, "recall": recall, "recall_by_head": [recall - 0.1, recall]}
    spec = {"data": {"probe": probe}}
    return {"kind": "recall", "seed": seed, "spec": spec, "metrics": {"recall": [{**each, "density": 0.0625}]}}


@pytest.mark.parametrize(
    ("name", "declared"),
    [
        ("joint", 100.0),
        ("divided", 100 * (196 + 32) / 6272),
        ("swin", 100 * 8 * 49 / 6272),
        ("dilated", 100 * 3 * 9 * 4 / 6272),
    ],
)
def test_declared_pairs_by_hand(name: str, declared: float) -> None:
    """Of 32 x 14 x 14 patches: a window of 8 x 7 x 7, or 3 x 3 x 3 tiles of 1 x 2 x 2 patches, for every query."""
    found = sparse._density(name)
    assert found["counted_pairs_needed_percent"] == pytest.approx(declared)
    assert found["counted_pairs_executed_percent"] == pytest.approx(declared)


def test_masks_inside_of_tiles_are_executed_in_vain() -> None:
    found = sparse._density("neighbourhood")
    assert found["counted_pairs_needed_percent"] == pytest.approx(100 * 3 * 49 / 6272)
    assert found["counted_pairs_executed_percent"] > found["counted_pairs_needed_percent"]


def test_recall_is_the_mean_over_seeds() -> None:
    records = [record(probe, seed, recall) for probe in PROBES for seed, recall in ((0, 0.4), (1, 0.6))]
    frame = sparse.recalls([{"kind": "run"}, *records])
    assert frame["measured_recall_percent"].tolist() == pytest.approx([50.0, 50.0])
    assert frame["measured_lowest_head_percent"].tolist() == pytest.approx([40.0, 40.0])
    assert frame["counted_pairs_percent"].tolist() == pytest.approx([6.25, 6.25])
    assert frame["measured_seeds"].tolist() == [2, 2]
    assert list(frame["probe"]) == list(PROBES)


def test_recall_of_a_missing_probe() -> None:
    with pytest.raises(InputError, match="sparse: the records have no measurement of recall on motion"):
        sparse.recalls([record("appearance", 0, 0.4)])


def test_patterns_can_be_built_and_the_plan_is_that_of_table_1() -> None:
    for pattern in (pattern for family in sparse.NARROWER.values() for pattern in family):
        assert build(pattern).encoders
    assert {spec.model.attention for spec in sparse.plan("quick")} == {"joint", "space"}  # type: ignore[union-attr]


def test_sizes_from_which_on() -> None:
    assert first_less([False, True, False, True]) == 3
    assert first_less([True, False]) is None
