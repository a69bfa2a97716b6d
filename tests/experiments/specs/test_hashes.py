"""Hashes hold: artefacts and sweeps plan the runs of the committed records, and a model gives the logits of old."""

from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.experiments.spec_fakes import small
from timesformer import TimeSformer, TimeSformerConfig
from timesformer_experiments.paper.artefact import PROFILES, Profile
from timesformer_experiments.paper.artefacts.verdicts.verdicts import REGISTERED
from timesformer_experiments.paper.registry import load, names
from timesformer_experiments.records.log import read_records
from timesformer_experiments.specs.cost import CostSpec
from timesformer_experiments.specs.sweep import load_sweep

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "results"
COMMITTED = [
    (name, profile) for name in names() for profile in PROFILES if (RESULTS / name / profile / "records.jsonl").exists()
]
MEASURED = {
    ("table2", "quick"): Counter(cost=3),
    ("figure6", "quick"): Counter(accuracy=12),
    ("localisation", "quick"): Counter(localisation=10),
    ("localisation", "full"): Counter(localisation=30),
    ("sparse", "quick"): Counter(recall=2),
}
"""Records of what artefacts measure on finished runs, by kind, which are no runs that they plan: speeds, evaluations
with more views, scores of maps, and recall."""


def test_records_are_committed_of_every_artefact_that_trains() -> None:
    """Those of the profile `quick` of all whose runs have been made, those of `full` of some; of `smoke` of none."""
    trains = {name for name in names() if load(name).plan("quick")} - set(REGISTERED)
    assert trains == {name for name, profile in COMMITTED if profile == "quick"}
    assert {name for name, profile in COMMITTED if profile == "full"} == {
        "figure5", "localisation", "order", "table1", "table4", "table8", "verdicts",
    }  # fmt: skip
    assert {profile for _, profile in COMMITTED} == {"quick", "full"}


@pytest.mark.parametrize(("name", "profile"), COMMITTED)
def test_an_artefact_plans_the_runs_of_its_records(name: str, profile: Profile) -> None:
    planned = {spec.hash(): spec.name for spec in load(name).plan(profile)}
    kinds = {record["hash"]: record["kind"] for record in read_records(RESULTS / name / profile / "records.jsonl")}
    assert {run for key, run in planned.items() if key not in kinds} == set()
    assert Counter(kind for key, kind in kinds.items() if key not in planned) == MEASURED.get((name, profile), {})


@pytest.mark.parametrize("name", ["cost_grid", "probe_grid"])
def test_a_shipped_sweep_has_the_cells_of_its_records(name: str) -> None:
    jobs = load_sweep(ROOT / "experiments" / "sweeps" / f"{name}.yaml").jobs()
    assert set(jobs) == {record["hash"] for record in read_records(RESULTS / "sweeps" / name / "records.jsonl")}


def test_logits_of_the_committed_checkpoint() -> None:
    """In float64, where the rounding of a backend is far below the tolerance."""
    model = TimeSformer.from_pretrained(RESULTS / "checkpoints" / "divided-motion").double().eval()
    shape = (1, 8, 3, 32, 32)
    pattern = torch.arange(torch.Size(shape).numel(), dtype=torch.float64) * 37 % 101 / 50 - 1
    with torch.no_grad():
        logits = model(pattern.reshape(shape))
    assert logits[0].tolist() == pytest.approx(LOGITS, abs=1e-6)


LOGITS = [1.488230168, -2.289634622, -0.675491354, 2.437385256, 1.096400384, 1.277326086, -3.869191551, -1.423185121]


@dataclass(frozen=True)
class Later(TimeSformerConfig):
    """A configuration with fields that were added after records had been made."""

    shutter: str | None = field(default=None, metadata={"later": True})
    windows: tuple[int, ...] = field(default=(), metadata={"later": True})


def hashes(model: TimeSformerConfig) -> tuple[str, str]:
    return small(model=model).hash(), CostSpec(name="cost", model=model).hash()


def settled(config: TimeSformerConfig) -> dict[str, Any]:
    """The fields that were there before any that came later; the later ones are at their defaults."""
    assert not config.changed_switches()
    return {each.name: config.to_dict()[each.name] for each in fields(config) if not each.metadata.get("later")}


@pytest.fixture
def today() -> TimeSformerConfig:
    model = small().model
    assert isinstance(model, TimeSformerConfig)
    return model


def test_a_later_field_that_is_neutral_is_no_part_of_the_hash(today: TimeSformerConfig) -> None:
    later = Later(**today.to_dict())
    assert hashes(later) == hashes(today)
    assert later.to_dict() == today.to_dict() | {"shutter": None, "windows": []}


@pytest.mark.parametrize("changed", [{"shutter": "tanh"}, {"windows": (2, 2)}, {"registers": 2}])
def test_a_later_field_that_is_not_neutral_is(today: TimeSformerConfig, changed: dict[str, Any]) -> None:
    later = Later(**{**today.to_dict(), **changed})
    (name,) = changed
    assert not set(hashes(later)) & set(hashes(today))
    written = small(model=later).definition()["model"]
    assert written == settled(today) | {name: later.to_dict()[name]}


def test_every_field_of_today_is_part_of_the_hash(today: TimeSformerConfig) -> None:
    assert small().definition()["model"] == settled(today)
    assert CostSpec(name="cost", model=today).definition()["model"] == settled(today)
