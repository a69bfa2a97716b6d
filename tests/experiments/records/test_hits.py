"""Which test videos were right, and which belong together, as records say it."""

from collections import Counter
from typing import Any

import pytest

from timesformer_experiments.records.hits import clusters_of, groups_of, hits_of


def record(data: dict[str, Any], right: str) -> dict[str, Any]:
    bits = right.ljust(-(-len(right) // 8) * 8, "0")
    return {
        "spec": {"data": data},
        "dataset": {"test": {"fingerprint": "f"}},
        "metrics": {"test_videos": len(right)},
        "test_right": int(bits, 2).to_bytes(len(bits) // 8, "big").hex(),
    }


@pytest.mark.parametrize(
    ("data", "together"),
    [
        ({"probe": "appearance"}, 1),
        ({"probe": "motion"}, 2),
        ({"probe": "order", "video_frames": 32, "event_frames": 8}, 2),
        ({"probe": "detail"}, 4),
        ({"probe": "mixture", "temporal_share": 0.3, "video_frames": None}, 2),
        ({"train_csv": "a.csv"}, 1),
    ],
)
def test_groups_are_those_of_the_kind_and_of_one_size(data: dict[str, Any], together: int) -> None:
    found = groups_of(data, 24)
    assert found == [found[place - place % together] for place in range(24)]
    assert set(Counter(found).values()) == {together}


def test_hits_and_groups_have_the_same_names() -> None:
    found = record({"probe": "motion"}, "110100")
    assert list(hits_of(found).values()) == [True, True, False, True, False, False]
    groups = clusters_of(found)
    assert list(groups) == list(hits_of(found))
    first = "f:000000.mp4"
    assert [label == first for label in groups.values()] == [True, True, False, False, False, False]
    assert clusters_of({"spec": {}, "metrics": {}}) == {}
