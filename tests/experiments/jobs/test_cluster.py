"""Sweeps on a Ray cluster: what is asked of it, what becomes of lost machines, and the same table as here."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.experiments.jobs.fake_ray import (
    GIB,
    FakeRay,
    NodeDiedError,
    OutOfMemoryError,
    RayTaskError,
    WorkerCrashedError,
)
from tests.experiments.spec_fakes import SIZES, fields, small
from tests.experiments.sweep_fakes import BASE, COST, changed, children, finish, start, table, write
from timesformer.errors import InputError
from timesformer_experiments.cost.measures import predicted_memory
from timesformer_experiments.jobs import cluster
from timesformer_experiments.jobs.cluster import Cluster, connect, share_of_card
from timesformer_experiments.jobs.plan import Plan, carry_out
from timesformer_experiments.jobs.watching import Watch
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.records.log import latest, read_records
from timesformer_experiments.specs.job import Job
from timesformer_experiments.specs.sweep import parse_sweep

IMAGE = fields(
    name="image",
    data={"probe": "appearance", "num_train": 16, "num_test": 8, "stills": True},
    model={"attention": "space", "num_frames": 1, **SIZES},
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def ray(monkeypatch, tmp_path):
    """A cluster that is none; its machines' own folder is here."""
    fake = FakeRay()
    monkeypatch.setattr(cluster, "connect", lambda address: fake)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "machine"))
    monkeypatch.setattr(cluster, "SETTLE_SECONDS", 0.0)
    (tmp_path / "out").mkdir()
    return fake


def pool(tmp_path, data, **options):
    said = []
    made = Cluster("auto", tmp_path / "out", data, 0, lambda *step: None, said.append, **options)
    return made, said


def sweep(tmp_path, data, wanted=COST, **options):
    plan = Plan(parse_sweep(wanted).jobs(), tmp_path / "out", data)
    plan.recall(retry=True)
    made, said = pool(tmp_path, data, **options)
    carry_out(plan, made, Watch(len(plan.jobs), shown=False))
    made.close()
    return plan, said


def test_a_sweep_on_a_shared_folder(ray, tmp_path, data):
    plan, said = sweep(tmp_path, data)
    assert said == ["cluster: 1 nodes, 2 CPUs, 0 GPUs; all see the sweep's folder"]
    assert list(latest(read_records(tmp_path / "out" / "records.jsonl"))) == list(plan.jobs)
    assert not (tmp_path / "machine").exists()
    assert not ray.up


def test_results_come_home_from_machines_that_do_not_see_the_folder(ray, tmp_path, data):
    ray.views = [{"sees": False, "gpu_bytes": []}]
    wanted = changed(base=BASE | {"init_from": IMAGE}, axes={"seed": [0, 1]})
    plan, said = sweep(tmp_path, data, wanted)
    assert "results are returned through Ray" in said[0]
    assert not plan.failures, plan.failures
    records = read_records(tmp_path / "out" / "records.jsonl")
    assert {record["hash"]: record for record in records} == plan.records
    for key in plan.jobs:
        left = {path.name for path in (tmp_path / "out" / key).iterdir()}
        assert left == {".lock", "spec.json", "record.json", "model", "scores.parquet", "curve.parquet"}
    # A failure comes home as well.
    ray.views = [{"sees": False, "gpu_bytes": []}]
    bad = changed(
        axes={"recipe.lr": [1e30]}, base=BASE | {"recipe": {"steps": 30, "batch_size": 8, "optimiser": "sgd"}}
    )
    plan, _ = sweep(tmp_path, data, bad)
    (failure,) = plan.failures.values()
    assert failure["reason_kind"] == "diverged"
    assert read_records(tmp_path / "out" / "records.jsonl")[-1] == failure


def test_a_lost_machine_is_replaced_and_a_crash_is_an_outcome(ray, tmp_path, data):
    ray.outcomes = [
        NodeDiedError("gone"),
        None,
        WorkerCrashedError("killed"),
        OutOfMemoryError("too much"),
        RayTaskError("broken"),
    ]
    plan, said = sweep(tmp_path, data)
    assert "cost attention=divided num_frames=2: its machine was lost; restarting on another" in said
    kinds = [plan.failures[key]["reason_kind"] if key in plan.failures else "done" for key in plan.jobs]
    assert kinds == ["done", "killed", "out_of_memory", "error"]


def test_a_machine_that_is_lost_again_and_again_is_an_outcome(ray, tmp_path, data):
    ray.outcomes = [NodeDiedError("gone")] * (cluster.MAX_LOST + 1)
    plan, _ = sweep(tmp_path, data, changed(COST, axes={}))
    (failure,) = plan.failures.values()
    assert failure["reason_kind"] == "node_lost"
    assert "lost 6 times" in failure["reason"]


def test_a_process_that_dies_with_its_machine_has_lost_it(ray, tmp_path, data, monkeypatch):
    monkeypatch.setattr(cluster, "SETTLE_SECONDS", 60.0)
    ray.outcomes = [WorkerCrashedError("gone")]
    nodes = ray.nodes
    monkeypatch.setattr(ray, "nodes", lambda: [] if not ray.outcomes and not dead else nodes())
    dead = []
    say = []

    class Said(list):
        def append(self, text):
            dead.append(text)  # from here on there is another machine
            say.append(text)

    plan = Plan(parse_sweep(changed(COST, axes={})).jobs(), tmp_path / "out", data)
    made = Cluster("auto", tmp_path / "out", data, 0, lambda *step: None, Said().append)
    dead.clear()
    carry_out(plan, made, Watch(1, shown=False))
    assert len(plan.records) == 1
    assert "its machine was lost" in say[-1]


def test_what_is_asked_for(ray, tmp_path, data):
    made, _ = pool(tmp_path, data)
    cost = Job(next(iter(parse_sweep(COST).jobs().values())).spec, ("params",))
    assert made.request(cost) == cluster.Request(1, 0.0, cluster.BASE_BYTES)
    run = Job(small(threads=2, processes=2))
    peak = predicted_memory(run.cost, "cpu")["train_peak_memory_bytes"]
    assert made.request(run) == cluster.Request(4, 0.0, 2 * (peak + cluster.BASE_BYTES))
    assert made.room(run)  # nothing runs yet: it is for `submit` to say that there never is
    made.begun["x"] = cluster._Begun(run, cluster.Request(2, 0.0, GIB), None, 0, cluster.ExitStack())
    assert not made.room(cost)
    ray.totals["CPU"] = 3
    assert made.room(cost)
    ray.totals["memory"] = GIB
    assert not made.room(cost)


def test_cards_are_shared_by_what_fits(ray, tmp_path, data):
    ray.views, ray.totals = [{"sees": True, "gpu_bytes": [16 * GIB]}], ray.totals | {"GPU": 1}
    made, _ = pool(tmp_path, data)
    assert made.slots == 1
    assert made.request(Job(small())).num_gpus == 1 / cluster.GPU_PARTS
    assert made.request(Job(small(processes=2))).num_gpus == 2
    assert made.request(Job(small(), ("accuracy", "latency"))).num_gpus == 1
    # What a card holds is predicted, not what a CPU would: there the update needs less beside a large model.
    large = Job(small(model={"attention": "space", "num_frames": 2, **SIZES, "embed_dim": 512, "depth": 4}))
    on_card, on_cpu = (predicted_memory(large.cost, where)["train_peak_memory_bytes"] for where in ("cuda", "cpu"))
    made.card_bytes = int(cluster.SPARE * on_card)
    assert made.request(large).num_gpus == 1 > share_of_card(on_cpu, made.card_bytes)
    assert share_of_card(4 * GIB, 16 * GIB) == 3 / 8
    assert share_of_card(40 * GIB, 16 * GIB) == 1
    made.card_bytes = 1
    made.submit("key", Job(small()))
    (event,) = made.events(0)
    assert event.value[1] == "out_of_memory"
    assert "on a GPU are predicted" in event.value[0]


def test_what_fits_on_no_machine_is_not_started(ray, tmp_path, data):
    ray.totals["memory"] = GIB / 2
    plan, _ = sweep(tmp_path, data, changed(COST, axes={}))
    (failure,) = plan.failures.values()
    assert failure["reason"] == "not started: 1.0 GiB of memory are predicted, the largest node has 0.5"
    assert failure["reason_kind"] == "out_of_memory"


def test_what_cannot_be_claimed_or_written(ray, tmp_path, data):
    made, _ = pool(tmp_path, data, shared=False)
    jobs = parse_sweep(COST).jobs()
    first, second, *_ = jobs
    with RunFolder(tmp_path / "out", first).claimed("first"):
        made.submit(first, jobs[first])
    assert made.events(0)[0].kind == "busy"
    (tmp_path / "out" / second).write_text("")
    made.submit(second, jobs[second])
    assert made.events(0)[0].value[1] == "bad_input"
    assert made.events(0) == []
    made.submit("third", list(jobs.values())[2])
    made.close()
    assert ray.cancelled == 1


def test_no_ray_and_no_cluster(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(cluster.importlib, "import_module", missing)
    with pytest.raises(
        InputError, match=r"--ray: Ray is not installed; pip install 'timesformer-ablations\[cluster\]'"
    ):
        connect("auto")
    fake = FakeRay()
    monkeypatch.setattr(cluster.importlib, "import_module", lambda name: fake)

    def refused(**options):
        raise ConnectionError("refused")

    monkeypatch.setattr(fake, "init", refused)
    with pytest.raises(InputError, match=r"--ray 10.0.0.1:6379: no Ray cluster at this address \(refused\)"):
        connect("10.0.0.1:6379")


def test_a_cluster_that_fails_at_the_start_is_left(ray, tmp_path, data):
    ray.views = []
    ray.up = True
    with pytest.raises(IndexError):
        pool(tmp_path, data)
    assert not ray.up


# With Ray itself: two nodes on this machine.

RUNS = changed(
    name="nodes",
    base=BASE
    | {
        "recipe": {"steps": 400, "batch_size": 8, "checkpoint_every": 20},
        "init_from": IMAGE,
    },
    axes={"model.attention": ["divided", "joint"], "seed": [0, 1, 2]},
)


@pytest.fixture(scope="module")
def local(data, tmp_path_factory):
    """The table of the same sweep with local workers."""
    folder = tmp_path_factory.mktemp("local")
    out = folder / "out"
    code, _, err = finish(start("sweep", write(folder, RUNS), "--out", out, "--data-dir", data, "--jobs", 2))
    assert code == 0, err
    return table(latest(read_records(out / "records.jsonl")).values())


@pytest.fixture
def nodes():
    """A cluster of two nodes with one core each; the first is the driver's."""
    pytest.importorskip("ray.cluster_utils")
    made, second = two_nodes()
    yield made, second
    made.shutdown()


def two_nodes(attempts=3):
    """Ray gives a node 30 seconds to start, which may be too few on a busy machine."""
    size = {"num_cpus": 1, "num_gpus": 0, "memory": 8 * GIB}
    made = importlib.import_module("ray.cluster_utils").Cluster()
    try:
        made.add_node(**size, include_dashboard=False)
        second = made.add_node(**size)
        made.wait_for_nodes(timeout=120)
        return made, second
    except Exception as error:
        made.shutdown()
        if attempts > 1 and ("timed out during startup" in str(error) or isinstance(error, TimeoutError)):
            return two_nodes(attempts - 1)
        raise


def wait_for(condition, seconds=600.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def held_by(processes, out):
    """Folders of the runs that processes are at work on: those whose lock they have open."""
    found = set()
    for process in processes:
        with suppress(OSError):  # it has ended meanwhile
            for descriptor in Path(f"/proc/{process}/fd").iterdir():
                target = Path(os.readlink(descriptor))
                if target.name == ".lock" and target.parent.parent == out:
                    found.add(target.parent)
    return found


def steps_done(folder):
    """Up to the latest checkpoint of a run; 0 where there is none."""
    try:
        with safe_open(folder / "checkpoint" / "checkpoint.safetensors", framework="pt") as file:
            return json.loads(file.metadata()["state"])["step"]
    except OSError:
        return 0


@pytest.mark.slow
def test_one_of_two_nodes_is_stopped_in_the_middle(nodes, local, data, tmp_path):
    made, second = nodes
    out = tmp_path / "out"
    words = ["--out", out, "--data-dir", data, "--ray", made.address, "--json"]
    driver = start("sweep", write(tmp_path, RUNS), *words)
    raylet = second.all_processes["raylet"][0].process.pid

    def second_is_at_work():
        """In the middle of a cell, with some way to go; the image model has 4 steps."""
        assert driver.poll() is None, driver.communicate()
        return any(20 <= step <= 300 for step in map(steps_done, held_by(children(raylet), out)))

    wait_for(second_is_at_work)
    for process in (*children(raylet), raylet):  # as when a machine loses its power
        os.kill(process, signal.SIGKILL)
    code, shown, err = finish(driver)
    assert code == 0, err
    assert "cluster: 2 nodes, 2 CPUs" in err
    assert "its machine was lost; restarting on another" in err
    records = read_records(out / "records.jsonl")
    assert len(records) == len({record["hash"] for record in records}) == 7
    assert table(json.loads(shown)["records"]) == table(records) == local


@pytest.mark.slow
def test_without_a_shared_folder_the_table_is_the_same(nodes, local, data, tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(
        "import sys\n"
        "from functools import partial\n"
        "from timesformer_experiments.jobs import cluster\n"
        "from timesformer_experiments.cli.main import main\n"
        "if __name__ == '__main__':\n"
        "    cluster.Cluster = partial(cluster.Cluster, shared=False)\n"
        "    main()\n"
    )

    made, _ = nodes
    out = tmp_path / "out"
    words = ["sweep", write(tmp_path, RUNS), "--out", out, "--data-dir", data, "--ray", made.address]
    command = [sys.executable, str(script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "results are returned through Ray" in done.stderr
    records = read_records(out / "records.jsonl")
    assert table(records) == local
    assert len(records) == 7
    assert all((out / record["hash"] / "model" / "model.safetensors").is_file() for record in records)
