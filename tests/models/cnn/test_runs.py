"""Baselines in the ordinary loop: a probe from stills to clips, its record, an exact resume; their cost by command."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset
from typer.testing import CliRunner

from tests.models.cnn.test_networks import small
from timesformer.checkpoints import load_any_model
from timesformer.models.cnn import build
from timesformer.training.loop import fit
from timesformer.training.recipe import Recipe
from timesformer_experiments.cli.main import app
from timesformer_experiments.run.train import run_one
from timesformer_experiments.specs.cost import CostSpec
from timesformer_experiments.specs.run import RunSpec

MODEL = {"image_size": 32, "width": 8, "blocks": [1, 1, 1, 1], "beta": 0.25}
RECIPE = {"steps": 2, "batch_size": 4, "lr": 1e-3}


class Brightness(Dataset[dict[str, Any]]):
    """Two classes: dark and bright clips."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        noise = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1000 * epoch + index))
        return {"clip": noise + 2.0 * (index % 2) - 1.0, "label": index % 2, "index": index}


class Stopped(Exception):
    """A test stops a run."""


@pytest.mark.parametrize("baseline", ["i3d", "slowfast"])
def test_a_probe_from_stills_to_clips(baseline: str, tmp_path: Path) -> None:
    data = {"probe": "appearance", "num_train": 8, "num_test": 8}
    image = {
        "name": "image",
        "data": {**data, "stills": True},
        "model": {**MODEL, "baseline": "c2d", "num_frames": 1},
        "recipe": RECIPE,
    }
    values = {"name": baseline, "data": data, "recipe": RECIPE, "init_from": image}
    spec = RunSpec.parse({**values, "model": {**MODEL, "baseline": baseline}})
    record = run_one(spec, tmp_path / "runs", progress=False)
    assert record["outcome"] == "done"
    assert (record["spec"]["model"]["baseline"], record["metrics"]["test_videos"]) == (baseline, 8)
    loaded = load_any_model(tmp_path / "runs" / spec.hash() / "model")
    assert loaded.model.config == spec.model
    weights = loaded.provenance["started_from"]["weights"]
    assert weights["inflated"] > 0
    assert weights["copied"] > 0
    assert CostSpec.of(spec).model == spec.model
    assert spec.hash() != RunSpec.parse({**values, "model": {**MODEL, "baseline": baseline, "drop_rate": 0.0}}).hash()


@pytest.mark.parametrize("baseline", ["i3d", "slowfast"])
def test_a_stopped_run_resumes_exactly(baseline: str, tmp_path: Path) -> None:
    recipe = Recipe(steps=6, batch_size=4, lr=1e-3, checkpoint_every=2)

    def stop(done: int, steps: int, loss: float) -> None:
        if done == 4:
            raise Stopped

    def fresh() -> Any:
        torch.manual_seed(0)
        return build(small(baseline, num_frames=4, image_size=16, num_classes=2))

    whole, stopped, resumed = fresh(), fresh(), fresh()
    fit(whole, Brightness(), recipe, tmp_path / "whole", progress=False)
    with pytest.raises(Stopped):
        fit(stopped, Brightness(), recipe, tmp_path / "parts", progress=stop)
    result = fit(resumed, Brightness(), recipe, tmp_path / "parts", progress=False)
    assert result.resumed_from == 2
    for (name, ours), theirs in zip(resumed.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_they_learn(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(small("i3d", num_frames=4, image_size=16, num_classes=2, drop_rate=0.0))
    result = fit(model, Brightness(), Recipe(steps=20, batch_size=8, lr=3e-3), tmp_path, progress=False)
    assert result.train_top1_percent > 90


def test_costs_on_the_command_line() -> None:
    sizes = ["--num-frames", "4", "--image-size", "16", "--num-classes", "7", "--json"]
    found = CliRunner().invoke(app, ["cost", "--baseline", "i3d", *sizes])
    assert found.exit_code == 0, found.output
    counted = json.loads(found.stdout)
    assert counted["macs_fvcore"] == counted["macs_per_view"]
    assert counted["comparisons_per_patch"] is None
    assert counted["params"] == 28_043_472 - 393 * (4 * 512 + 1)  # 7 classes instead of 400
    both = CliRunner().invoke(app, ["cost", "--baseline", "i3d", "--attention", "divided"])
    assert both.exit_code == 2


def test_the_number_of_processes_is_part_of_what_defines_a_run_with_batch_norm() -> None:
    values = {"name": "a", "data": {"probe": "motion", "num_train": 8, "num_test": 8}, "recipe": RECIPE}
    cnn, vit = {"baseline": "i3d", **MODEL, "drop_rate": 0.0}, {"attention": "space", "image_size": 32}
    for model, differs in ((cnn, True), (vit, False)):
        one, two = (RunSpec.parse({**values, "model": model, "processes": processes}) for processes in (1, 2))
        assert (one.hash() != two.hash()) == differs
