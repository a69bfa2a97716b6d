"""Sweeps carried out: every cell once, every failure with its reason, and the folder tells how far it is."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.experiments.spec_fakes import SIZES, fields
from tests.experiments.sweep_fakes import BASE, COST, changed, places, run, table, write
from timesformer.errors import InputError
from timesformer_experiments.cost import measures
from timesformer_experiments.jobs import attempt as jobs
from timesformer_experiments.jobs.workers import InTurn, Places
from timesformer_experiments.records.log import RESERVE, latest, read_records
from timesformer_experiments.specs.cost import CostSpec
from timesformer_experiments.sweep import carry_out as sweep_run
from timesformer_experiments.sweep.carry_out import carry_out_sweep, open_sweep


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Probes and decoded frames, shared by the tests."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def costs(data, tmp_path_factory):
    """The folder of a finished sweep of costs, as the command line makes it, and what that said."""
    folder = tmp_path_factory.mktemp("costs")
    done = run("sweep", write(folder, COST), *places(folder / "out", data), "--json", "--jobs", "1")
    assert done.exit_code == 0, done.output
    return folder, done


@pytest.mark.integration
def test_costs_from_file_to_records(costs):
    folder, done = costs
    shown = json.loads(done.stdout)
    records = read_records(folder / "out" / "records.jsonl")
    assert shown["records"] == records
    assert (shown["cells"], shown["failed"]) == (4, 0)
    assert re.search(r"\[4/4\] cost attention=joint num_frames=4: .* GMACs, \d+ s", done.stderr)
    for record in records:
        assert (record["kind"], record["sweep"], record["seed"]) == ("cost", "cost", None)
        config = CostSpec.parse({"name": "x", "model": record["spec"]["model"]}).model
        assert record["cell"] == {"model.attention": config.attention, "model.num_frames": config.num_frames}
        assert record["metrics"]["params"] > 0
        assert record["metrics"]["tflops_total"] == record["metrics"]["macs_per_view"] * 3 / 1e12
    assert (folder / "out" / "sweep.yaml").read_bytes() == (folder / "sweep.yaml").read_bytes()
    assert (folder / "out" / RESERVE).stat().st_size == 2**20


@pytest.mark.integration
def test_a_finished_sweep_is_not_run_again(costs, data):
    folder, _ = costs
    before = (folder / "out" / "records.jsonl").read_bytes()
    assert run("sweep", folder / "sweep.yaml", *places(folder / "out", data)).exit_code == 0
    assert (folder / "out" / "records.jsonl").read_bytes() == before


@pytest.mark.integration
def test_more_to_measure_completes_the_records(costs, data, tmp_path):
    out = shutil.copytree(costs[0] / "out", tmp_path / "out")
    records = read_records(out / "records.jsonl")
    more = write(tmp_path, changed(COST, measure=["params", "macs", "memory", "latency", "throughput"]))
    done = run("sweep", more, *places(out, data), "--json", "--jobs", "1")
    assert done.exit_code == 0, done.output
    completed = latest(read_records(out / "records.jsonl"))
    assert json.loads(done.stdout)["records"] == list(completed.values())
    assert len(completed) == 4
    for before, after in zip(records, completed.values(), strict=True):
        assert before["metrics"].items() <= after["metrics"].items()
        assert after["metrics"]["train_peak_memory_bytes"] > after["metrics"]["inference_peak_memory_bytes"] > 0
        assert after["metrics"]["memory_device"] == "cuda"
        assert after["metrics"]["latency_seconds"] > 0 < after["metrics"]["clips_per_second"]


def test_a_dry_run_shows_what_there_is_to_do_and_does_nothing(data, tmp_path):
    file = write(tmp_path, changed(base=BASE | {"init_from": fields(**IMAGE)}))
    done = run("sweep", file, *places(tmp_path / "out", data), "--dry-run", "--json", "--jobs", "2")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["cells"], found["runs"], found["left"], found["done"]) == (4, 5, 5, 0)
    assert found["train_macs"] == sum(each["train_macs"] for each in found["each"]) > 0
    assert found["largest_memory_bytes"] == max(each["memory_bytes"] for each in found["each"]) > 0
    assert found["seconds"] == sum(each["seconds"] for each in found["each"]) / 2
    assert "matrix product measured now" in found["seconds_how"]
    assert not (tmp_path / "out").exists()
    text = run("sweep", file, *places(tmp_path / "out", data), "--dry-run")
    assert "4 cells, 5 runs; 0 done, 0 failed, 5 left" in text.stdout
    assert "GMACs to train" in text.stdout
    assert not re.search(r" 0\.0+\b", text.stdout)  # a tiny model's memory and MACs keep their first digits
    many = write(tmp_path, changed(COST, axes={"recipe.batch_size": list(range(1, 42))}), "many.yaml")
    text = run("sweep", many, *places(tmp_path / "many", data), "--dry-run")
    assert "and 1 more" in text.stdout
    assert "1.5 s per cell, assumed" in text.stdout


IMAGE = {
    "name": "image",
    "data": {"probe": "appearance", "num_train": 16, "num_test": 8, "stills": True},
    "model": {"attention": "space", "num_frames": 1, **SIZES},
}

FAULT = """
import errno, faulthandler, multiprocessing, os, signal
from pathlib import Path
SCHEMES = []
if multiprocessing.parent_process() is not None and not Path({marker!r}).exists():
    import av
    import timesformer_experiments.run.train as run
    fit, opened = run.fit, av.open
    def broken(*args, **kwargs):
        run.fit, av.open = fit, opened  # the next job of this worker is none of ours
        {fault}
    {patched} = broken
"""
FAULTS = {
    "memory": ("run.fit", "raise MemoryError('no room for a tensor')", "out_of_memory", "MemoryError: no room"),
    "disk": ("run.fit", "raise OSError(errno.ENOSPC, 'No space left on device')", "disk_full", "No space left"),
    "kill": ("run.fit", "os.kill(os.getpid(), signal.SIGKILL)", "killed", "its process ended by signal SIGKILL"),
    "decode": ("av.open", "faulthandler._sigsegv()", "decode", r"signal SIGSEGV in .*\.py, line \d+ in broken"),
}


SCHEME_FILES = [f"{name}.py" for name in (*FAULTS, "good")]


@pytest.fixture(scope="module")
def faults(data, tmp_path_factory):
    """The folder of a sweep in which each run but the last fails in a way of its own, and what the command said.

    A file called `repaired` mends them all.
    """
    folder = tmp_path_factory.mktemp("faults")
    for name, (patched, fault, _, _) in FAULTS.items():
        text = FAULT.format(marker=str(folder / "repaired"), patched=patched, fault=fault)
        (folder / f"{name}.py").write_text(f"# {name}\n{text}")
    (folder / "good.py").write_text("SCHEMES = []\n")
    base = BASE | {"data": BASE["data"] | {"cache": False}, "model": {"attention": "space", "num_frames": 2, **SIZES}}
    file = write(folder, changed(name="faults", base=base, axes={"scheme_file": SCHEME_FILES}))
    return folder, run("sweep", file, *places(folder / "out", data), "--jobs", "1")


@pytest.mark.integration
def test_every_failure_is_an_outcome_and_the_others_go_on(faults):
    folder, done = faults
    assert done.exit_code == 1, done.output
    assert "4 failed; repeat them with --retry failed" in done.stderr
    records = {record["cell"]["scheme_file"]: record for record in read_records(folder / "out" / "records.jsonl")}
    outcomes = {name: record["outcome"] for name, record in records.items()}
    assert outcomes == dict.fromkeys(SCHEME_FILES, "failed") | {"good.py": "done"}
    for name, (_, _, kind, reason) in FAULTS.items():
        record = records[f"{name}.py"]
        assert record["reason_kind"] == kind, record["reason"]
        assert re.search(reason, record["reason"])


@pytest.mark.integration
def test_the_status_tells_why_runs_failed(faults):
    out = faults[0] / "out"
    found = json.loads(run("status", out, "--json").stdout)
    assert found["counts"] == {"done": 1, "failed": 4, "running": 0, "interrupted": 0, "waiting": 0}
    assert {each["reason_kind"] for each in found["runs"] if each["state"] == "failed"} == {
        kind for _, _, kind, _ in FAULTS.values()
    }
    assert "disk_full" in run("status", out).stdout


@pytest.mark.integration
def test_failures_stay_without_retry_and_are_run_again_with_it(faults, data, tmp_path):
    folder = faults[0]
    out = shutil.copytree(folder / "out", tmp_path / "out")
    size = (out / "records.jsonl").stat().st_size
    assert run("sweep", folder / "sweep.yaml", *places(out, data)).exit_code == 1
    assert (out / "records.jsonl").stat().st_size == size
    (folder / "repaired").touch()
    done = run("sweep", folder / "sweep.yaml", *places(out, data), "--retry", "failed", "--jobs", "1")
    assert done.exit_code == 0, done.output
    assert "5 of 5 cells done" in done.stdout
    assert len(table(latest(read_records(out / "records.jsonl")).values())) == 5


def test_what_starts_from_a_failed_run_is_not_started_until_that_is_there(data, tmp_path, monkeypatch):
    diverging = fields(**IMAGE | {"recipe": {"steps": 30, "batch_size": 8, "lr": 1e30, "optimiser": "sgd"}})
    file = write(tmp_path, changed(base=BASE | {"init_from": diverging, "threads": 1}, axes={"seed": [0]}))
    opened = open_sweep(file, tmp_path / "out", data)
    result = in_turn(opened)
    assert "loss of step" in result.failures["image"]
    assert result.failures["tiny seed=0"] == "not started: the run that it starts from, 'image', failed"
    kinds = [record["reason_kind"] for record in read_records(tmp_path / "out" / "records.jsonl")]
    assert kinds == ["diverged", "not_started"]
    # The failed run stays failed; what could not start is looked at again.
    assert in_turn(open_sweep(file, tmp_path / "out", data)).failures == result.failures

    def repaired(spec, folder, *rest):
        return {"metrics": {"top1_percent": 50.0}, "dataset": {}}

    monkeypatch.setattr(jobs, "train_and_evaluate", repaired)
    assert in_turn(open_sweep(file, tmp_path / "out", data, retry="failed")).failures == {}


def in_turn(opened):
    """Carries out a sweep in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sweep_run,
            "_pool",
            lambda opened, jobs, gpus, ray, on_step, say: InTurn(
                Places(opened.plan.runs_dir, opened.plan.data_dir, 1, opened.plan.since), on_step
            ),
        )
        return carry_out_sweep(opened, progress=False)


def test_accuracy_and_cost_stand_in_one_record(data, tmp_path):
    measure = ["accuracy", "macs", "memory", "params"]
    sweep = changed(axes={"model.attention": ["divided"], "seed": [0]}, measure=measure)
    (record,) = in_turn(open_sweep(write(tmp_path, sweep), tmp_path / "out", data)).cells
    metrics = record["metrics"]
    assert record["kind"] == "accuracy"
    assert metrics["top1_percent"] >= 0
    assert metrics["views"] == 1
    assert metrics["tflops_total"] == metrics["macs_per_view"] / 1e12
    assert (metrics["memory_device"], metrics["memory_batch"]) == ("cuda", 8)
    # A run that was made outside of the sweep is filed under its cell, not repeated.
    folder = tmp_path / "out" / record["hash"]
    plain = {**record, "cell": None, "metrics": {"top1_percent": metrics["top1_percent"]}}
    (folder / "record.json").write_text(json.dumps(plain))
    before = (folder / "model" / "model.safetensors").stat().st_mtime_ns
    (again,) = in_turn(open_sweep(write(tmp_path, sweep), tmp_path / "out", data)).cells
    assert again["cell"] == record["cell"]
    assert again["metrics"]["macs_per_view"] == metrics["macs_per_view"]
    assert (folder / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_trackers(data, tmp_path):
    # wandb is known to accelerate and not installed here.
    sweep = changed(axes={"tracker": ["tensorboard", "wandb"], "seed": [0, 1]}, zip=[["tracker", "seed"]])
    result = in_turn(open_sweep(write(tmp_path, sweep), tmp_path / "out", data))
    logged, missing = result.cells
    assert list((tmp_path / "out" / logged["hash"] / "tracker").rglob("events.out.*"))
    assert missing["reason"].startswith("tracker: 'wandb' is not installed (`pip install wandb`)")
    assert missing["reason_kind"] == "bad_input"


def test_what_is_measured_of_a_cost(tmp_path):
    scheme = Path(__file__).parents[1] / "own_scheme.py"
    spec = CostSpec.parse(
        {
            "name": "x",
            "scheme_file": scheme,
            "model": {"attention": "checkers", "num_frames": 2, **SIZES},
            "recipe": {"batch_size": 4, "accumulate": 2, "precision": "bf16"},
        }
    )
    found = measures.measured(spec, tuple(measures.MEASURES))
    assert found["latency_seconds"] > 0 < found["clips_per_second"]
    assert found["speed_batch"] == found["memory_batch"] == 2
    assert found["train_peak_memory_bytes"] == sum(found[f"train_{part}_bytes"] for part in PARTS)
    assert measures.measured(spec, ["accuracy"]) == {}


PARTS = ("params", "gradients", "optimiser", "activations", "attention")


def test_where_the_views_depend_on_the_video_there_is_no_total(tmp_path):
    spec = CostSpec.parse({"name": "x", "model": {"attention": "space", **SIZES}, "protocol": "coverx1"})
    assert "tflops_total" not in measures.measured(spec, ["macs"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jobs", "-1"], "jobs"),
        (["--retry", "all"], "--retry all: expected failed or none"),
        (["--jobs", "2"], "latency and throughput cannot be measured with several runs in parallel"),
        (["--ray", "nowhere:1"], "latency and throughput cannot be measured"),
    ],
)
def test_bad_usage(data, tmp_path, words, message):
    file = write(tmp_path, changed(COST, measure=["latency"]))
    done = run("sweep", file, *places(tmp_path / "out", data), *words)
    assert done.exit_code == 2
    assert message in done.output + done.stderr
    assert not (tmp_path / "out" / "records.jsonl").exists()


def test_a_folder_holds_one_sweep(data, tmp_path):
    file = write(tmp_path, changed(COST, axes={}))
    in_turn(open_sweep(file, tmp_path / "out", data))
    other = write(tmp_path, changed(COST, name="other"), "other.yaml")
    with pytest.raises(InputError, match="expected a folder of the sweep 'other', but it holds 'cost'"):
        open_sweep(other, tmp_path / "out", data)
    with pytest.raises(InputError, match="--jobs -1"):
        carry_out_sweep(open_sweep(file, tmp_path / "out", data), jobs=-1)
    # It may grow.
    assert len(in_turn(open_sweep(write(tmp_path, COST), tmp_path / "out", data)).cells) == 4
