"""Sweeps carried out: every cell once, every failure with its reason, and the folder tells how far it is."""

import fcntl
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import timesformer_experiments.records.folder
from tests.experiments.spec_fakes import SIZES, fields, image
from tests.experiments.sweep_fakes import BASE, COST, changed, finish, start, table, write
from timesformer.errors import InputError
from timesformer_experiments.cli.main import app
from timesformer_experiments.cost import measures
from timesformer_experiments.jobs import attempt as jobs
from timesformer_experiments.jobs.attempt import attempt
from timesformer_experiments.jobs.plan import Plan, carry_out, prepare_probes
from timesformer_experiments.jobs.watching import Watch
from timesformer_experiments.jobs.workers import Event, InTurn, Places
from timesformer_experiments.records.folder import Busy, RunFolder
from timesformer_experiments.records.log import RESERVE, append_record, latest, read_records
from timesformer_experiments.run.failures import Failed
from timesformer_experiments.specs.cost import CostSpec
from timesformer_experiments.specs.job import Job
from timesformer_experiments.specs.run import RunSpec
from timesformer_experiments.specs.sweep import parse_sweep
from timesformer_experiments.sweep import carry_out as sweep_run
from timesformer_experiments.sweep.carry_out import carry_out_sweep, open_sweep
from timesformer_experiments.sweep.status import sweep_status


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Probes and decoded frames, shared by the tests."""
    return tmp_path_factory.mktemp("data")


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def places(out, data):
    return ["--out", out, "--data-dir", data]


@pytest.mark.integration
def test_costs_from_file_to_records(data, tmp_path):
    file = write(tmp_path, COST)
    done = run("sweep", file, *places(tmp_path / "out", data), "--json", "--jobs", "1")
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    records = read_records(tmp_path / "out" / "records.jsonl")
    assert shown["records"] == records
    assert (shown["cells"], shown["failed"]) == (4, 0)
    assert re.search(r"\[4/4\] cost attention=joint num_frames=4: .* GMACs, \d+ s", done.stderr)
    for record in records:
        assert (record["kind"], record["sweep"], record["seed"]) == ("cost", "cost", None)
        config = CostSpec.parse({"name": "x", "model": record["spec"]["model"]}).model
        assert record["cell"] == {"model.attention": config.attention, "model.num_frames": config.num_frames}
        assert record["metrics"]["params"] > 0
        assert record["metrics"]["tflops_total"] == record["metrics"]["macs_per_view"] * 3 / 1e12
    assert (tmp_path / "out" / "sweep.yaml").read_bytes() == file.read_bytes()
    assert (tmp_path / "out" / RESERVE).stat().st_size == 2**20
    # Again: nothing is run.  With more to measure: the records are completed.
    before = (tmp_path / "out" / "records.jsonl").read_bytes()
    assert run("sweep", file, *places(tmp_path / "out", data)).exit_code == 0
    assert (tmp_path / "out" / "records.jsonl").read_bytes() == before
    more = write(tmp_path, changed(COST, measure=["params", "macs", "memory", "latency", "throughput"]))
    done = run("sweep", more, *places(tmp_path / "out", data), "--json", "--jobs", "1")
    assert done.exit_code == 0, done.output
    completed = latest(read_records(tmp_path / "out" / "records.jsonl"))
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
    assert "calibrated" in found["seconds_how"]
    assert not (tmp_path / "out").exists()
    text = run("sweep", file, *places(tmp_path / "out", data), "--dry-run")
    assert "4 cells, 5 runs; 0 done, 0 failed, 5 left" in text.stdout
    assert "GMACs to train" in text.stdout
    many = write(tmp_path, changed(COST, axes={"recipe.batch_size": list(range(1, 60))}), "many.yaml")
    text = run("sweep", many, *places(tmp_path / "many", data), "--dry-run")
    assert "and 19 more" in text.stdout
    assert "1.5 s a cell, assumed" in text.stdout


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


@pytest.mark.integration
def test_every_failure_is_an_outcome_and_the_others_go_on(data, tmp_path):
    marker = tmp_path / "repaired"
    for name, (patched, fault, _, _) in FAULTS.items():
        text = FAULT.format(marker=str(marker), patched=patched, fault=fault)
        (tmp_path / f"{name}.py").write_text(f"# {name}\n{text}")
    (tmp_path / "good.py").write_text("SCHEMES = []\n")
    files = [f"{name}.py" for name in (*FAULTS, "good")]
    base = BASE | {"data": BASE["data"] | {"cache": False}, "model": {"attention": "space", "num_frames": 2, **SIZES}}
    sweep = changed(name="faults", base=base, axes={"scheme_file": files})
    out = tmp_path / "out"
    done = run("sweep", write(tmp_path, sweep), *places(out, data), "--jobs", "1")
    assert done.exit_code == 1, done.output
    assert "4 failed; --retry failed runs them again" in done.stderr
    records = {record["cell"]["scheme_file"]: record for record in read_records(out / "records.jsonl")}
    assert {name: record["outcome"] for name, record in records.items()} == dict.fromkeys(files, "failed") | {
        "good.py": "done"
    }
    for name, (_, _, kind, reason) in FAULTS.items():
        record = records[f"{name}.py"]
        assert record["reason_kind"] == kind, record["reason"]
        assert re.search(reason, record["reason"])
    found = json.loads(run("status", out, "--json").stdout)
    assert found["counts"] == {"done": 1, "failed": 4, "running": 0, "interrupted": 0, "waiting": 0}
    assert {each["reason_kind"] for each in found["runs"] if each["state"] == "failed"} == {
        kind for _, _, kind, _ in FAULTS.values()
    }
    assert "disk_full" in run("status", out).stdout
    # They are outcomes: without --retry they stay as they are, with it they are run again.
    size = (out / "records.jsonl").stat().st_size
    assert run("sweep", write(tmp_path, sweep), *places(out, data)).exit_code == 1
    assert (out / "records.jsonl").stat().st_size == size
    marker.touch()
    done = run("sweep", write(tmp_path, sweep), *places(out, data), "--retry", "failed", "--jobs", "1")
    assert done.exit_code == 0, done.output
    assert "5 of 5 cells done" in done.stdout
    assert len(table(latest(read_records(out / "records.jsonl")).values())) == 5


def test_what_starts_from_a_failed_run_is_not_started_until_that_is_there(data, tmp_path, monkeypatch):
    diverging = fields(**IMAGE | {"recipe": {"steps": 30, "batch_size": 8, "lr": 1e30, "optimiser": "sgd"}})
    file = write(tmp_path, changed(base=BASE | {"init_from": diverging, "threads": 1}, axes={"seed": [0]}))
    opened = open_sweep(file, tmp_path / "out", data)
    result = in_turn(opened)
    assert "loss of step" in result.failures["image"]
    assert result.failures["tiny seed=0"] == "not started: 'image', from which it starts, failed"
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
    assert (missing["reason"], missing["reason_kind"]) == ("tracker: 'wandb' is not installed", "bad_input")


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
        (["--jobs", "2"], "latency and throughput are wrong for runs beside one another"),
        (["--ray", "nowhere:1"], "latency and throughput are wrong"),
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
    with pytest.raises(InputError, match="it holds the sweep 'cost', this is 'other'"):
        open_sweep(other, tmp_path / "out", data)
    with pytest.raises(InputError, match="--jobs -1"):
        carry_out_sweep(open_sweep(file, tmp_path / "out", data), jobs=-1)
    # It may grow.
    assert len(in_turn(open_sweep(write(tmp_path, COST), tmp_path / "out", data)).cells) == 4


class Script:
    """A pool that does what it is told: key -> list of events, one for each time that the job begins."""

    def __init__(self, events):
        self.script, self.ended, self.begun = events, [], []

    def room(self, job):
        return True

    def submit(self, key, job):
        self.begun.append(key)
        self.ended.append(self.script[key].pop(0))

    def events(self, seconds):
        found, self.ended = self.ended, []
        return found

    def close(self):
        pass


def plan_of(tmp_path, sweep=COST):
    plan = Plan(parse_sweep(sweep).jobs(), tmp_path / "out", tmp_path / "data")
    plan.recall(retry=False)
    return plan


def test_cells_of_another_driver_are_waited_for(tmp_path, monkeypatch):
    from timesformer_experiments.jobs import plan as runner

    monkeypatch.setattr(runner, "LOOK_EVERY_SECONDS", 0.0)
    plan = plan_of(tmp_path)
    mine, theirs, dead, fails = plan.jobs
    record = attempt(plan.jobs[mine], plan.runs_dir, plan.data_dir)
    done = {"outcome": "done", "metrics": {}, "hash": dead}
    pool = Script(
        {
            mine: [Event(mine, "record", record)],
            theirs: [Event(theirs, "busy")],
            dead: [Event(dead, "busy"), Event(dead, "record", done)],  # its driver ends without a record
            fails: [Event(fails, "busy")],
        }
    )

    class OtherDriver(Watch):
        """At the first look, the other driver's runs end."""

        def stop(self, key):
            super().stop(key)
            if key == fails:
                attempt(plan.jobs[theirs], plan.runs_dir, plan.data_dir)
                jobs.failed(plan.jobs[fails], plan.runs_dir, plan.data_dir, Failed("gone", "killed"))

    carry_out(plan, pool, OtherDriver(4, shown=False))
    assert pool.begun.count(dead) == 2
    assert pool.begun.count(theirs) == pool.begun.count(fails) == 1
    assert plan.records[theirs]["metrics"]["params"] > 0
    assert plan.failures[fails]["reason_kind"] == "killed"


def test_a_claimed_run_is_busy_and_a_failure_elsewhere_counts(tmp_path):
    plan = plan_of(tmp_path)
    key, job = next(iter(plan.jobs.items()))
    with RunFolder(plan.runs_dir, key).claimed(job.name), pytest.raises(Busy):
        attempt(job, plan.runs_dir, plan.data_dir)
    failure = jobs.failed(job, plan.runs_dir, plan.data_dir, Failed("gone", "killed"))
    assert attempt(job, plan.runs_dir, plan.data_dir, since=0) == failure
    assert attempt(job, plan.runs_dir, plan.data_dir)["outcome"] == "done"


def test_a_failure_that_cannot_be_written_is_still_told(tmp_path, monkeypatch):
    plan = plan_of(tmp_path)
    job = next(iter(plan.jobs.values()))

    def full(*args, **kwargs):
        raise InputError("cannot write the records") from OSError(28, "No space left on device")

    monkeypatch.setattr(jobs, "record_failure", full)
    monkeypatch.setattr(jobs, "recorded", full)
    record = attempt(job, plan.runs_dir, plan.data_dir)
    assert (record["outcome"], record["reason_kind"], record["unwritten"]) == ("failed", "disk_full", True)


def test_a_probe_that_cannot_be_made_fails_its_runs_alone(tmp_path, monkeypatch):
    from timesformer_experiments.jobs import plan as runner

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runner, "prepare", full)
    plan = plan_of(tmp_path, changed())
    prepare_probes(plan, 1, print)
    assert len(plan.failures) == 4
    assert {record["reason_kind"] for record in plan.failures.values()} == {"disk_full"}
    assert plan.left() == 0


def test_status_tells_what_is_going_on(data, tmp_path):
    plan = plan_of(tmp_path)
    out = plan.runs_dir
    with pytest.raises(InputError, match="there is no sweep in it"):
        sweep_status(tmp_path)
    opened = sweep_run.Opened(parse_sweep(COST), plan, write(tmp_path, COST))
    sweep_run._write_sweep(opened)
    one, two, three, _ = plan.jobs
    attempt(plan.jobs[one], out, plan.data_dir)
    (out / three / "checkpoint").mkdir(parents=True)
    watch = Watch(4, shown=False, runs_dir=out)
    with RunFolder(out, two).claimed("two"):
        watch.begin(two, plan.jobs[two])
        watch.step(two, 20, 100, 1.5)
        found = sweep_status(out)
        assert [each.state for each in found.runs] == ["done", "running", "interrupted", "waiting"]
        assert (found.runs[1].step, found.runs[1].steps, found.runs[1].loss) == (20, 100, 1.5)
        text = run("status", out)
        assert "1 done, 1 running, 1 interrupted, 1 waiting" in text.stdout
        assert "20/100" in text.stdout
    watch.stop(two)
    assert not (out / two / "progress.json").exists()
    assert sweep_status(out).counts()["waiting"] == 2
    (out / "cells.json").write_text("{}")
    assert run("status", out).exit_code == 2


@pytest.mark.integration
def test_two_drivers_share_a_folder(data, tmp_path):
    file = write(tmp_path, changed(COST, axes={"recipe.batch_size": list(range(1, 13))}))
    drivers = [start("sweep", file, *places(tmp_path / "out", data), "--jobs", 1, "--json") for _ in range(2)]
    ended = [finish(driver) for driver in drivers]
    assert [code for code, _, _ in ended] == [0, 0], ended
    tables = [json.loads(out)["records"] for _, out, _ in ended]
    assert tables[0] == tables[1]
    lines = read_records(tmp_path / "out" / "records.jsonl")
    assert len(lines) == len({line["hash"] for line in lines}) == 12


def test_a_status_in_passing_does_not_stop_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(
        timesformer_experiments.records.folder, "PATIENCE_SECONDS", 10.0
    )  # for a machine that is busy with other things
    folder = tmp_path / "run"
    folder.mkdir()
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        import threading

        threading.Timer(0.1, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        with RunFolder(folder.parent, folder.name).claimed("run"):
            pass


def test_a_run_on_its_own_is_a_job_too(data, tmp_path):
    spec = image()
    assert isinstance(spec, RunSpec)
    job = Job(spec)
    assert job.complete(attempt(job, tmp_path, data))
    assert (Path(tmp_path) / spec.hash() / "model").is_dir()


def test_a_finished_sweep_has_no_rate(data, tmp_path):
    plan = plan_of(tmp_path)
    sweep_run._write_sweep(sweep_run.Opened(parse_sweep(COST), plan, write(tmp_path, COST)))
    *first, last = plan.jobs
    for key in first:
        ended = attempt(plan.jobs[key], plan.runs_dir, plan.data_dir)
        minute = first.index(key)
        append_record(plan.runs_dir / "records.jsonl", {**ended, "finished_utc": f"2026-01-01T00:{minute:02}:00Z"})
    found = sweep_status(plan.runs_dir)
    assert (found.runs_per_hour, found.seconds_left) == (60, 60)
    attempt(plan.jobs[last], plan.runs_dir, plan.data_dir)
    assert (sweep_status(plan.runs_dir).runs_per_hour, sweep_status(plan.runs_dir).seconds_left) == (None, 0)
