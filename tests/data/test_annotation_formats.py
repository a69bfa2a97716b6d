"""Every annotation format but those of Kinetics and EPIC-Kitchens, good and bad."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.data.annotation_files import facts, put
from timesformer import InputError
from timesformer.data import Sample, read_annotations

SSV2_LABELS = {"Closing something": "1", "Opening something": "0"}
FRAMES_HEADER = "original_vido_id video_id frame_id path labels"


def test_annotations_are_a_sequence(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "a.mp4 0\nb.mp4 1\n")
    found = read_annotations("kinetics", path, fps=12.0)
    assert len(found) == 2
    assert found[1].name == "b.mp4"
    assert [s.name for s in found[:1]] == ["a.mp4"]
    assert [s.fps for s in found] == [12.0, 12.0]
    assert (found.labels, found.num_classes, found.heads) == (None, None, ())
    named = read_annotations("kinetics", path, labels=["x", "y"])
    assert named.num_classes == 2
    assert Sample(tmp_path, 0, "n").place == str(tmp_path)
    with pytest.raises(InputError, match=r"format: expected one of diving48, epic_kitchens, .*, got 'ucf'"):
        read_annotations("ucf", path)
    with pytest.raises(InputError, match="fps: expected a number above 0, got 0"):
        read_annotations("kinetics", path, fps=0)
    with pytest.raises(InputError, match="num_classes is 3, but there are 2 class names"):
        read_annotations("kinetics", path, num_classes=3, labels=["x", "y"])
    for several in ({"num_classes": (2, 3)}, {"labels": {"a": ["x"], "b": ["y"]}}):
        with pytest.raises(InputError, match="this format has one label per video"):
            read_annotations("kinetics", path, **several)
    with pytest.raises(InputError, match="label 1 is out of range, expected 0 to 0"):
        read_annotations("kinetics", path, labels=["x"])


def ssv2(folder: Path, entries: Any) -> Path:
    put(folder / "something-something-v2-labels.json", SSV2_LABELS)
    return put(folder / "something-something-v2-train.json", entries)


def test_ssv2(tmp_path: Path) -> None:
    (tmp_path / "videos" / "3").mkdir(parents=True)
    put(tmp_path / "videos" / "4.mp4", "")
    put(tmp_path / "videos" / "1.webm", "")
    path = ssv2(
        tmp_path,
        [
            {"id": "1", "label": "closing a box", "template": "Closing [something]", "placeholders": ["a box"]},
            {"id": "2", "template": "Opening [something]"},
            {"id": 3, "template": "Closing [something]"},
            {"id": "4", "template": "Closing [something]"},
        ],
    )
    found = read_annotations("ssv2", path, tmp_path / "videos", 2)
    assert found.labels == ["Opening something", "Closing something"]
    videos = tmp_path / "videos"
    assert facts(found) == [
        (str(videos / "1.webm"), 1, "1", None, None),
        (str(videos / "2.webm"), 0, "2", None, None),  # not there: found missing when it is read
        (str(videos / "3"), 1, "3", None, None),
        (str(videos / "4.mp4"), 1, "4", None, None),
    ]
    own = read_annotations("ssv2", path, labels=["Closing something", "Opening something"])
    assert [sample.label for sample in own] == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({}, "expected a list of entries, got dict"),
        ([], "the annotation file is empty"),
        ("[1,", r"train\.json:1: not valid JSON"),
        ([{"id": "1", "template": "Closing [something]"}, 3], "entry 2: expected an object with fields, got 3"),
        ([{"template": "Closing [something]"}], "entry 1: field 'id' is missing"),
        ([{"id": True, "template": "x"}], "entry 1: field 'id': expected text, got True"),
        ([{"id": "1"}], "entry 1: field 'template' is missing"),
        ([{"id": "1", "template": 3}], "entry 1: field 'template': expected text, got 3"),
        ([{"id": "1", "template": "Eating [something]"}], "entry 1: field 'template': no class is called 'Eating some"),
        ([{"id": "1", "template": "Closing [something]"}] * 2, "entry 2: field 'id': '1' occurs twice"),
    ],
)
def test_bad_ssv2(tmp_path: Path, entries: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_annotations("ssv2", ssv2(tmp_path, entries))


def test_ssv2_needs_names(tmp_path: Path) -> None:
    path = put(tmp_path / "something-something-v2-validation.json", [{"id": "1", "template": "x"}])
    with pytest.raises(InputError, match=r"class names are missing: expected .*something-something-v2-labels\.json"):
        read_annotations("ssv2", path)


@pytest.mark.parametrize("sign", [" ", "\t", ","])
def test_ssv2_frame_lists(tmp_path: Path, sign: str) -> None:
    lines = [FRAMES_HEADER, *(f"78 0 {i} 78/78_{i + 1:06d}.jpg 1" for i in range(3)), "", "9 1 0 9/9_000001.jpg 0"]
    path = put(tmp_path / "train.csv", "\n".join(lines).replace(" ", sign))
    found = read_annotations("ssv2_frames", path, "/frames", 2)
    assert facts(found) == [("/frames/78", 1, "78", 0, 3), ("/frames/9", 0, "9", 0, 1)]
    assert found.labels is None


def test_ssv2_frame_lists_without_labels(tmp_path: Path) -> None:
    ssv2(tmp_path, [{"id": "78", "template": "Closing [something]"}, {"id": "9", "template": "Opening [something]"}])
    path = put(tmp_path / "train.csv", f'{FRAMES_HEADER}\n9 0 0 9/a.jpg ""\n78 1 0 78/a.jpg ""\n78 1 1 78/b.jpg ""\n')
    found = read_annotations("ssv2_frames", path)
    assert [sample.label for sample in found] == [0, 1]
    assert found.labels == ["Opening something", "Closing something"]
    with path.open("a") as file:
        file.write('5 2 0 5/a.jpg ""\n')
    with pytest.raises(
        InputError, match=r"train\.csv:5: labels: video '5' has no label here and none in .*v2-train\.json"
    ):
        read_annotations("ssv2_frames", path)
    validation = put(tmp_path / "val.csv", f'{FRAMES_HEADER}\n9 0 0 9/a.jpg ""\n')
    with pytest.raises(InputError, match=r"v2-validation\.json: no such annotation file"):
        read_annotations("ssv2_frames", validation)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"train\.csv:1: expected the header `original_vido_id video_id frame_id path labels`, got ''"),
        ("1 0 0 1/1.jpg 1\n", r"train\.csv:1: expected the header"),
        (FRAMES_HEADER + "\n", "the annotation file is empty"),
        (FRAMES_HEADER + "\n1 0 0 1/1.jpg\n", r"train\.csv:2: expected 5 fields .*, got 4"),
        (FRAMES_HEADER + "\n1 0 x 1/1.jpg 1\n", r"train\.csv:2: frame_id: expected a whole number, got 'x'"),
        (FRAMES_HEADER + "\n1 0 0 1/1.jpg 1,2\n", r"train\.csv:2: labels: expected a whole number, got '1,2'"),
        (FRAMES_HEADER + "\n1 0 0 1/1.jpg 7\n", r"train\.csv:2: label 7 is out of range, expected 0 to 1"),
        (FRAMES_HEADER + "\n1 0 0 1/1.jpg 1\n2 1 0 1/2.jpg 1\n", r"train\.csv:3: path: 1 also contains frames of '1'"),
        (
            FRAMES_HEADER + "\n1 0 0 1/1.jpg 1\n1 0 1 2/2.jpg 1\n",
            r"train\.csv:3: path: frames of '1' are in 1 and in 2",
        ),
        (FRAMES_HEADER + "\n1 0 0 1/1.jpg 1\n1 0 1 1/2.jpg 0\n", r"train\.csv:3: labels: '1' has '1' and '0'"),
        (
            FRAMES_HEADER + "\n1 0 0 1/1.jpg 1\n1 0 2 1/2.jpg 1\n",
            r"train\.csv:3: frame_id: 2\.jpg \(2\) does not follow",
        ),
        (FRAMES_HEADER + "\n1 0 0 1/10.jpg 1\n1 0 1 1/9.jpg 1\n", r"frame_id: 9\.jpg \(1\) does not follow 10\.jpg"),
        (FRAMES_HEADER + '\n1 0 0 1/1.jpg ""\n', "class names are missing"),
    ],
)
def test_bad_frame_lists(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_annotations("ssv2_frames", put(tmp_path / "train.csv", text), num_classes=2)


def test_diving48(tmp_path: Path) -> None:
    entries = [
        {"vid_name": "a_00001", "label": 1, "start_frame": 0, "end_frame": 48},
        {"vid_name": "a_00002", "label": 0, "start_frame": 3, "end_frame": 48},
    ]
    path = put(tmp_path / "Diving48_V2_train.json", entries)
    assert facts(read_annotations("diving48", path, num_classes=48)) == [
        (str(tmp_path / "a_00001.mp4"), 1, "a_00001", None, None),
        (str(tmp_path / "a_00002.mp4"), 0, "a_00002[3:48]", 3, 48),
    ]
    put(tmp_path / "Diving48_vocab.json", [["Back", "15som", "05Twis", "FREE"], ["Back", "15som", "15Twis", "FREE"]])
    found = read_annotations("diving48", path)
    assert found.labels == ["Back 15som 05Twis FREE", "Back 15som 15Twis FREE"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "1"}, "entry 1: field 'label': expected a whole number, got '1'"),
        ({"label": 48}, "entry 1: label 48 is out of range, expected 0 to 47"),
        ({"label": -1}, "label -1 is out of range"),
        ({"label": True}, "field 'label': expected a whole number, got True"),
        ({"end_frame": 0}, "field 'end_frame': expected a number above start_frame 0, got 0"),
        ({"start_frame": -1}, "expected a number above start_frame -1"),
        ({"vid_name": 3}, "field 'vid_name': expected text, got 3"),
    ],
)
def test_bad_diving48(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    entry = {"vid_name": "a", "label": 1, "start_frame": 0, "end_frame": 48} | change
    with pytest.raises(InputError, match=said):
        read_annotations("diving48", put(tmp_path / "test.json", [entry]), num_classes=48)


HOWTO = "video_id,category_1,category_2,rank,task_id\n"


def test_howto100m(tmp_path: Path) -> None:
    for name in ("x/nVbIUDjzWY4.webm", "x/nVbIUDjzWY4.mp4", "y/z/kXaWdmJuPOQ.MKV", "y/other.mp4", "y/kXaWdmJuPOQ.part"):
        put(tmp_path / "videos" / name, "")
    put(tmp_path / "videos" / "frames" / "aaaaaaaaaaa" / "1.jpg", "")
    path = put(
        tmp_path / "HowTo100M_v1.csv",
        HOWTO + "nVbIUDjzWY4,Cars,Motorcycles,108,52907\nkXaWdmJuPOQ,Food,,1,807\n"
        "aaaaaaaaaaa,Food,,2,807\nbbbbbbbbbbb,Food,,3,100001\n",
    )
    found = read_annotations("howto100m", path, tmp_path / "videos")
    assert found.labels == ["807", "52907", "100001"]
    assert [sample.label for sample in found] == [1, 0, 0, 2]
    root = tmp_path / "videos"
    assert [sample.path for sample in found] == [
        root / "x/nVbIUDjzWY4.mp4",
        root / "y/z/kXaWdmJuPOQ.MKV",
        root / "frames/aaaaaaaaaaa",
        root / "bbbbbbbbbbb.mp4",
    ]
    assert found[0].name == "nVbIUDjzWY4"
    part = put(tmp_path / "part.csv", HOWTO + "kXaWdmJuPOQ,Food,,1,807\n")
    assert read_annotations("howto100m", part, labels=["9", "807"])[0].label == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"a\.csv:1: the header has no column 'video_id'; expected video_id, task_id"),
        ("video_id,rank\n", "the header has no column 'task_id'"),
        (HOWTO, "the annotation file is empty"),
        (HOWTO + "a,b,c,1\n", r"a\.csv:2: expected 5 fields as in the header, got 4"),
        (HOWTO + "a,b,c,1,x\n", r"a\.csv:2: task_id: expected a whole number, got 'x'"),
        (HOWTO + ",b,c,1,7\n", r"a\.csv:2: video_id: expected the name of a video, got an empty field"),
        (HOWTO + "a,b,c,1,7\n\na,b,c,1,7\n", r"a\.csv:4: video_id: 'a' occurs twice"),
    ],
)
def test_bad_howto100m(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_annotations("howto100m", put(tmp_path / "a.csv", text))


def test_howto100m_with_other_classes(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", HOWTO + "a,b,c,1,7\n")
    with pytest.raises(InputError, match=r"a\.csv:2: task_id: 7 is not one of the 2 classes"):
        read_annotations("howto100m", path, labels=["8", "9"])
    with pytest.raises(InputError, match="num_classes is 3, but there are 1 class names"):
        read_annotations("howto100m", path, num_classes=3)


def test_moments(tmp_path: Path) -> None:
    put(tmp_path / "moments_categories.txt", "blocking,1\nadult+female+singing,0\n")
    text = "blocking/getty-karate_4.mp4,blocking,3,0\nadult+female+singing/yt_5.mp4,adult+female+singing,2,1\n"
    path = put(tmp_path / "trainingSet.csv", text)
    found = read_annotations("moments", path)
    assert found.labels == ["adult+female+singing", "blocking"]
    assert facts(found) == [
        (str(tmp_path / "blocking/getty-karate_4.mp4"), 1, "blocking/getty-karate_4.mp4", None, None),
        (str(tmp_path / "adult+female+singing/yt_5.mp4"), 0, "adult+female+singing/yt_5.mp4", None, None),
    ]
    (tmp_path / "data" / "training" / "blocking" / "getty-karate_4").mkdir(parents=True)
    found = read_annotations("moments", path, tmp_path / "data")
    assert found[0].path == tmp_path / "data/training/blocking/getty-karate_4"
    assert found[0].name == "blocking/getty-karate_4.mp4"
    assert found[1].path == tmp_path / "data/training/adult+female+singing/yt_5.mp4"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the annotation file is empty"),
        ("a.mp4\n", r"trainingSet\.csv:1: expected `path,class name`, got 'a\.mp4'"),
        ("\na.mp4,eating,1,2\n", r"trainingSet\.csv:2: no class is called 'eating'"),
    ],
)
def test_bad_moments(tmp_path: Path, text: str, said: str) -> None:
    path = put(tmp_path / "trainingSet.csv", text)
    with pytest.raises(InputError, match=said):
        read_annotations("moments", path, labels=["blocking"])
    with pytest.raises(InputError, match=r"class names are missing: expected .*moments_categories\.txt"):
        read_annotations("moments", path)


def test_folder(tmp_path: Path) -> None:
    for name in ("b/2.mp4", "b/10.MP4", "a/x.webm", "b/notes.txt", "a/.hidden.mp4", ".git/x.mp4", "list.csv"):
        put(tmp_path / name, "")
    put(tmp_path / "a" / "frames" / "1.jpg", "")
    found = read_annotations("folder", tmp_path)
    assert found.labels == ["a", "b"]
    assert [(sample.name, sample.label) for sample in found] == [
        ("a/frames", 0),
        ("a/x.webm", 0),
        ("b/2.mp4", 1),
        ("b/10.MP4", 1),
    ]
    turned = read_annotations("folder", tmp_path, labels=["c", "b", "a"])
    assert [sample.label for sample in turned] == [2, 2, 1, 1]
    with pytest.raises(InputError, match="b: no class is called 'b'"):
        read_annotations("folder", tmp_path, labels=["a"])


def test_bad_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder of classes"):
        read_annotations("folder", tmp_path / "nowhere")
    with pytest.raises(InputError, match="expected one folder per class, got a folder without folders"):
        read_annotations("folder", tmp_path)
    put(tmp_path / "a" / "notes.txt", "")
    with pytest.raises(InputError, match="the folders of its 1 classes contain no video"):
        read_annotations("folder", tmp_path)


def test_places_tell_segments_apart() -> None:
    sample = Sample(Path("a.mp4"), 0, start_frame=3, end_frame=9)
    assert sample.place == "a.mp4[3:9]"
    assert replace(sample, start_frame=None).place == "a.mp4[0:9]"
    assert replace(sample, end_frame=None).place == "a.mp4[3:]"
