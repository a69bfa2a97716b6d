"""Files of `skills` beside its records: classifiers without attention on every probe, and learning curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from timesformer.data.cache import FrameCache
from timesformer.data.probes.diagnostics import cheap_classifiers
from timesformer.errors import InputError
from timesformer.files import write_atomic
from timesformer.parallel import side_by_side
from timesformer_experiments.paper.artefact import Folders
from timesformer_experiments.paper.skills.measured import CHEAP, CURVE
from timesformer_experiments.paper.skills.plan import Cell, cells, followups
from timesformer_experiments.paper.skills.registered import Profile
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.run.inputs import prepare
from timesformer_experiments.specs.run import ProbeData

NAME = "skills"
CHEAP_FILE, CURVES_FILE = "cheap.csv", "curves.csv"
POINTS = 20
"""Points of a learning curve, each a mean over as many steps."""


def measure(
    records: Sequence[dict[str, Any]], profile: Profile, folders: Folders, jobs: int
) -> Sequence[dict[str, Any]]:
    """Write both files into the results; no further records.  What was measured before is read from the data folder."""
    folder = folders.out / NAME / profile
    probes = {(cell.probe, cell.value): cell.spec.data for cell in cells(profile) if cell.seed == 0}
    found = side_by_side(_cheap, [(data, folders.data) for data in probes.values()], jobs)
    rows = [
        {"probe": probe, "value": value, "classifier": name, "measured_top1_percent": percent}
        for (probe, value), percents in zip(probes, found, strict=True)
        for name, percent in percents.items()
    ]
    write_atomic(folder / CHEAP_FILE, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n").encode())
    curves = [row for cell in [*cells(profile), *followups(profile)] for row in _curve(cell, folders.runs)]
    write_atomic(folder / CURVES_FILE, pd.DataFrame(curves).to_csv(index=False, lineterminator="\n").encode())
    return ()


def _cheap(data: ProbeData, place: Path) -> dict[str, float]:
    """Return the accuracies of the classifiers on a probe, by name [percent]."""
    info = prepare(data, place)
    stored = place / "cheap" / f"{info.fingerprint}.json"
    if stored.is_file():
        known: dict[str, float] = json.loads(stored.read_text())
        return known
    results = cheap_classifiers(info, FrameCache(place / "frames"))
    percents = {name: result.top1_percent for name, result in results.items()}
    stored.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(stored, json.dumps(percents).encode())
    return percents


def _curve(cell: Cell, runs: Path) -> list[dict[str, Any]]:
    """Return the learning curve of a run: loss and accuracy on its training batches, each before their step."""
    path = RunFolder(runs, cell.spec.hash()).curve
    if not path.is_file():
        return []
    steps = pd.read_parquet(path, columns=["step", "loss", "accuracy"])
    many = min(POINTS, len(steps))
    means = steps.groupby(steps.index * many // len(steps)).agg({"step": "max", "loss": "mean", "accuracy": "mean"})
    return [
        {
            "run": cell.spec.name,
            "probe": cell.probe,
            "value": cell.value,
            "scheme": cell.scheme,
            "depth": cell.depth,
            "seed": cell.seed,
            "followup": "" if cell.follow is None else "yes",
            "step": int(step) + 1,
            "measured_train_loss": round(float(loss), 4),
            "measured_train_top1_percent": round(100 * float(accuracy), 2),
        }
        for step, loss, accuracy in means.to_numpy(dtype=float)
    ]


def beside(results: Path, profile: Profile) -> list[dict[str, Any]]:
    """Return the rows of both files as entries, none for a file that is not there.

    Raises InputError for a file without its columns.
    """
    folder = results / NAME / profile
    cheap = _rows(folder / CHEAP_FILE, ("probe", "value", "classifier", "measured_top1_percent"))
    curves = _rows(folder / CURVES_FILE, ("probe", "value", "scheme", "depth", "step", "measured_train_top1_percent"))
    return [
        *({"kind": CHEAP, "top1_percent": float(row.pop("measured_top1_percent")), **row} for row in cheap),
        *({"kind": CURVE, **row} for row in curves),
    ]


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    if not path.is_file() or not path.read_text().strip():
        return []
    found = pd.read_csv(path, dtype={"value": str}, keep_default_na=False)
    lacking = [column for column in columns if column not in found]
    if lacking:
        raise InputError(f"{path}: no column {lacking[0]} (expected {', '.join(columns)})")
    return [{str(key): value for key, value in row.items()} for row in found.to_dict(orient="records")]
