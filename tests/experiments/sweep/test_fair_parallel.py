"""A sweep that tunes and adds seeds ends with the same records on one worker, two workers and a cluster."""

import importlib
from pathlib import Path

import pytest

from tests.experiments.jobs.fake_ray import FakeRay
from tests.experiments.sweep.test_fair_sweep import CLAIM, FAIR, fair, held
from tests.experiments.sweep_fakes import in_this_process
from timesformer_experiments.jobs import cluster
from timesformer_experiments.sweep.carry_out import carry_out_sweep, open_sweep

SHORT = {key: value for key, value in FAIR.items() if key != "equalise"} | {
    "until": {"claims": [CLAIM | {"most_seeds": 8}], "failed_below_percent": "midpoint"}
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data")


def carried_out(folder: Path, data: Path, **options) -> tuple[dict, list[dict]]:
    """The records of the sweep, and where its claims stand."""
    opened = open_sweep(fair(folder, **SHORT), folder / "out", data)
    carry_out_sweep(opened, progress=False, **options)
    return held(folder / "out"), [each.to_dict() for each in opened.known().standings]


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        in_this_process(patch)
        return carried_out(tmp_path_factory.mktemp("alone"), data, jobs=1)


def test_on_a_cluster_the_looks_are_the_same(alone, data, tmp_path, monkeypatch):
    """With as much of Ray as runs in this process."""
    monkeypatch.setattr(cluster, "connect", lambda address: FakeRay())
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "machine"))
    monkeypatch.setattr(cluster, "SETTLE_SECONDS", 0.0)
    records, standings = carried_out(tmp_path, data, ray="auto")
    assert (records, standings) == alone
    (standing,) = standings
    assert standing["seeds"] == 8  # the claim is open at five seeds, so that the second look was taken
    finals = [record for record in records.values() if record["cell"] is not None]
    assert {record["failed_below_percent"] for record in finals} == {75.0}
    assert len(finals) == 16


@pytest.mark.slow
def test_two_workers_end_with_the_same_records(alone, data, tmp_path):
    assert carried_out(tmp_path, data, jobs=2) == alone


@pytest.mark.slow
def test_ray_on_this_machine_ends_with_the_same_records(alone, data, tmp_path):
    pytest.importorskip("ray")
    ray = importlib.import_module("ray")
    try:
        assert carried_out(tmp_path, data, ray="local") == alone
    finally:
        ray.shutdown()
