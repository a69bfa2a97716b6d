"""Every annotation format from encoded files to a trained and evaluated model, through the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.data.conftest import write_video
from tests.data.images import write_folder
from timesformer.checkpoints import load_model
from timesformer.errors import InputError
from timesformer_experiments.cli.main import app
from timesformer_experiments.specs.run import load_specs

MODEL = "{attention: joint, num_frames: 4, image_size: 32, patch_size: 16, embed_dim: 16, depth: 1, num_heads: 2}"
RUN = f"""
name: tiny
data: %s
model: {MODEL}
recipe: {{steps: 2, batch_size: 2}}
protocol: clip
threads: 1
"""
EPIC = "narration_id,participant_id,video_id,start_frame,stop_frame,verb_class,noun_class\n"
FRAMES = "original_vido_id video_id frame_id path labels\n"


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("formats") / "video.mp4", frames=24)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("images") / "frames", frames=8, suffix=".jpg", name="frame_{:010d}")


def put(source: Path, target: Path) -> None:
    """A video, or a folder of images, in its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        target.symlink_to(source)
    else:
        copyfile(source, target)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def kinetics(folder: Path, video: Path, images: Path) -> str:
    put(video, folder / "some videos" / "a.mp4")
    put(images, folder / "b")
    write(folder / "train.csv", "some videos/a.mp4 0\nb 1\n")
    write(folder / "test.csv", "b,1\n")
    return "{train_csv: train.csv, test_csv: test.csv, num_classes: 2}"


def ssv2(folder: Path, video: Path, images: Path) -> str:
    put(video, folder / "videos" / "1.webm")
    put(images, folder / "videos" / "2")
    write(folder / "something-something-v2-labels.json", {"Opening something": "0", "Closing something": "1"})
    entries = [{"id": "1", "template": "Opening [something]"}, {"id": "2", "template": "Closing [something]"}]
    write(folder / "something-something-v2-train.json", entries)
    write(folder / "something-something-v2-validation.json", entries[1:])
    lists = "train: something-something-v2-train.json, test: something-something-v2-validation.json"
    return f"{{format: ssv2, {lists}, root: videos}}"


def ssv2_frames(folder: Path, video: Path, images: Path) -> str:
    for name in ("1", "2"):
        put(images, folder / "frames" / name)
    lines = [f"{v} {v} {i} {v}/frame_{i + 1:010d}.jpg {v - 1}\n" for v in (1, 2) for i in range(8)]
    write(folder / "train.csv", FRAMES + "".join(lines))
    write(folder / "val.csv", FRAMES + "".join(lines[8:]))
    write(folder / "classes.txt", "opening\nclosing\n")
    return "{format: ssv2_frames, train: train.csv, test: val.csv, root: frames, classes: classes.txt}"


def diving48(folder: Path, video: Path, images: Path) -> str:
    put(video, folder / "rgb" / "a_00001.mp4")
    put(images, folder / "rgb" / "a_00002")
    entries = [{"vid_name": f"a_0000{n + 1}", "label": n, "start_frame": 0, "end_frame": 8} for n in (0, 1)]
    write(folder / "Diving48_V2_train.json", entries)
    write(folder / "Diving48_V2_test.json", entries[:1])
    write(folder / "Diving48_vocab.json", [["Back", "15som"], ["Back", "25som"]])
    return "{format: diving48, train: Diving48_V2_train.json, test: Diving48_V2_test.json, root: rgb}"


def howto100m(folder: Path, video: Path, images: Path) -> str:
    put(video, folder / "videos" / "x" / "aaaaaaaaaaa.mkv")
    put(images, folder / "videos" / "bbbbbbbbbbb")
    header = "video_id,category_1,category_2,rank,task_id\n"
    write(folder / "train.csv", header + "aaaaaaaaaaa,Cars,,1,700\nbbbbbbbbbbb,Food,,2,80\n")
    write(folder / "test.csv", header + "aaaaaaaaaaa,Cars,,1,700\n")
    return "{format: howto100m, train: train.csv, test: test.csv, root: videos}"


def epic_kitchens(folder: Path, video: Path, images: Path) -> str:
    put(video, folder / "data" / "P01" / "videos" / "P01_01.MP4")
    put(images, folder / "data" / "P02" / "rgb_frames" / "P02_101")
    rows = "P01_01_0,P01,P01_01,1,12,0,2\nP01_01_1,P01,P01_01,20,48,3,0\nP02_101_0,P02,P02_101,2,8,3,2\n"
    write(folder / "EPIC_100_train.csv", EPIC + rows)
    write(folder / "EPIC_100_validation.csv", EPIC + rows)
    for head, names in (("verb", "abcd"), ("noun", "xyz")):
        write(folder / f"EPIC_100_{head}_classes.csv", "id,key\n" + "".join(f"{i},{n}\n" for i, n in enumerate(names)))
    return "{format: epic_kitchens, train: EPIC_100_train.csv, test: EPIC_100_validation.csv, root: data}"


def moments(folder: Path, video: Path, images: Path) -> str:
    put(video, folder / "training" / "eating" / "a.mp4")
    put(images, folder / "training" / "running" / "b")
    put(video, folder / "validation" / "running" / "c.mp4")
    write(folder / "moments_categories.txt", "eating,0\nrunning,1\n")
    write(folder / "trainingSet.csv", "eating/a.mp4,eating,3,0\nrunning/b.mp4,running,3,0\n")
    write(folder / "validationSet.csv", "running/c.mp4,running,3,0\n")
    return "{format: moments, train: trainingSet.csv, test: validationSet.csv}"


def class_folders(folder: Path, video: Path, images: Path) -> str:
    put(video, folder / "train" / "eating" / "a.mp4")
    put(images, folder / "train" / "running" / "b")
    put(video, folder / "val" / "running" / "c.mp4")
    return "{format: folder, train: train, test: val}"


FORMATS: dict[str, tuple[Callable[[Path, Path, Path], str], Any, int]] = {
    "kinetics": (kinetics, ["class 0", "class 1"], 1),
    "ssv2": (ssv2, ["Opening something", "Closing something"], 1),
    "ssv2_frames": (ssv2_frames, ["opening", "closing"], 1),
    "diving48": (diving48, ["Back 15som", "Back 25som"], 1),
    "howto100m": (howto100m, ["80", "700"], 1),
    "epic_kitchens": (epic_kitchens, {"verb": list("abcd"), "noun": list("xyz")}, 3),
    "moments": (moments, ["eating", "running"], 1),
    "folder": (class_folders, ["eating", "running"], 1),
}


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.mark.parametrize("name", list(FORMATS))
def test_train_and_evaluate(name: str, video: Path, images: Path, tmp_path: Path) -> None:
    make, labels, test_videos = FORMATS[name]
    folder = tmp_path / "data"
    write(tmp_path / "data" / "run.yaml", RUN % make(folder, video, images))
    file, places = str(folder / "run.yaml"), ["--runs", str(tmp_path / "runs"), "--data-dir", str(tmp_path / "cache")]
    done = run("train", file, *places, "--json")
    assert done.exit_code == 0, done.output
    (record,) = json.loads(done.stdout)["records"]
    assert record["metrics"]["test_videos"] == test_videos
    assert record["metrics"]["test_videos_unreadable"] == record["metrics"]["train_videos_unreadable"] == 0
    assert record["dataset"]["train"]["num_unreadable"] == 0
    assert len(record["dataset"]["test"]["fingerprint"]) == 64
    assert str(tmp_path) not in json.dumps(record)
    loaded = load_model(tmp_path / "runs" / record["hash"] / "model")
    assert loaded.labels == labels
    again = run("evaluate", file, *places, "--json")
    assert again.exit_code == 0, again.output
    (found,) = json.loads(again.stdout)["evaluations"]
    for metric in [key for key in record["metrics"] if key.endswith("top1_percent") and not key.startswith("train")]:
        assert found[metric] == record["metrics"][metric]
    if name == "epic_kitchens":
        assert loaded.model.config.heads == (4, 3)
        assert found["action_top1_percent"] == found["top1_percent"]
        assert {"verb_top1_percent", "noun_top1_percent"} < set(found)
        assert record["spec"]["model"]["num_classes"] == [4, 3]


@pytest.mark.parametrize("name", list(FORMATS))
def test_the_hash_depends_on_no_path(name: str, video: Path, images: Path, tmp_path: Path) -> None:
    hashes = []
    for place in ("a", "b/c"):
        folder = tmp_path / place
        write(folder / "run.yaml", RUN % FORMATS[name][0](folder, video, images))
        (spec,) = load_specs(folder / "run.yaml")
        hashes.append(spec.hash())
        assert str(tmp_path) not in json.dumps(spec.definition())
    assert hashes[0] == hashes[1]


def test_the_hash_depends_on_what_was_read(video: Path, images: Path, tmp_path: Path) -> None:
    def hash_of(data: str) -> str:
        write(tmp_path / "run.yaml", RUN % data)
        return load_specs(tmp_path / "run.yaml")[0].hash()

    data = ssv2(tmp_path, video, images)
    before = hash_of(data)
    assert hash_of(data[:-1] + ", num_classes: 2}") == before  # it says what is known
    assert hash_of(data[:-1] + ", frame_fps: 12}") != before
    write(tmp_path / "something-something-v2-labels.json", {"Opening something": "1", "Closing something": "0"})
    assert hash_of(data) != before
    csv = kinetics(tmp_path, video, images)
    plain = hash_of(csv)
    write(tmp_path / "names.txt", "eating\nrunning\n")
    assert plain != hash_of(csv[:-1] + ", classes: names.txt}")
    assert hash_of(csv.replace(", num_classes: 2", ", classes: names.txt")) == hash_of(
        csv[:-1] + ", classes: names.txt}"
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{train: train.csv, test: test.csv}", "num_classes: needed, a file in the format kinetics names no classes"),
        ("{train: train.csv, test: test.csv, num_classes: 3, labels: [x, y]}", "labels: expected 3 names"),
        ("{train: train.csv, test: test.csv, labels: [x, y], classes: c.txt}", "labels, classes: expected one of them"),
        ("{train: train.csv, test: test.csv, num_classes: 0}", "num_classes"),
        ("{train: train.csv, test: test.csv, num_classes: 2, frame_fps: 0}", "frame_fps: .*greater than 0"),
        (
            "{train: train.csv, test: test.csv, num_classes: 2, format: ucf}",
            "format: expected one of diving48, epic_kitchens",
        ),
        ("{train: train.csv, num_classes: 2}", "test_csv: Field required"),
        ("{train: train.csv, test: test.csv, classes: none.txt}", r"none\.txt: no such annotation file"),
        ("{format: folder, train: nowhere, test: nowhere}", "nowhere: no such folder of classes"),
        ("{format: epic_kitchens, train: e.csv, test: e.csv}", "num_classes: needed, a file in the format epic_kitch"),
    ],
)
def test_bad_data(data: str, said: str, tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "a.mp4 0\nb.mp4 1\n")
    write(tmp_path / "e.csv", EPIC + "P01_01_0,P01,P01_01,1,12,0,2\n")
    write(tmp_path / "run.yaml", RUN % data)
    with pytest.raises(InputError, match=said):
        load_specs(tmp_path / "run.yaml")


def test_heads_without_names_and_a_single_number_in_a_list(video: Path, images: Path, tmp_path: Path) -> None:
    write(tmp_path / "e.csv", EPIC + "P01_01_0,P01,P01_01,1,12,0,2\n")
    put(video, tmp_path / "P01" / "videos" / "P01_01.MP4")
    write(tmp_path / "run.yaml", RUN % "{format: epic_kitchens, train: e.csv, test: e.csv, num_classes: [4, 3]}")
    places = ["--runs", str(tmp_path / "runs"), "--data-dir", str(tmp_path / "cache")]
    done = run("train", str(tmp_path / "run.yaml"), *places, "--json")
    assert done.exit_code == 0, done.output
    (record,) = json.loads(done.stdout)["records"]
    labels = load_model(tmp_path / "runs" / record["hash"] / "model").labels
    assert isinstance(labels, dict)
    assert {head: len(names) for head, names in labels.items()} == {"verb": 4, "noun": 3}
    named = "labels: {verb: [a, b, c, d], noun: [x, y, z]}"
    write(tmp_path / "run.yaml", RUN % f"{{format: epic_kitchens, train: e.csv, test: e.csv, {named}}}")
    assert load_specs(tmp_path / "run.yaml")[0].model.num_classes == (4, 3)
    for head, names in (("verb", "a\nb\n"), ("noun", "x\ny\nz\n")):
        write(tmp_path / f"{head}s.txt", names)
    files = "classes: {verb: verbs.txt, noun: nouns.txt}"
    write(tmp_path / "run.yaml", RUN % f"{{format: epic_kitchens, train: e.csv, test: e.csv, {files}}}")
    assert load_specs(tmp_path / "run.yaml")[0].model.num_classes == (2, 3)
    write(tmp_path / "run.yaml", RUN % kinetics(tmp_path, video, images).replace("num_classes: 2", "num_classes: [2]"))
    assert load_specs(tmp_path / "run.yaml")[0].model.num_classes == 2


@pytest.mark.parametrize("several", [False, True])
def test_a_malformed_file_leaves_no_run_behind(several: bool, tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "a.mp4 0\nb.mp4 cat\n")
    text = RUN % "{train: train.csv, test: train.csv, num_classes: 2}"
    if several:
        runs = "".join(f"  -\n    name: {name}\n    seed: {seed}\n" for seed, name in enumerate("ab"))
        text = "defaults:\n" + "".join(f"  {line}\n" for line in text.strip().splitlines()[1:]) + f"runs:\n{runs}"
    write(tmp_path / "run.yaml", text)
    done = run("train", str(tmp_path / "run.yaml"), "--runs", str(tmp_path / "runs"))
    assert done.exit_code == 2, done.output
    assert "train.csv:2: expected `path label`" in done.stderr
    assert not (tmp_path / "runs").exists()
