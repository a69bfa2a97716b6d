"""The gate's table of all probes: which are in it, and what it says of each."""

import json
from pathlib import Path

import pandas as pd
import pytest

from timesformer.data.probes import LABELS
from timesformer_experiments.paper.skills import gated
from timesformer_experiments.paper.skills.registered import skills

RESULTS = Path(__file__).parents[4] / "results"


def test_every_kind_of_probe_is_gated() -> None:
    found = gated.probes_of("quick")
    assert set(found) == set(LABELS)
    for name, skill in skills().probes.items():
        assert found[name].num_train == skill.data["num_train"]
        assert found[name].seed == skills().data_seed


def test_the_table_says_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "probes").mkdir()
    for name, percents in (("motion", (40.0, 86.5)), ("match", (99.0, 26.0))):
        facts = {
            "labels": list(LABELS[name]),
            "parameters": {"num_train": 7},
            "cheap_classifiers": dict(
                zip(("mean_frame", "moments_mlp"), ({"top1_percent": each} for each in percents), strict=True)
            ),
        }
        (tmp_path / "probes" / f"{name}-quick.json").write_text(json.dumps(facts))
    rows = gated.table(tmp_path, "quick").frame.set_index("probe")
    assert list(rows.index) == ["motion", "match"]
    assert rows.loc["motion", "classifier"] == "moments mlp"
    assert rows["cheap_best_percent"].to_dict() == {"motion": 86.5, "match": 99.0}
    assert rows["needed_percent"].to_dict() == {"motion": 91.5, "match": 100.0}
    assert rows["chance_percent"].to_dict() == {"motion": 12.5, "match": 25.0}


@pytest.mark.parametrize("profile", ["quick"])
def test_the_committed_table_is_that_of_the_committed_descriptions(profile: str) -> None:
    stored = pd.read_csv(RESULTS / "probes" / f"gate-{profile}.csv")
    made = gated.table(RESULTS, profile).frame  # type: ignore[arg-type]
    assert stored["probe"].tolist() == made["probe"].tolist()
    assert stored["cheap_best_percent"].tolist() == pytest.approx(made["cheap_best_percent"].tolist())
    assert set(stored["probe"]) == set(LABELS)
