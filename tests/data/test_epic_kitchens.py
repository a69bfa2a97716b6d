"""Annotations of EPIC-Kitchens, whose samples are segments of videos with a verb and a noun."""

from pathlib import Path

import pytest

from tests.data.annotation_files import facts, put
from timesformer import InputError
from timesformer.data import read_annotations

EPIC_HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,"
    "start_frame,stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)


def epic(video: str = "P01_01", start: int = 8, stop: int = 202, stamp: str = "00:00:03.37", verb: int = 3) -> str:
    nouns = "\"['door', 'x']\",\"[5, 3]\""
    times = f"00:00:01.089,00:00:00.14,{stamp},{start},{stop}"
    return f"{video}_0,{video.split('_')[0]},{video},{times},open door,open,{verb},door,5,{nouns}"


def epic_file(folder: Path, *lines: str) -> Path:
    return put(folder / "EPIC_100_train.csv", "\n".join([EPIC_HEADER, *lines, ""]))


def test_epic_kitchens(tmp_path: Path) -> None:
    path = epic_file(tmp_path, epic(), epic("P02_101", 1, 50, "00:00:01.00"), epic("P03_01", 1, 1, "00:00:00.01"))
    found = read_annotations("epic_kitchens", path, "/epic", (97, 300))
    assert found.heads == ("verb", "noun")
    assert found.labels is None
    assert facts(found) == [
        ("/epic/P01/videos/P01_01.MP4", (3, 5), "P01_01_0", 7, 202),
        ("/epic/P02/videos/P02_101.MP4", (3, 5), "P02_101_0", 0, 50),
        ("/epic/P03/videos/P03_01.MP4", (3, 5), "P03_01_0", 0, 1),
    ]
    assert [sample.fps for sample in found] == [60.0, 50.0, 60.0]
    thirty = epic_file(tmp_path, epic("P09_07", 8, 300, "00:00:10.00"))
    assert read_annotations("epic_kitchens", thirty, fps=7.0)[0].fps == 30.0
    bare = put(
        tmp_path / "bare.csv",
        "participant_id,video_id,start_frame,stop_frame,verb_class,noun_class\nP01,P01_01,1,9,0,0\n",
    )
    (sample,) = read_annotations("epic_kitchens", bare)
    assert (sample.name, sample.fps) == ("P01_01[1:9]", 60.0)


def test_where_epic_kitchens_lies(tmp_path: Path) -> None:
    for folder in ("P01/rgb_frames/P01_01", "P01/P01_02", "P01_03"):
        (tmp_path / folder).mkdir(parents=True)
    put(tmp_path / "P01/videos/P01_04.MP4", "")
    put(tmp_path / "P01_05.mp4", "")
    path = epic_file(tmp_path, *(epic(f"P01_0{number}") for number in range(1, 7)))
    assert [str(sample.path.relative_to(tmp_path)) for sample in read_annotations("epic_kitchens", path)] == [
        "P01/rgb_frames/P01_01",
        "P01/P01_02",
        "P01_03",
        "P01/videos/P01_04.MP4",
        "P01_05.mp4",
        "P01/videos/P01_06.MP4",
    ]


def test_names_of_epic_kitchens(tmp_path: Path) -> None:
    path = epic_file(tmp_path, epic())
    names = {"verb": [f"v{i}" for i in range(4)], "noun": [f"n{i}" for i in range(6)]}
    for head, keys in names.items():
        rows = "".join(f"{i},{key},\"['x']\",y\n" for i, key in enumerate(keys))
        put(tmp_path / f"EPIC_100_{head}_classes.csv", "id,key,instances,category\n" + rows)
    found = read_annotations("epic_kitchens", path)
    assert found.labels == names
    assert found.num_classes == (4, 6)
    with pytest.raises(InputError, match=r"num_classes is \(97, 300\), but there are \(4, 6\) class names"):
        read_annotations("epic_kitchens", path, num_classes=(97, 300))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (epic(start=0), r"train\.csv:2: stop_frame: expected 1 <= start_frame <= stop_frame, got 0 and 202"),
        (epic(start=9, stop=8), "got 9 and 8"),
        (epic(verb=97), r"train\.csv:2: verb_class 97 is out of range, expected 0 to 96"),
        (epic().replace(",8,", ",x,"), r"train\.csv:2: start_frame: expected a whole number, got 'x'"),
        (epic(stamp="3.37"), r"train\.csv:2: stop_timestamp: expected hours:minutes:seconds, got '3\.37'"),
        (epic().replace("P01,P01_01,", "P01,,"), r"train\.csv:2: video_id: expected the name of a video"),
        ("a,b", r"train\.csv:2: expected 15 fields as in the header, got 2"),
    ],
)
def test_bad_epic_kitchens(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_annotations("epic_kitchens", epic_file(tmp_path, line), num_classes=(97, 300))


def test_epic_kitchens_has_two_heads(tmp_path: Path) -> None:
    path = epic_file(tmp_path, epic())
    for number in (97, (97,), (1, 2, 3)):
        with pytest.raises(InputError, match="num_classes: expected two numbers, of verbs and nouns"):
            read_annotations("epic_kitchens", path, num_classes=number)
    for labels in (["a"], {"noun": ["a"], "verb": ["b"]}):
        with pytest.raises(InputError, match="expected class names for the heads verb and noun"):
            read_annotations("epic_kitchens", path, labels=labels)
