"""Groups of videos, and validation sets that take whole groups out of a training list."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timesformer import InputError
from timesformer.data import Annotations, Sample, read_annotations
from timesformer.data.splits import Grouping, group_of, hold_out, require_apart

TALKERS = [
    Sample(Path(f"/videos/talker{talker}_{letter}{again}.mp4"), number, f"talker{talker}_{letter}{again}.mp4")
    for talker in range(1, 8)
    for number, letter in enumerate("ABCD")
    for again in (1, 2)
]


def talkers(pattern: str = r"talker(\d+)") -> Annotations:
    return Grouping(pattern=pattern).of(Annotations(tuple(TALKERS)), Path("list.csv"))


def test_a_pattern_gives_the_group_by_its_bracket_or_all_that_it_finds() -> None:
    assert {sample.group for sample in talkers()} == set("1234567")
    assert talkers(r"talker\d")[0].group == "talker1"
    with pytest.raises(InputError, match=r"list\.csv: talker1_A1\.mp4: group\.pattern 'speaker' finds nothing"):
        talkers("speaker")
    with pytest.raises(InputError, match=r"group\.pattern: no regular expression"):
        Grouping(pattern="(")
    with pytest.raises(InputError, match="expected one of pattern and column"):
        Grouping(pattern="a", column="b")


def test_a_column_gives_the_group(tmp_path: Path) -> None:
    path = tmp_path / "EPIC_100_train.csv"
    path.write_text(
        "participant_id,video_id,start_frame,stop_frame,verb_class,noun_class\n"
        "P01,P01_01,1,9,0,1\nP01,P01_02,1,9,0,1\nP02,P02_01,1,9,1,0\n"
    )
    found = read_annotations("epic_kitchens", path, num_classes=(2, 2))
    assert [sample.group for sample in found] == ["P01_01", "P01_02", "P02_01"]
    by_person = Grouping(column="participant_id").of(found, path)
    assert [sample.group for sample in by_person] == ["P01", "P01", "P02"]
    assert by_person[0].place == found[0].place
    with pytest.raises(InputError, match=r"EPIC_100_train\.csv:1: the header has no column 'scene'"):
        Grouping(column="scene").of(found, path)
    json_list = tmp_path / "list.json"
    json_list.write_text('[{"vid_name": "a", "label": 0, "start_frame": 0, "end_frame": 3, "dive": 7}]')
    dives = read_annotations("diving48", json_list)
    assert dives[0].group == "a"
    assert Grouping(column="dive").of(dives, json_list)[0].group == "7"


def test_whole_groups_are_held_out() -> None:
    train, val = hold_out(talkers(), 0.3)
    assert {sample.group for sample in train} & {sample.group for sample in val} == set()
    assert len(val) == 16  # two of seven talkers
    assert sorted([*train, *val], key=lambda s: s.name) == sorted(talkers(), key=lambda s: s.name)
    again = Annotations(tuple(reversed(talkers().samples)))
    assert {sample.name for sample in hold_out(again, 0.3)[1]} == {sample.name for sample in val}


def test_single_videos_are_held_out_by_class() -> None:
    for held in (hold_out(Annotations(tuple(TALKERS)), 0.25)[1], hold_out(talkers(), 0.25, shared=True)[1]):
        counts = Counter(sample.label for sample in held)
        assert sum(counts.values()) == 14
        assert set(counts.values()) <= {3, 4}
    assert len({sample.group for sample in hold_out(talkers(), 0.25, shared=True)[1]}) > 2


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=2, max_size=40), st.floats(0.05, 0.95))
def test_nothing_is_lost_or_on_two_sides(videos: list[tuple[int, int]], fraction: float) -> None:
    found = Annotations(
        tuple(Sample(Path(f"{n}.mp4"), label, group=f"g{group}") for n, (label, group) in enumerate(videos))
    )
    try:
        train, val = hold_out(found, fraction)
    except InputError:
        # Half of the smallest group is more than what is wanted, or there is only one.
        sizes = Counter(sample.group for sample in found)
        assert len(sizes) == 1 or 2 * fraction * len(found) <= min(sizes.values())
        return
    assert train
    assert val
    assert Counter([*train, *val]) == Counter(found)
    require_apart({"train": train, "validation": val})


def test_impossible_fractions() -> None:
    with pytest.raises(InputError, match="nearer to none than to a whole group; there are 7 groups, the smallest of 8"):
        hold_out(talkers(), 0.05)
    with pytest.raises(InputError, match="expected a number between 0 and 1, got 1"):
        hold_out(talkers(), 1)


def test_a_group_on_two_sides_is_named() -> None:
    sides = {"train": talkers()[:8], "test": talkers()[6:9]}
    with pytest.raises(InputError, match=r"test: the group '1' \(talker1_D1\.mp4\) is in train as well"):
        require_apart(sides)
    # Files of one name in two folders are two videos; one file is one, whatever segments are taken of it.
    one, other = (Sample(Path(f"/{side}/a/1.mp4"), 0, "a/1.mp4") for side in ("train", "test"))
    require_apart({"train": [one], "test": [other]})
    parts = [Sample(Path("/long.mp4"), 0, start_frame=start, end_frame=start + 5) for start in (0, 5)]
    with pytest.raises(InputError, match="is in train as well"):
        require_apart({"train": parts[:1], "test": parts[1:]})
    assert [group_of(sample) for sample in (one, parts[0], talkers()[0])] == ["a/1.mp4", "/long.mp4", "1"]
