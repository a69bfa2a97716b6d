"""Choose recipes from finished sweeps on validation data.

    python -m timesformer_experiments.paper.choose runs/skills-match runs/table1-appearance …

Each folder is that of `timesformer sweep` with a file of `experiments/sweeps/skills` or `experiments/sweeps/table1`.
For every scheme the draw that is best on validation is taken, of equal ones the earlier.  The recipes go to
`skills_recipes.yaml` or `table1_recipes.yaml`, with what the sweep gives all schemes; draws and their learning curves
go to the folder `tuning` of the results.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from timesformer.errors import InputError
from timesformer.files import write_atomic
from timesformer_experiments.paper import tuned
from timesformer_experiments.paper.recipes import read_recipes
from timesformer_experiments.paper.skills import recipes as skills_recipes
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.records.log import read_records
from timesformer_experiments.specs.sweep import Sweep, load_sweep

SCHEME = "model.attention"
OF_THE_PROBE = ("attention", "depth", "num_frames", "image_size", "patch_size", "class_token", "temporal_fc")
"""Fields of the model that are settled beforehand."""
POINTS = 12
HEAD = """\
# Recipes of `timesformer reproduce {artefact}`, chosen on validation videos by the sweeps in
# experiments/sweeps/{sweeps} and written by `python -m timesformer_experiments.paper.choose`; the draws are in
# results/{artefact}/tuning.
"""


@dataclass(frozen=True)
class Place:
    """Where the recipes of an artefact and the draws that they were chosen from are kept."""

    artefact: str
    recipes: Path
    tuning: Path


PLACES = {
    "skills": Place("skills", skills_recipes.RECIPES, Path("results/skills/tuning")),
    "table1": Place("table1_tuned", tuned.RECIPES, Path("results/table1_tuned/tuning")),
}
"""By the first word of a sweep's name."""


def choose(folders: list[Path], places: Mapping[str, Place] = PLACES) -> None:
    """Write the recipes of the probes of these sweeps, beside those of others, and what they were chosen from.

    Raises InputError for a sweep that is not finished, that was evaluated on the test set, or that has another name.
    """
    for folder in folders:
        sweep = load_sweep(folder / "sweep.yaml")
        word = sweep.name.split("-")[0]
        if word not in places:
            raise InputError(f"{folder}: sweep {sweep.name!r}: expected a name that begins with {' or '.join(places)}")
        place, probe = places[word], str(sweep.base["data"]["probe"])
        kept = read_recipes(place.recipes).model_dump(mode="json", exclude_defaults=True)
        found: dict[str, Any] = {
            name: {scheme: {**each["fields"], "selection": each["selection"]} for scheme, each in schemes.items()}
            for name, schemes in kept.items()
        }
        draws = _draws(folder, sweep)
        found[probe] = {
            str(scheme): _recipe(sweep, table.reset_index(drop=True))
            for scheme, table in draws.groupby(SCHEME, sort=False)
        }
        place.tuning.mkdir(parents=True, exist_ok=True)
        write_atomic(place.tuning / f"{probe}.csv", draws.to_csv(index=False, lineterminator="\n").encode())
        text = yaml.safe_dump(found, sort_keys=False, default_flow_style=None, width=120)
        head = HEAD.format(artefact=place.artefact, sweeps=word)
        write_atomic(place.recipes, (head + text).encode())


def _draws(folder: Path, sweep: Sweep) -> pd.DataFrame:
    """Return a row for each draw of a sweep, in its order; `curve` is the accuracy in training over the steps."""
    records = {record["hash"]: record for record in read_records(folder / "records.jsonl")}
    rows = []
    for key, job in sweep.jobs(folder / "sweep.yaml", folder).items():
        if job.cell is None:  # a model that draws start from
            continue
        record = records.get(key)
        if record is None or (record["outcome"] != "done" and record["reason_kind"] != "diverged"):
            raise InputError(f"{folder}: {job.name} is not finished; expected a record of every cell")
        if record["outcome"] == "done" and record["evaluated_on"] != "validation":
            raise InputError(f"{folder}: {job.name} was evaluated on the test set; expected evaluate_on: validation")
        metrics = record["metrics"] if record["outcome"] == "done" else {}
        rows.append(
            {
                **record["cell"],
                "hash": key,
                "outcome": record["outcome"],
                "validation_percent": metrics.get("top1_percent"),
                "train_percent": metrics.get("train_top1_percent"),
                "core_seconds": metrics.get("train_seconds"),
                "curve_percent": _curve(RunFolder(folder, key).curve),
            }
        )
    return pd.DataFrame(rows).round({"validation_percent": 2, "train_percent": 2, "core_seconds": 2})


def _curve(path: Path) -> str:
    """Return the accuracy in training, means over equal stretches [percent]."""
    if not path.is_file():
        return ""
    accuracy = pd.read_parquet(path, columns=["accuracy"])["accuracy"]
    many = min(POINTS, len(accuracy))
    return " ".join(f"{100 * mean:.0f}" for mean in accuracy.groupby(accuracy.index * many // len(accuracy)).mean())


def _recipe(sweep: Sweep, draws: pd.DataFrame) -> dict[str, Any]:
    """Return the fields of the best draw, with those that all schemes share, and how it was chosen."""
    best = draws.iloc[int(draws["validation_percent"].fillna(-1).to_numpy().argmax())]
    over = {path: list(values) for path, values in sweep.axes.items() if path != SCHEME}
    shared = {
        f"{part}.{name}": value
        for part in ("model", "recipe")
        for name, value in sweep.base[part].items()
        if name not in OF_THE_PROBE
    }
    return {
        **shared,
        **{path: best[path].item() if hasattr(best[path], "item") else best[path] for path in over},
        "selection": {
            "on": "validation",
            "search": "grid",
            "draws": len(draws),
            "seed": int(sweep.base["seed"]),
            "budget": f"{sweep.base['recipe']['steps']} steps of {sweep.base['recipe']['batch_size']} clips a draw",
            "validation_percent": float(best["validation_percent"]),
            "core_seconds": float(best["core_seconds"]),
            "over": over,
        },
    }


if __name__ == "__main__":
    choose([Path(name) for name in sys.argv[1:]])
