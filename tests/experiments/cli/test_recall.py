"""Recall of a joint model in other neighbourhoods, and the same weights evaluated with another scheme."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.attention import build
from timesformer.data.probes import make_probe
from timesformer.maps.recall import attention_recall
from timesformer_experiments.cli.main import app

SMALL: dict[str, Any] = {
    "num_frames": 4,
    "image_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "num_heads": 2,
    "depth": 2,
    "num_classes": 8,
}
EVERYTHING = ("--attention", "sliding_tile", "--option", "window=9,9,9")


def joint(**fields: Any) -> TimeSformer:
    torch.manual_seed(0)
    model = TimeSformer(TimeSformerConfig(**{"attention": "joint", **SMALL, **fields})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def run(*line: str) -> Any:
    result = CliRunner().invoke(app, [*line, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", ["divided", "sliding_tile(tile=[1,2,2],window=[3,1,1])", "swin(window=[2,2,2])"])
def test_recall_is_the_sum_of_the_declared_weights(name: str) -> None:
    model, clip, scheme = joint(), torch.randn(2, 4, 3, 32, 32), build(name)
    found = {(each.layer, each.neighbourhood): each for each in attention_recall(model, clip, scheme)}
    queries = [(t, h, w) for t in range(4) for h in range(4) for w in range(4)]
    for layer in range(2):
        weights, on_class = rows(model, clip, layer)
        for step in scheme.encoders[0].at(layer).steps:
            seen = torch.stack([step.over[0].visible(query, (4, 4, 4)).flatten() for query in queries])
            share = (weights * seen).sum(-1) + on_class * (step.cls != "absent")
            mine = found[layer, step.name]
            torch.testing.assert_close(torch.tensor(mine.recall_by_head), share.mean((0, 2)), rtol=1e-5, atol=1e-6)
            assert mine.recall == pytest.approx(float(share.mean()), rel=1e-5)
            assert mine.density == pytest.approx(float(seen.double().mean()))
    assert len(found) == sum(len(scheme.encoders[0].at(layer).steps) for layer in range(2))


def rows(model: TimeSformer, clip: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of every patch on the patches (clip, head, query, key), and on class token and registers together."""
    from timesformer.maps.capture import Call, run, sites, watching

    found: list[torch.Tensor] = []

    def visit(call: Call) -> None:
        found.append(call.operator().numbered_rows(torch.arange(64)))

    with watching([site for site in sites(model) if site.layer == layer], visit):
        run(model, clip)
    return found[0][..., :64], found[0][..., 64:].sum(-1)


@pytest.mark.parametrize("name", ["swin(window=[2,2,2])", "sliding_tile(tile=[1,2,2],window=[3,1,1])", "divided"])
def test_registers_are_kept_with_the_class_token(name: str) -> None:
    model, clip, scheme = joint(registers=3, position="rope"), torch.randn(1, 4, 3, 32, 32), build(name)
    weights, beside = rows(model, clip, 0)
    for each in attention_recall(model, clip, scheme)[: len(scheme.encoders[0].steps)]:
        step = next(step for step in scheme.encoders[0].at(0).steps if step.name == each.neighbourhood)
        places = [(t, h, w) for t in range(4) for h in range(4) for w in range(4)]
        seen = torch.stack([step.over[0].visible(place, (4, 4, 4)).flatten() for place in places])
        share = (weights * seen).sum(-1) + beside * (step.cls != "absent")
        assert each.layer > 0 or each.recall == pytest.approx(float(share.mean()), rel=1e-5)


def test_a_neighbourhood_of_everything_keeps_everything() -> None:
    model, clip = joint(), torch.randn(1, 4, 3, 32, 32)
    for name in ("joint", "sliding_tile(window=[9,9,9])", "local_global_fixed"):
        found = attention_recall(model, clip, build(name))
        whole = [each for each in found if each.neighbourhood != "global" and each.density == 1]
        assert all(each.recall == pytest.approx(1) for each in whole)
        assert bool(whole) == (name != "local_global_fixed")


@pytest.mark.parametrize(
    ("attention", "scheme", "message"),
    [
        ("joint", "trajectory", "a mixer"),
        ("joint", "factorised_encoder", "one encoder"),
        ("space", "joint", "streams of their own"),
    ],
)
def test_refusals(attention: str, scheme: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        attention_recall(joint(attention=attention), torch.randn(1, 4, 3, 32, 32), build(scheme))


@pytest.mark.integration
def test_commands(tmp_path: Path) -> None:
    probe = make_probe("motion", tmp_path / "probe", num_train=2, num_test=4)
    folder = joint().save_pretrained(tmp_path / "model")
    videos = [str(path) for path in sorted(probe.folder.rglob("*.mp4"))[:2]]
    found = run("recall", *videos, "--checkpoint", str(folder), "--attention", "divided")
    assert [(each["layer"], each["step"], each["neighbourhood"]) for each in found["recall"]] == [
        (layer, "joint", step) for layer in (0, 1) for step in ("time", "space")
    ]
    for each in found["recall"]:
        assert 0 < each["recall"] < 1
        assert each["recall"] == pytest.approx(sum(each["recall_by_head"]) / 2)
    alone = [run("recall", video, "--checkpoint", str(folder), "--attention", "divided")["recall"] for video in videos]
    for together, *single in zip(found["recall"], *alone, strict=True):
        assert together["recall"] == pytest.approx(sum(each["recall"] for each in single) / 2)
    shown = CliRunner().invoke(
        app, ["recall", videos[0], "--checkpoint", str(folder), *EVERYTHING], env={"COLUMNS": "200"}
    )
    assert "Pairs kept" in shown.output

    data = [str(probe.test_csv), "--checkpoint", str(folder), "--protocol", "clip", "--classes", "number"]
    scores: list[Path] = []
    for more in ((), EVERYTHING, ("--attention", "sliding_tile", "--option", "tile=1,1,1", "--option", "window=1,1,1")):
        path = tmp_path / f"{len(scores)}.csv"
        run("evaluate", *data, "--scores", str(path), *more)
        scores.append(path)
    numbers = [[value for row in pd.read_csv(path)["scores"] for value in json.loads(row)] for path in scores]
    assert numbers[1] == pytest.approx(numbers[0], rel=1e-4, abs=1e-5)
    assert numbers[2] != pytest.approx(numbers[0], rel=1e-3)
    own = tmp_path / "rule.py"
    own.write_text(
        "from timesformer.attention import Encoder, Scheme, Step, Tiles\n"
        "step = Step('tiles', (Tiles((2, 2, 2)),), cls='global')\n"
        "SCHEMES = [Scheme('every_tile_of_recall', (Encoder(block=((step,),)),))]\n"
    )
    mine = ("--attention", "every_tile_of_recall", "--scheme-file", str(own))
    run("evaluate", *data, "--scores", str(tmp_path / "own.csv"), *mine)
    values = [value for row in pd.read_csv(tmp_path / "own.csv")["scores"] for value in json.loads(row)]
    assert values == pytest.approx(numbers[0], rel=1e-4, abs=1e-5)
    twice = CliRunner().invoke(app, ["evaluate", *data, *EVERYTHING, "--option", "window=1,1,1"])
    assert twice.exit_code == 2
    assert "window is given twice" in twice.output
    refused = CliRunner().invoke(app, ["evaluate", *data, "--attention", "trajectory"])
    assert refused.exit_code == 2
    assert "expected a scheme with the projections of" in refused.output
