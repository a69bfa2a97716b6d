"""Recipes of skills are chosen from sweeps on validation data: the best draw of each scheme, and nothing of the test
set."""

import json
from pathlib import Path

import pandas as pd
import pytest

from timesformer import InputError
from timesformer_experiments.paper.choose import SCHEME, Place, choose
from timesformer_experiments.paper.recipes import read_recipes
from timesformer_experiments.paper.skills.recipes import recipes
from timesformer_experiments.paper.skills.registered import skills
from timesformer_experiments.specs.sweep import load_sweep

ROOT = Path(__file__).parents[4]
SWEEPS = ROOT / "experiments" / "sweeps" / "skills"
TUNING = ROOT / "results" / "skills" / "tuning"
FILE = """\
name: skills-few
base:
  data: {probe: match, num_train: 8, num_test: 8, num_val: 8}
  model: {num_frames: 2, image_size: 32, patch_size: 8, embed_dim: 8, num_heads: 2, depth: 2}
  recipe: {steps: 3, batch_size: 4}
  evaluate_on: validation
  seed: 7
axes: {model.attention: [joint, space], recipe.lr: [0.001, 0.002, 0.003]}
measure: [accuracy]
"""
PERCENTS = {
    ("joint", 0.001): 40.0,
    ("joint", 0.002): 90.0,
    ("joint", 0.003): 90.0,
    ("space", 0.001): 30.0,
    ("space", 0.002): 20.0,
}


def swept(folder: Path, on: str = "validation") -> Path:
    """A sweep's folder with records; the last draw of `space` has diverged."""
    folder.mkdir()
    (folder / "sweep.yaml").write_text(FILE)
    lines = []
    for key, job in load_sweep(folder / "sweep.yaml").jobs(folder / "sweep.yaml", folder).items():
        assert job.cell is not None
        values = {path: job.cell[path] for path in (SCHEME, "recipe.lr")}
        percent = PERCENTS.get(tuple(values.values()))
        record = {"hash": key, "cell": values, "outcome": "done", "reason_kind": None, "evaluated_on": on}
        record["metrics"] = {"top1_percent": percent, "train_top1_percent": 50.0, "train_seconds": 1.5}
        if percent is None:
            record |= {"outcome": "failed", "reason_kind": "diverged", "metrics": {}}
        lines.append(json.dumps(record))
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_the_best_draw_on_validation_becomes_a_schemes_recipe(tmp_path: Path) -> None:
    folder, file = swept(tmp_path / "few"), tmp_path / "recipes.yaml"
    file.write_text(
        "bind: {joint: {recipe.lr: 0.5, selection: {on: validation, search: grid, draws: 1, seed: 0, budget: x, "
        "validation_percent: 60.0, core_seconds: 2.0}}}\n"
    )
    choose([folder], {"skills": Place("skills", file, tmp_path / "tuning")})
    found = read_recipes(file).root
    assert found["bind"]["joint"].fields == {"recipe.lr": 0.5}
    assert {scheme: each.fields["recipe.lr"] for scheme, each in found["match"].items()} == {
        "joint": 0.002,
        "space": 0.001,
    }
    joint = found["match"]["joint"]
    assert joint.fields["model.embed_dim"] == 8
    assert joint.fields["recipe.steps"] == 3
    assert not {"model.attention", "model.depth", "model.num_frames"} & set(joint.fields)
    assert (joint.selection.draws, joint.selection.seed, joint.selection.validation_percent) == (3, 7, 90.0)
    assert len(pd.read_csv(tmp_path / "tuning" / "match.csv")) == 6


def test_unfinished_sweeps_and_the_test_set_are_refused(tmp_path: Path) -> None:
    places = {"skills": Place("skills", tmp_path / "recipes.yaml", tmp_path / "tuning")}
    tested = swept(tmp_path / "tested", on="test")
    with pytest.raises(InputError, match="was evaluated on the test set; expected evaluate_on: validation"):
        choose([tested], places)
    short = swept(tmp_path / "short")
    lines = (short / "records.jsonl").read_text().splitlines()
    (short / "records.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(InputError, match="is not finished; expected a record of every cell"):
        choose([short], places)
    with pytest.raises(InputError, match="sweep 'skills-few': expected a name that begins with table1"):
        choose([tested], {"table1": places["skills"]})


@pytest.mark.parametrize("probe", [name for name in skills().probes if name in recipes().root])
def test_committed_recipes_are_the_best_of_the_committed_draws(probe: str) -> None:
    """Of as many draws for every scheme, from the committed sweep, whose videos are those of the registered value."""
    sweep = load_sweep(SWEEPS / f"{probe}.yaml")
    draws = pd.read_csv(TUNING / f"{probe}.csv")
    assert set(draws["hash"]) == set(sweep.jobs())
    chosen = recipes().root[probe]
    assert list(chosen) == list(skills().schemes)
    for scheme, recipe in chosen.items():
        table = draws[draws[SCHEME] == scheme].reset_index(drop=True)
        best = table.loc[table["validation_percent"].idxmax()]
        assert recipe.fields["recipe.lr"] == best["recipe.lr"]
        assert recipe.selection.validation_percent == pytest.approx(best["validation_percent"])
        assert recipe.selection.draws == len(table) == len(draws) // len(chosen)
    skill = skills().probes[probe]
    varied = {} if skill.within == "clips" else {skill.dial: skill.registered}
    own = {name: sweep.base["data"][name] for name in ("seed", "num_test")}
    assert sweep.base["data"] == {"probe": probe, **skill.data, **varied, **own}
    assert own["seed"] not in range(skills().data_seed, skills().data_seed + skills().seeds["full"])
    assert sweep.base["evaluate_on"] == "validation"
