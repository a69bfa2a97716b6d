"""Whatever happens to a sweep, in the end every cell is there once, and is what an undisturbed sweep makes it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.experiments.spec_fakes import SIZES, fields
from tests.experiments.sweep_fakes import BASE, changed, children, finish, start, table, write
from timesformer_experiments.records.log import latest, read_records

pytestmark = pytest.mark.slow

KILLS_OF_DRIVERS, KILLS_OF_WORKERS = 20, 4
IMAGE = fields(
    name="image",
    data={"probe": "appearance", "num_train": 16, "num_test": 8, "stills": True},
    model={"attention": "space", "num_frames": 1, **SIZES},
    recipe={"steps": 100, "batch_size": 8, "checkpoint_every": 10},
)
SWEEP = changed(
    name="survivor",
    base=BASE | {"recipe": {"steps": 250, "batch_size": 8, "checkpoint_every": 10}, "init_from": IMAGE},
    axes={"model.attention": ["divided", "space", "joint"], "model.num_frames": [2, 4]},
    measure=["accuracy", "macs"],
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """Folder of the sweep as it goes when nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    code, _, err = finish(sweep(folder / "out", data, write(folder, SWEEP)))
    assert code == 0, err
    return folder / "out"


def sweep(out, data, file, *words, **options):
    return start("sweep", file, "--out", out, "--data-dir", data, "--jobs", 1, *words, **options)


def same(out: Path, undisturbed: Path) -> None:
    """Every cell once, with the metrics and the weights of an undisturbed sweep."""
    ours, theirs = (read_records(folder / "records.jsonl") for folder in (out, undisturbed))
    done = Counter(record["hash"] for record in ours if record["outcome"] == "done")
    assert done == Counter(record["hash"] for record in theirs)
    assert set(done.values()) == {1}
    assert table(latest(ours).values()) == table(theirs)
    assert len(table(theirs)) == 6
    for key in done:
        first, second = (load_file(folder / key / "model" / "model.safetensors") for folder in (out, undisturbed))
        assert all(torch.equal(value, second[name]) for name, value in first.items())
        names, wanted = ({path.name for path in (folder / key).iterdir()} for folder in (out, undisturbed))
        assert wanted <= names <= wanted | {"error.txt"}


def workers(process: int) -> list[int]:
    """The worker processes of a driver."""
    found = []
    for pid in children(process):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"spawn_main" in command:
            found.append(pid)
    return found


def test_drivers_and_workers_that_are_killed(data, undisturbed, tmp_path):
    file, out, chance = write(tmp_path, SWEEP), tmp_path / "out", random.Random(5)
    startup = time.monotonic()
    assert start("status", undisturbed).wait(120) == 0
    startup = time.monotonic() - startup  # what a command needs on this machine, now
    killed = Counter()
    while killed["driver"] < KILLS_OF_DRIVERS or killed["worker"] < KILLS_OF_WORKERS:
        driver = sweep(out, data, file, "--retry", "failed", start_new_session=True)
        if killed["worker"] < KILLS_OF_WORKERS and killed["driver"] % 3 == 2:
            end = time.monotonic() + 20 * startup
            while not list(out.glob("*/checkpoint")) and time.monotonic() < end and driver.poll() is None:
                time.sleep(0.01)
            time.sleep(chance.uniform(1.0, 2.0) * startup)
            with suppress(ProcessLookupError, IndexError):
                os.kill(workers(driver.pid)[0], signal.SIGKILL)
                killed["worker"] += 1
            time.sleep(chance.uniform(0.0, 0.5) * startup)
        else:
            time.sleep(chance.uniform(0.2, 2.5) * startup)
        if driver.poll() is not None:  # it ended before the blow fell; where all was done the folder begins anew
            assert driver.returncode in (0, 1), driver.communicate()
            if driver.returncode == 0:
                same(out, undisturbed)
                shutil.rmtree(out)
            else:  # a killed worker's run has failed, with those that start from it: the next driver runs them again
                ended = latest(read_records(out / "records.jsonl")).values()
                kinds = {record["reason_kind"] for record in ended if record["outcome"] == "failed"}
                assert {"killed"} <= kinds <= {"killed", "not_started"}
            continue
        driver.kill()
        driver.communicate()
        killed["driver"] += 1
    # Where workers were killed, a driver that lived on has recorded it; the others leave no trace but a checkpoint.
    for _ in range(2):
        code, _, err = finish(sweep(out, data, file, "--retry", "failed"))
    assert code == 0, err
    same(out, undisturbed)
    (code, shown, _) = finish(start("status", out, "--json"))
    assert json.loads(shown)["counts"] == {"done": 7, "failed": 0, "running": 0, "interrupted": 0, "waiting": 0}


def test_a_killed_worker_is_an_outcome(data, undisturbed, tmp_path):
    file, out = write(tmp_path, SWEEP), tmp_path / "out"
    driver = sweep(out, data, file)
    end = time.monotonic() + 120
    while not list(out.glob("*/progress.json")):
        assert time.monotonic() < end
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.02)
    found = workers(driver.pid)
    os.kill(found[0], signal.SIGKILL)
    code, _, err = finish(driver)
    assert code == 1
    ended = latest(read_records(out / "records.jsonl")).values()
    (victim,) = (record["name"] for record in ended if record["reason_kind"] == "killed")
    kinds = Counter(record["reason_kind"] for record in ended)
    # Most likely the image model, from which all others start; on a slow machine it may have ended before the blow.
    assert kinds == ({"killed": 1, "not_started": 6} if victim == "image" else {"killed": 1, None: 6})
    assert "signal SIGKILL" in err
    code, _, err = finish(sweep(out, data, file, "--retry", "failed"))
    assert code == 0, err
    same(out, undisturbed)


def test_a_disk_that_fills_up(data, undisturbed, tmp_path):
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    script = Path(__file__).with_name("full_disk.py")
    command = [*own, sys.executable, str(script), str(write(tmp_path, SWEEP)), str(data), str(disk), str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    # Where a small file system cannot be mounted this fails: it is what is to be shown.
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    during = found["during"]
    assert during["code"] == 1, during["err"]
    assert during["free_bytes"] < 2**20
    failures = [record for record in during["records"] if record["outcome"] == "failed"]
    assert failures
    assert {record["reason_kind"] for record in failures} <= {"disk_full", "not_started"}
    assert "disk_full" in {record["reason_kind"] for record in failures}
    assert found["code"] == 0, found["err"]
    same(kept, undisturbed)
