"""Tokens of a frozen stem that are kept: the same training as without them, shared by whatever has the same stem."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.experiments.spec_fakes import SIZES, fields, small
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.attention import load_file, registry
from timesformer.errors import InputError
from timesformer.evaluation.evaluate import evaluate
from timesformer.training.stem import StemTokens, _described, sees_frames_apart
from timesformer_experiments.run.inputs import after_stem, datasets
from timesformer_experiments.run.train import run_one
from timesformer_experiments.specs.run import RunSpec

DEEP = SIZES | {"depth": 2, "num_frames": 2, "time_std": 0.5}
STEM = {"schedule": {"0-0": "space"}, "position": "space_time", "time_from": 1}
DATA = fields()["data"] | {"copies": 2, "num_val": 8}


def run(cached: bool, **changes: Any) -> RunSpec:
    recipe = {"steps": 5, "batch_size": 8, "freeze": {"blocks": 1}, "cache_stem": cached, "validate_every": 2}
    model = DEEP | {"attention": "joint", **STEM} | changes.pop("model", {})
    return small(data=DATA, model=model, recipe=recipe | changes.pop("recipe", {}), **changes)


def test_the_same_training_with_and_without(tmp_path: Path) -> None:
    image = TimeSformerConfig(attention="space", num_classes=2, **DEEP | {"num_frames": 1})
    start = str(TimeSformer(image).save_pretrained(tmp_path / "image", preprocessing={}))
    specs = {name: run(name == "kept", name=name, init_from=start) for name in ("kept", "anew")}
    assert specs["kept"].hash() == specs["anew"].hash()
    found = {name: run_one(spec, tmp_path / name, data_dir=tmp_path, progress=False) for name, spec in specs.items()}
    kept, anew = (found[name]["metrics"] for name in ("kept", "anew"))
    curves = [pd.read_parquet(tmp_path / name / spec.hash() / "curve.parquet") for name, spec in specs.items()]
    np.testing.assert_allclose(curves[0]["loss"], curves[1]["loss"], atol=1e-5)
    assert kept["top1_percent"] == anew["top1_percent"]
    assert kept["trained_params"] == anew["trained_params"] < kept["params"]
    assert kept["train_macs_per_clip"] < anew["train_macs_per_clip"]
    assert found["kept"]["validation"] == [
        dict(each) | {"evaluate_seconds": mine["evaluate_seconds"]}
        for each, mine in zip(found["anew"]["validation"], found["kept"]["validation"], strict=True)
    ]
    scores = [pd.read_parquet(tmp_path / name / spec.hash() / "scores.parquet") for name, spec in specs.items()]
    np.testing.assert_allclose(*(np.stack(list(each["scores"])) for each in scores), atol=1e-4)
    stems = sorted(path.name for path in (tmp_path / "stems").glob("*.npy"))
    assert len(stems) == 3  # training, validation, test
    # Another seed and another scheme behind the same stem need no more.
    more = run(True, name="more", seed=1, model={"attention": "divided"}, init_from=start)
    run_one(more, tmp_path / "more", data_dir=tmp_path, progress=False)
    assert sorted(path.name for path in (tmp_path / "stems").glob("*.npy")) == stems


def test_tokens_are_those_of_the_clips(tmp_path: Path) -> None:
    """In every order of frames, for stems with a class token of the clip, of each frame, and with none."""
    for attention, more in (
        ("joint", STEM),
        ("space", {}),
        ("factorised_self_attention", STEM),
        ("factorised_encoder", {}),
    ):
        spec = run(
            True,
            model={
                "attention": attention,
                "registers": 0,
                **(more or {"schedule": None, "position": None, "time_from": 0}),
            },
        )
        train, test, _ = datasets(spec, tmp_path)
        torch.manual_seed(0)
        model = TimeSformer(spec.model).eval()  # type: ignore[arg-type]
        assert sees_frames_apart(model.config, 1)
        tokens = after_stem(spec, model, train, tmp_path, False)
        assert isinstance(tokens, StemTokens)
        keys = [(5, 3), (2, 0)]
        clips, kept = train.__getitems__(keys), tokens.__getitems__(keys)
        assert torch.equal(clips["label"], kept["label"])
        assert torch.equal(train[5, 3]["clip"], train[1, 3]["clip"])  # the second of two copies
        with torch.no_grad():
            expected = model(clips["clip"])
            with model.after_stem(1):
                torch.testing.assert_close(model(kept["clip"]), expected)
        tested = after_stem(spec, model, test, tmp_path, False)
        for order in ("normal", "reversed", "shuffled"):
            plain = evaluate(model, test, "clip", frame_order=order)  # type: ignore[arg-type]
            with model.after_stem(1):
                found = evaluate(model, tested, "clip", frame_order=order)  # type: ignore[arg-type]
            pd.testing.assert_frame_equal(plain.per_video, found.per_video)


def test_a_stem_that_mixes_frames_is_told() -> None:
    sizes = DEEP | {"image_size": 16, "num_classes": 3}
    for attention, more, apart in (
        ("divided", {}, False), ("joint", STEM, True), ("joint", STEM | {"time_from": 0}, False), ("space", {}, True),
    ):  # fmt: skip
        assert sees_frames_apart(TimeSformerConfig(attention=attention, **sizes | more), 1) is apart


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": fields()["data"] | {"num_val": 8}}, "cache_stem: expected data.copies"),
        ({"recipe": {"freeze": ["head.*"]}}, "cache_stem: expected freeze to hold the embedding"),
        ({"recipe": {"freeze": {"blocks": 3}}}, "freeze.blocks: expected at most 2"),
        ({"recipe": {"freeze": ["*"]}}, "freeze: it holds all parameters"),
        ({"processes": 2}, "cache_stem: expected processes: 1"),
    ],
)
def test_runs_that_cannot_keep_tokens(changes: dict[str, Any], said: str) -> None:
    recipe = {"steps": 5, "batch_size": 8, "freeze": {"blocks": 1}, "cache_stem": True} | changes.pop("recipe", {})
    values = {"data": DATA, "model": DEEP | {"attention": "joint", **STEM}, "recipe": recipe} | changes
    with pytest.raises(InputError, match=said):
        small(**values)


RULE = """
from timesformer.attention import Encoder, Everywhere, Scheme, Step, Tiles, Window


def near(reach):
    return lambda query, key, grid: (query[1] - key[1]).abs() <= reach


step = Step("mine", (Tiles(TILE, RULE),), cls="global")
SCHEMES = [Scheme("mine", (Encoder(block=((step,),)),))]
"""


def test_kept_tokens_know_tiles_and_rules_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was changed has other tokens, also where the scheme's name and its functions are the same."""
    for table in ("_added", "_sources", "_files"):
        monkeypatch.setattr(registry, table, {})

    def described(tile: str, rule: str, name: str) -> str:
        for table in (registry._added, registry._sources, registry._files):
            table.clear()
        (tmp_path / name).write_text(RULE.replace("TILE", tile).replace("RULE", rule))
        load_file(tmp_path / name)
        return repr(_described(TimeSformerConfig(attention="mine", **DEEP), 0))

    rules = ["Window((1, 1, 1))", "Window((1, 3, 1)) | Everywhere((2, 2, 2))", "Window((1, 3, 1)) | near(1)"]
    found = [described("(1, 1, 2)", rule, "a.py") for rule in rules] + [described("(1, 2, 2)", rules[0], "a.py")]
    assert len(set(found)) == len(found)
    assert described("(1, 1, 2)", rules[2], "b.py") == found[2]


def test_tokens_of_another_size_are_refused() -> None:
    model = TimeSformer(TimeSformerConfig(attention="joint", num_classes=3, **DEEP)).eval()
    with model.after_stem(1), pytest.raises(InputError, match=r"tokens: expected \(clips, frames, 5, 16\)"):
        model(torch.zeros(1, 2, 3, 16))
    assert model.blocks_done is None


def test_neutral_fields_leave_the_hash() -> None:
    neutral = {"freeze": None, "layer_decay": 1.0, "lr_scale": {}, "cache_stem": False}
    plain = small()
    assert small(recipe={"steps": 4, "batch_size": 8} | neutral).hash() == plain.hash()
    assert small(data=fields()["data"] | {"copies": None}).hash() == plain.hash()
    for more in ({"freeze": ["head.*"]}, {"layer_decay": 0.9}, {"lr_scale": {"head.*": 2}}):
        assert small(recipe={"steps": 4, "batch_size": 8} | more).hash() != plain.hash()
