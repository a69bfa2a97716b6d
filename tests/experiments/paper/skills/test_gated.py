"""The gate's table of all probes: which are in it, and what it says of each."""

import json
from pathlib import Path

import pandas as pd
import pytest

from timesformer.data.probes import LABELS
from timesformer.data.probes.diagnostics import CHEAP
from timesformer_experiments.paper.skills import gated
from timesformer_experiments.paper.skills.registered import skills

RESULTS = Path(__file__).parents[4] / "results"


def described(labels: int, best: str, percent: float) -> str:
    """The text of a description; its other classifiers are at 40 %."""
    return json.dumps(
        {
            "labels": ["?"] * labels,
            "parameters": {"num_train": 7},
            "cheap_classifiers": {name: {"top1_percent": percent if name == best else 40.0} for name in CHEAP},
        }
    )


def test_every_kind_of_probe_is_asked_for() -> None:
    assert {*gated.older("quick"), *skills().probes} == set(LABELS)


def test_the_table_says_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "probes").mkdir()
    (tmp_path / "skills" / "quick").mkdir(parents=True)
    (tmp_path / "probes" / "motion-quick.json").write_text(described(8, "moments_mlp", 86.5))
    half = json.loads(described(4, "mean_frame", 99.0))
    del half["cheap_classifiers"]["patches_mlp"]  # described with fewer classifiers: not known
    (tmp_path / "probes" / "order-quick.json").write_text(json.dumps(half))
    rows = [
        ("match", "axis", "mean_frame", 26.0),
        ("match", "axis", "moments_mlp", 99.0),
        ("match", "knight", "x", 100.0),
    ]
    cheap = pd.DataFrame(rows, columns=["probe", "value", "classifier", "measured_top1_percent"])
    cheap.to_csv(tmp_path / "skills" / "quick" / "cheap.csv", index=False)
    made, unknown = gated.table(tmp_path, "quick")
    found = made.frame.set_index("probe")
    assert list(found.index) == ["motion", "match"]
    assert found["classifier"].to_dict() == {"motion": "moments mlp", "match": "moments mlp"}
    assert found["sees"].to_dict() == {"motion": "brightness alone", "match": "brightness and colour"}
    assert found["cheap_best_percent"].to_dict() == {"motion": 86.5, "match": 99.0}
    assert found["needed_percent"].to_dict() == {"motion": 91.5, "match": 100.0}
    assert found["chance_percent"].to_dict() == {"motion": 12.5, "match": 25.0}
    assert set(unknown) == set(LABELS) - {"motion", "match"}
    gated.main("quick", None, tmp_path)
    assert "Not known in this profile:" in (tmp_path / "probes" / "gate-quick.md").read_text()


def test_the_committed_table_is_that_of_the_committed_files() -> None:
    stored = pd.read_csv(RESULTS / "probes" / "gate-quick.csv")
    made = gated.table(RESULTS, "quick")[0].frame
    assert stored["probe"].tolist() == made["probe"].tolist()
    assert stored["cheap_best_percent"].tolist() == pytest.approx(made["cheap_best_percent"].tolist())
