"""Runs from description to record: finished, resumed, failed, side by side."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.experiments.spec_fakes import SIZES, fields, image, small
from timesformer.checkpoints import load_model
from timesformer.errors import InputError
from timesformer.evaluation.evaluate import evaluate
from timesformer.training.loop import TrainingDiverged
from timesformer_experiments.cli.train import left_out
from timesformer_experiments.jobs.plan import RunsFailed, run_all, run_one
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.records.log import read_records
from timesformer_experiments.run.inputs import datasets


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Probes and decoded frames, shared by the tests."""
    return tmp_path_factory.mktemp("data")


def test_one_run_leaves_everything(data, tmp_path):
    spec = small(recipe={"steps": 6, "batch_size": 8, "accumulate": 2, "workers": 1})
    record = run_one(spec, tmp_path, data_dir=data, progress=False)
    folder = tmp_path / spec.hash()
    names = {path.name for path in folder.iterdir()}
    assert names == {".lock", "spec.json", "model", "scores.parquet", "curve.parquet", "record.json"}
    assert read_records(tmp_path / "records.jsonl") == [record]
    metrics = record["metrics"]
    assert metrics["test_videos"] == 8
    assert metrics["train_steps"] == 6
    assert 0 <= metrics["top1_low_percent"] <= metrics["top1_percent"] <= metrics["top1_high_percent"] <= 100
    assert record["dataset"]["train"]["num_videos"] == 16
    assert record["dataset"]["test"]["num_unreadable"] == 0
    assert record["environment"]["threads"] == 1
    for place in (data, tmp_path, Path.home()):
        assert f"{place}/" not in json.dumps(record)
    curve = pd.read_parquet(folder / "curve.parquet")
    assert list(curve.columns) == ["step", "loss", "accuracy", "learning_rate"]
    assert len(curve) == 6
    scores = pd.read_parquet(folder / "scores.parquet")
    assert scores.path.tolist() == [f"test/{i:06d}.mp4" for i in range(8)]
    assert 100 * (scores.label == scores.prediction).mean() == metrics["top1_percent"]
    # The stored model gives these scores.
    loaded = load_model(folder / "model")
    assert loaded.labels[:2] == ["left", "right"]
    assert loaded.preprocessing == spec.preprocessing.to_dict()
    assert loaded.provenance["hash"] == spec.hash()
    again = evaluate(loaded.model, datasets(spec, data)[1], "clip")
    assert again.per_video.prediction.tolist() == scores.prediction.tolist()


def test_a_finished_run_is_not_repeated(data, tmp_path):
    spec = small()
    record = run_one(spec, tmp_path, data_dir=data, progress=False)
    assert run_one(spec, tmp_path, data_dir=data, progress=False) == record
    assert run_all([spec], tmp_path, data_dir=data) == [record]
    log = tmp_path / "records.jsonl"
    assert len(read_records(log)) == 1
    log.unlink()  # as if a crash had come between the record and the log
    assert RunFolder(tmp_path, spec.hash()).record() == record
    assert read_records(log) == [record]


def own_scheme():
    """A run with a scheme from a file, which every process that trains it must load."""
    source = Path(__file__).parents[1] / "own_scheme.py"
    return small(name="own", scheme_file=str(source), model={"attention": "checkers", "num_frames": 2, **SIZES})


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.integration)])
def test_runs_in_the_order_of_their_dependencies(data, tmp_path, jobs, capfd):
    specs = [small(name="video", init_from="image"), image(), own_scheme()]
    records = run_all(specs, tmp_path, jobs, data_dir=data)
    assert [record["name"] for record in records] == ["video", "image", "own"]
    assert records[2]["spec"]["model"]["attention"] == "checkers"
    assert len(records[2]["spec"]["scheme_file_sha256"]) == 64
    assert records[0]["init_from"] == {"name": "image", "hash": records[1]["hash"]}
    assert {record["environment"]["threads"] for record in records} == {1}
    provenance = load_model(tmp_path / records[0]["hash"] / "model").provenance["started_from"]
    assert provenance["weights"]["inflated"] > 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "[3/3] " in err
    assert run_all(specs, tmp_path, jobs, data_dir=data) == records
    assert capfd.readouterr() == ("", "")


def test_a_run_makes_what_it_starts_from(data, tmp_path):
    spec = small(init_from=image())
    run_one(spec, tmp_path, data_dir=data, progress=False)
    assert [record["name"] for record in read_records(tmp_path / "records.jsonl")] == ["image", "small"]
    again = small(name="from a folder", init_from=str(tmp_path / image().hash() / "model"))
    record = run_one(again, tmp_path, data_dir=data, progress=False)
    assert record["init_from"] is None
    assert record["spec"]["init_from"].startswith("sha256:")
    first, second = (load_file(tmp_path / s.hash() / "model" / "model.safetensors") for s in (spec, again))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


DIVERGES = {"steps": 30, "batch_size": 8, "lr": 1e30, "optimiser": "sgd", "schedule": "constant"}


def test_a_failed_run_is_recorded_and_the_others_go_on(data, tmp_path, capfd):
    specs = failing()
    assert failures_of(specs, tmp_path, 1, data) == set()
    assert "Traceback" in (tmp_path / specs[0].hash() / "error.txt").read_text()
    assert "diverges: failed" in capfd.readouterr().err
    with pytest.raises(TrainingDiverged):  # a failure is not a result: it is tried again
        run_one(specs[0], tmp_path, data_dir=data, progress=False)


@pytest.mark.integration
def test_side_by_side_a_failed_run_or_a_worker_that_dies_is_recorded_too(data, tmp_path, capfd):
    scheme = tmp_path / "scheme.py"
    scheme.write_text(
        "import multiprocessing, os\n"
        "if multiprocessing.parent_process() is not None:\n"
        "    os.kill(os.getpid(), 9)\n"
        "SCHEMES = []\n"
    )
    dies = small(name="dies", scheme_file=str(scheme))
    assert failures_of([dies, *failing()], tmp_path / "runs", 2, data) == {"dies"}
    assert "diverges: failed" in capfd.readouterr().err
    records = {record["name"]: record for record in read_records(tmp_path / "runs" / "records.jsonl")}
    assert records["dies"]["reason"] == "its process ended by signal SIGKILL"


def failing():
    """A run that diverges, one that starts from it, and a good one."""
    return [
        image(name="diverges", recipe=DIVERGES),
        small(name="waits for it", init_from="diverges"),
        small(name="good", seed=1),
    ]


def failures_of(specs, folder, jobs, data):
    """Carry out runs with those of `failing` among them and check what is told and recorded of these; the others."""
    with pytest.raises(RunsFailed, match=f"of {len(specs)} runs failed") as caught:
        run_all(specs, folder, jobs, data_dir=data)
    failures = caught.value.failures
    assert "TrainingDiverged: the loss of step" in failures["diverges"]
    assert failures["waits for it"] == "not started: the run that it starts from, 'diverges', failed"
    assert [record["name"] for record in caught.value.records] == ["good"]
    records = {record["name"]: record for record in read_records(folder / "records.jsonl")}
    assert {name: record["outcome"] for name, record in records.items()} == {
        spec.name: "done" if spec.name == "good" else "failed" for spec in specs
    }
    assert "TrainingDiverged" in records["diverges"]["reason"]
    return set(failures) - {"diverges", "waits for it"}


LONG = {"steps": 150, "batch_size": 8, "checkpoint_every": 10}
SCRIPT = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits it ignored
from timesformer_experiments.jobs.plan import run_all
from timesformer_experiments.specs.run import RunSpec
if __name__ == "__main__":
    run_all([RunSpec.parse(run) for run in json.loads(sys.argv[1])], sys.argv[2], 2, data_dir=sys.argv[3])
"""


def wait_for(condition, seconds=300.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """Two runs, the folder of their undisturbed course, and their records."""
    specs = [small(name=f"run {seed}", seed=seed, recipe=LONG) for seed in (0, 1)]
    folder = tmp_path_factory.mktemp("undisturbed")
    return specs, folder, run_all(specs, folder, data_dir=data, progress=False)


@pytest.mark.integration
@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_interrupted_runs_carry_on(data, undisturbed, tmp_path, how):
    specs, folder, expected = undisturbed
    runs = [fields(name=f"run {seed}", seed=seed, recipe=LONG) for seed in (0, 1)]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), json.dumps(runs), str(tmp_path / "runs"), str(data)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        checkpoints = [tmp_path / "runs" / spec.hash() / "checkpoint" / "checkpoint.safetensors" for spec in specs]
        wait_for(lambda: any(started(path) for path in checkpoints) or process.poll() is not None)
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        process.send_signal(how)
        assert process.wait(300) != 0
        # Its workers end too: at once, or at the next report where their parent could not tell them.
        wait_for(lambda: not group_alive(process.pid))
    assert not any((tmp_path / "runs" / spec.hash() / "record.json").exists() for spec in specs)
    records = run_all(specs, tmp_path / "runs", data_dir=data, progress=False)
    for spec, record, other in zip(specs, records, expected, strict=True):
        assert record["metrics"]["train_loss"] == other["metrics"]["train_loss"]
        first, second = (
            load_file(place / spec.hash() / "model" / "model.safetensors") for place in (tmp_path / "runs", folder)
        )
        assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert {r["outcome"] for r in read_records(tmp_path / "runs" / "records.jsonl")} == {"done"}


def started(checkpoint):
    """Whether a run has come to its second checkpoint; the first one is of step 0."""
    if not checkpoint.exists():
        return False
    with safe_open(checkpoint, framework="pt") as file:
        return json.loads(file.metadata()["state"])["step"] > 0


def group_alive(group: int) -> bool:
    """Whether a process of the group is running (and not just waiting to be reaped)."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


def test_two_processes_do_not_share_a_run(data, tmp_path):
    import fcntl

    spec = small()
    folder = tmp_path / spec.hash()
    folder.mkdir()
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="run 'small': another process is busy with it"):
            run_one(spec, tmp_path, data_dir=data, progress=False)


def test_an_unwritable_folder_is_bad_input(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        run_one(small(), tmp_path / "file" / "runs", data_dir=data, progress=False)
    with pytest.raises(InputError, match="file"):
        run_all([small()], tmp_path / "file" / "runs", data_dir=data, progress=False)
    with pytest.raises(InputError, match="jobs: expected 0 or more, got -1"):
        run_all([small()], tmp_path, -1)


def test_videos_of_ones_own_and_unreadable_ones(data, tmp_path):
    probe = datasets(small(), data)[0].samples[0].path.parents[1]
    own = tmp_path / "own"
    own.mkdir()
    (own / "videos").mkdir()
    lines = []
    for number in range(4):
        (own / "videos" / f"{number}.mp4").write_bytes((probe / "train" / f"{number:06d}.mp4").read_bytes())
        lines.append(f"videos/{number}.mp4 {number % 2}\n")
    (own / "list.csv").write_text("".join(lines))
    (own / "videos" / "2.mp4").write_bytes(b"no video")
    listed = {"train_csv": str(own / "list.csv"), "test_csv": str(own / "list.csv"), "num_classes": 2}
    with pytest.raises(InputError, match=r"2\.mp4"):
        run_one(small(data=listed), tmp_path / "runs", data_dir=data, progress=False)
    (failed,) = read_records(tmp_path / "runs" / "records.jsonl")
    assert failed["outcome"] == "failed"
    spec = small(data=listed | {"allow_unreadable": True, "labels": ["yes", "no"]})
    record = run_one(spec, tmp_path / "runs", data_dir=data, progress=False)
    assert record["metrics"]["test_videos"] == 3
    assert record["metrics"]["test_videos_unreadable"] == record["metrics"]["train_videos_unreadable"] == 1
    assert [item["path"] for item in record["dataset"]["test"]["unreadable"]] == ["videos/2.mp4"]
    said = left_out(record)
    assert [said[0], said[2]] == [
        f"{record['name']}: 1 of 4 {part} videos could not be read and were left out:" for part in ("train", "test")
    ]
    assert said[1] == said[3] == f"  videos/2.mp4: {record['dataset']['test']['unreadable'][0]['reason']}"
    assert str(own) not in json.dumps(record)
    assert load_model(tmp_path / "runs" / spec.hash() / "model").labels == ["yes", "no"]


def test_progress_of_one_run(data, tmp_path):
    steps = []
    run_one(small(), tmp_path, data_dir=data, progress=lambda done, total, loss: steps.append((done, total)))
    assert steps == [(4, 4)]
    assert os.listdir(tmp_path)
