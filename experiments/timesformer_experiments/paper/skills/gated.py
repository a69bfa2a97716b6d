"""The gate's table: how far classifiers without attention get on every probe, old and new.

    python -m timesformer_experiments.paper.skills.gated quick [DATA [RESULTS]]

Describes the probes of the profile in `results/probes`, each with a contact sheet, and sums up in `gate-quick.csv` and
`.md`.  The six probes of who must meet whom are those of `skills`, at the registered value of their dial.  DATA is the
folder of probes and decoded frames, by default `.cache`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from timesformer.data.cache import FrameCache
from timesformer.data.probes.diagnostics import GATE_MARGIN_POINTS
from timesformer.files import write_atomic
from timesformer_experiments.paper.probes import describe
from timesformer_experiments.paper.setting import SETTINGS, video_fields
from timesformer_experiments.paper.skills.plan import data_of
from timesformer_experiments.paper.skills.registered import Profile, skills
from timesformer_experiments.report.tables import Column, Table, to_csv, to_markdown
from timesformer_experiments.run.inputs import prepare
from timesformer_experiments.specs.run import ProbeData

COLUMNS = (
    Column("probe", "Probe", "label"),
    Column("num_train", "Training clips", "label", decimals=0),
    Column("chance_percent", "Chance [%]", "counted"),
    Column("classifier", "Best without attention", "label"),
    Column("cheap_best_percent", "top-1 [%]", "measured"),
    Column("needed_percent", "A scheme has to exceed [%]", "counted"),
)


def probes_of(profile: Profile) -> dict[str, ProbeData]:
    """Return the data of all probes in a profile, by name."""
    read = TypeAdapter(ProbeData).validate_python
    old = {name: video_fields(profile, name)["data"] for name in SETTINGS[profile].videos}
    new = {name: data_of(name, skill.registered, 0, profile) for name, skill in skills().probes.items()}
    return {name: read(data) for name, data in {**old, **new}.items()}


def table(results: Path, profile: Profile) -> Table:
    """Return the table from the descriptions in `results/probes`; probes without one are left out."""
    rows: list[dict[str, Any]] = []
    for name in probes_of(profile):
        path = results / "probes" / f"{name}-{profile}.json"
        if not path.is_file():
            continue
        facts = json.loads(path.read_text())
        found = {key: each["top1_percent"] for key, each in facts["cheap_classifiers"].items()}
        best = max(found, key=lambda key: found[key])
        rows.append(
            {
                "probe": name,
                "num_train": facts["parameters"]["num_train"],
                "chance_percent": 100 / len(facts["labels"]),
                "classifier": best.replace("_", " "),
                "cheap_best_percent": found[best],
                "needed_percent": min(100.0, found[best] + GATE_MARGIN_POINTS),
            }
        )
    caption = f"Classifiers without attention on the probes of the profile {profile}"
    return Table(pd.DataFrame(rows), COLUMNS, caption)


def main(profile: Profile, data: Path = Path(".cache"), results: Path = Path("results")) -> None:
    """Describe all probes of a profile and write the table."""
    for name, probe in probes_of(profile).items():
        describe(prepare(probe, data), results / "probes", f"{name}-{profile}", FrameCache(data / "frames"))
        print(name, flush=True)
    found = table(results, profile)
    write_atomic(results / "probes" / f"gate-{profile}.csv", to_csv(found).encode())
    text = f"# Which probes may rank schemes\n\n{found.caption}\n\n{to_markdown(found)}\n"
    write_atomic(results / "probes" / f"gate-{profile}.md", text.encode())


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))  # type: ignore[arg-type]
