"""The gate's table: how far classifiers without attention get on every probe, old and new.

    python -m timesformer_experiments.paper.skills.gated quick [DATA [RESULTS]]

Describes the older probes of the profile in `results/probes`, each with a contact sheet, and sums up in
`gate-quick.csv` and `.md`.  The six probes of who must meet whom are taken from the records of `skills`, at the
registered value of their dial.  DATA is the folder of probes and decoded frames, by default `.cache`; without it,
nothing is described, and the table is of what is there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from pydantic import TypeAdapter

from timesformer.data.cache import FrameCache
from timesformer.data.probes import LABELS
from timesformer.data.probes.diagnostics import CHEAP, GATE_MARGIN_POINTS
from timesformer.files import write_atomic
from timesformer_experiments.paper.probes import SEEN, describe
from timesformer_experiments.paper.setting import SETTINGS, video_fields
from timesformer_experiments.paper.skills.beside import CHEAP_FILE
from timesformer_experiments.paper.skills.registered import Profile, skills
from timesformer_experiments.report.tables import Column, Table, to_csv, to_markdown
from timesformer_experiments.run.inputs import prepare
from timesformer_experiments.specs.run import ProbeData

COLUMNS = (
    Column("probe", "Probe", "label"),
    Column("sees", "Classifiers see", "label"),
    Column("num_train", "Training clips", "label", decimals=0),
    Column("chance_percent", "Chance [%]", "counted"),
    Column("classifier", "Best without attention", "label"),
    Column("cheap_best_percent", "top-1 [%]", "measured"),
    Column("needed_percent", "A scheme has to exceed [%]", "counted"),
)


def older(profile: Profile) -> dict[str, ProbeData]:
    """Return the data of the probes of other tables, by name."""
    read = TypeAdapter(ProbeData).validate_python
    return {name: read(video_fields(profile, name)["data"]) for name in SETTINGS[profile].videos}


def table(results: Path, profile: Profile) -> tuple[Table, list[str]]:
    """Return the table, and the names of the probes of which nothing is known."""
    known = {name: found for name in older(profile) if (found := _described(results, name, profile))}
    stored = results / "skills" / profile / CHEAP_FILE
    if stored.is_file():
        cheap = pd.read_csv(stored, dtype={"value": str})
        for name, skill in skills().probes.items():
            own = cheap[(cheap["probe"] == name) & (cheap["value"] == str(skill.registered))]
            if len(own):
                percents = dict(zip(own["classifier"], own["measured_top1_percent"], strict=True))
                known[name] = (SEEN, int(skill.data["num_train"]), percents)
    rows: list[dict[str, Any]] = []
    for name, (sees, num_train, percents) in known.items():
        best = max(percents, key=lambda key: percents[key])
        rows.append(
            {
                "probe": name,
                "sees": sees,
                "num_train": num_train,
                "chance_percent": 100 / len(LABELS[name]),
                "classifier": best.replace("_", " "),
                "cheap_best_percent": percents[best],
                "needed_percent": min(100.0, percents[best] + GATE_MARGIN_POINTS),
            }
        )
    caption = f"Classifiers without attention on the probes of the profile {profile}"
    return Table(pd.DataFrame(rows), COLUMNS, caption), [name for name in LABELS if name not in known]


def _described(results: Path, name: str, profile: Profile) -> tuple[str, int, dict[str, float]] | None:
    """Return what the classifiers see, training clips and accuracies from a description with all classifiers."""
    path = results / "probes" / f"{name}-{profile}.json"
    facts = json.loads(path.read_text()) if path.is_file() else {}
    found = {key: float(each["top1_percent"]) for key, each in facts.get("cheap_classifiers", {}).items()}
    if set(found) != set(CHEAP):
        return None
    return facts.get("cheap_sees", "brightness alone"), int(facts["parameters"]["num_train"]), found


def main(
    profile: Annotated[Profile, typer.Argument()],
    data: Annotated[Path | None, typer.Argument()] = None,
    results: Annotated[Path, typer.Argument()] = Path("results"),
) -> None:
    """Write the table; with a data folder, describe the older probes first."""
    if data is not None:
        for name, probe in older(profile).items():
            describe(prepare(probe, data), results / "probes", f"{name}-{profile}", FrameCache(data / "frames"))
    found, unknown = table(results, profile)
    write_atomic(results / "probes" / f"gate-{profile}.csv", to_csv(found).encode())
    text = f"# Which probes may rank schemes\n\n{found.caption}\n\n{to_markdown(found)}\n"
    if unknown:
        text += f"Not known in this profile: {', '.join(unknown)}.\n"
    write_atomic(results / "probes" / f"gate-{profile}.md", text.encode())


if __name__ == "__main__":
    typer.run(main)
