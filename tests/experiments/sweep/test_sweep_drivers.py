"""Several drivers at one sweep, what cannot be recorded, and the status of a sweep that is under way."""

import fcntl
import json
from pathlib import Path

import pytest

import timesformer_experiments.records.folder
from tests.experiments.spec_fakes import image
from tests.experiments.sweep_fakes import COST, changed, finish, places, run, start, write
from timesformer.errors import InputError
from timesformer_experiments.jobs import attempt as jobs
from timesformer_experiments.jobs.attempt import attempt
from timesformer_experiments.jobs.plan import Plan, carry_out, prepare_probes
from timesformer_experiments.jobs.watching import Watch
from timesformer_experiments.jobs.workers import Event
from timesformer_experiments.records.folder import Busy, RunFolder
from timesformer_experiments.records.log import append_record, read_records
from timesformer_experiments.run.failures import Failed
from timesformer_experiments.specs.job import Job
from timesformer_experiments.specs.run import RunSpec
from timesformer_experiments.specs.sweep import parse_sweep
from timesformer_experiments.sweep import carry_out as sweep_run
from timesformer_experiments.sweep.status import sweep_status


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Probes and decoded frames, shared by the tests."""
    return tmp_path_factory.mktemp("data")


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
    with pytest.raises(InputError, match="expected the folder of a sweep"):
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
