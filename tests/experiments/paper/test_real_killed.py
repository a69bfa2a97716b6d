"""The paper's path on trees of three datasets: checked, trained for an epoch, killed, resumed, evaluated, tabled."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.experiments.paper.small_real import CLASSES
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.data import Preprocessing
from timesformer.data.probes import make_probe
from timesformer_experiments.records.log import LOG, read_records

pytestmark = [pytest.mark.slow, pytest.mark.integration]
TRAIN, TEST = 24, 8
PATIENCE_SECONDS = 300


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders as those of Kinetics-400, Something-Something V2 and Diving-48, from the videos of a probe."""
    folder = tmp_path_factory.mktemp("trees")
    made = make_probe("appearance", folder / "made", num_train=TRAIN, num_test=TEST).folder
    lists = {part: sorted((made / part).glob("*.mp4")) for part in ("train", "test")}
    found = {name: folder / name for name in CLASSES}
    for name, place in found.items():
        videos = place / ("videos" if name != "k400" else "clips")
        videos.mkdir(parents=True)
        for part, files in lists.items():
            for number, file in enumerate(files):
                shutil.copy(file, videos / f"{part}{number}{'.webm' if name == 'ssv2' else '.mp4'}")
    for part, files in lists.items():
        numbers = range(len(files))
        lines = [f"clips/{part}{i}.mp4 {i % CLASSES['k400']}" for i in numbers]
        (found["k400"] / f"{'train' if part == 'train' else 'val'}.csv").write_text("\n".join(lines) + "\n")
        of_ssv2 = [{"id": f"{part}{i}", "template": f"Doing [something] {i % CLASSES['ssv2']}"} for i in numbers]
        file = f"something-something-v2-{'train' if part == 'train' else 'validation'}.json"
        (found["ssv2"] / file).write_text(json.dumps(of_ssv2))
        dives = [
            {"vid_name": f"{part}{i}", "label": i % CLASSES["diving48"], "start_frame": 0, "end_frame": 12}
            for i in numbers
        ]
        (found["diving48"] / f"Diving48_V2_{part}.json").write_text(json.dumps(dives))
    names = {f"Doing something {i}": str(i) for i in range(CLASSES["ssv2"])}
    (found["ssv2"] / "something-something-v2-labels.json").write_text(json.dumps(names))
    vocabulary = [["Back", f"{i}Som", "NoTwis", "PIKE"] for i in range(CLASSES["diving48"])]
    (found["diving48"] / "Diving48_vocab.json").write_text(json.dumps(vocabulary))
    config = TimeSformerConfig("space", num_frames=1, image_size=32, patch_size=16, embed_dim=16, depth=1, num_heads=2)
    record = Preprocessing(num_frames=1, crop=32, short_side=32).to_dict()
    TimeSformer(config).save_pretrained(folder / "image", labels=None, preprocessing=record)
    return found


def command(trees: dict[str, Path], place: Path, *more: str) -> list[str]:
    image = next(iter(trees.values())).parent / "image"
    data = ",".join(f"{name}={folder}" for name, folder in trees.items())
    words = ["reproduce", "table5", "table7", "--profile", "paper", "--data", data, "--init-from", str(image)]
    places = ["--runs", str(place / "runs"), "--out", str(place / "out"), "--jobs", "1", "--json"]
    return [sys.executable, "-m", "tests.experiments.paper.small_real", *words, *places, *more]


def weights(place: Path) -> dict[str, bytes]:
    return {path.parents[1].name: path.read_bytes() for path in place.glob("runs/*/model/model.safetensors")}


def test_killed_and_resumed(trees: dict[str, Path], tmp_path: Path) -> None:
    checked = subprocess.run(command(trees, tmp_path, "--check"), capture_output=True, text=True, check=False)
    assert checked.returncode == 1, checked.stderr
    lines = {line["what"]: line for line in json.loads(checked.stdout)["checks"]["table7"]}
    assert {what for what, line in lines.items() if line["fine"] == "NO"} == {
        f"{title}: videos in {file}"
        for title, files in (
            ("Kinetics-400", ("train.csv", "val.csv")),
            ("Something-Something-V2", ("something-something-v2-train.json", "something-something-v2-validation.json")),
            ("Diving-48", ("Diving48_V2_train.json", "Diving48_V2_test.json")),
        )
        for file in files
    }  # a handful of videos is not the dataset; all else is there
    killed = tmp_path / "killed"
    process = subprocess.Popen(command(trees, killed), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not (there := list(killed.glob("runs/*/checkpoint/checkpoint.safetensors"))):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < give_up
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert there[0].is_file()  # in the middle of training
    assert not list(killed.glob("runs/*/record.json"))
    done = subprocess.run(command(trees, killed), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {each["artefact"]: each["rows"] for each in json.loads(done.stdout)["artefacts"]}
    assert {"measured_ssv2_top1_percent", "measured_diving48_top1_percent"} <= set(rows["table7"][0])
    assert 0 <= rows["table5"][0]["measured_k400_top1_percent"] <= 100
    records = read_records(killed / "runs" / LOG)
    assert [(record["outcome"], record["protocol"]) for record in records] == [("done", "paper")] * 3
    assert [record["metrics"]["test_videos"] for record in records] == [TEST] * 3
    assert [record["metrics"]["train_steps"] for record in records] == [TRAIN // 2] * 3
    straight = tmp_path / "straight"
    subprocess.run(command(trees, straight), capture_output=True, check=True)
    assert weights(killed) == weights(straight)
    assert len(weights(killed)) == 3
