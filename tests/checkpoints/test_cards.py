"""What a saved model states: nothing invented, a checked preprocessing, and a card."""

import re
from pathlib import Path

import pytest

from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.checkpoints import export, load_model
from timesformer.config.registry import macs_per_view
from timesformer.data import Preprocessing


def test_what_is_not_stated_is_left_out_and_never_invented(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = TimeSformerConfig(image_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=2, num_classes=2)
    with caplog.at_level("WARNING", "timesformer"):
        folder = TimeSformer(config).save_pretrained(tmp_path / "a")
    assert "saved without preprocessing and labels" in caplog.text
    kept = {"README.md", "config.json", "model.safetensors", "provenance.json"}
    assert {path.name for path in folder.iterdir()} == kept
    caplog.clear()
    with caplog.at_level("WARNING", "timesformer"):
        loaded = load_model(folder)
    assert "the record of the released TimeSformer is assumed" in caplog.text
    assert "the checkpoint carries none" in str(loaded.report)
    assert Preprocessing.from_dict(loaded.preprocessing).crop_size == (16, 16)
    for again in (
        loaded.model.save_pretrained(tmp_path / "b"),
        export(loaded, tmp_path / "c", "timesformer-ablations"),
    ):
        assert {path.name for path in again.iterdir()} == kept
    loaded.model.save_pretrained(tmp_path / "b", labels=["no", "yes"], preprocessing={"short_side": 16, "crop": 16})
    loaded.model.save_pretrained(tmp_path / "b")
    assert {path.name for path in (tmp_path / "b").iterdir()} == kept


def test_preprocessing_is_checked_and_may_be_the_record(tmp_path: Path) -> None:
    config = TimeSformerConfig(
        num_frames=2, image_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=2, num_classes=2
    )
    model, labels = TimeSformer(config), ["no", "yes"]
    record = Preprocessing(num_frames=2, short_side=20, crop=16, sampling="dense", frame_rate=4)
    folder = model.save_pretrained(tmp_path / "a", labels=labels, preprocessing=record)
    assert Preprocessing.from_dict(load_model(folder).preprocessing) == record
    folder = model.save_pretrained(tmp_path / "b", labels=labels, preprocessing={"mean": [0.5, 0.5, 0.5]})
    found = Preprocessing.from_dict(load_model(folder).preprocessing)
    assert (found.num_frames, found.short_side, found.crop_size, found.mean) == (2, 16, (16, 16), (0.5, 0.5, 0.5))
    for wrong, said in (
        ({"foo": 1}, "preprocessing: unknown field 'foo'"),
        ({"crop": 32}, "preprocessing: short_side must be at least the crop's shorter side"),
        ({"colour_order": "GBR"}, "preprocessing: colour_order"),
        (["mean"], "preprocessing: expected a Preprocessing record or its fields, got list"),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            model.save_pretrained(tmp_path / "c", labels=labels, preprocessing=wrong)
    with pytest.raises(InputError, match="labels: expected 2 names"):
        model.save_pretrained(tmp_path / "c", labels=["one"])
    assert not (tmp_path / "c").exists()


def test_the_card_says_what_the_model_is(tmp_path: Path) -> None:
    config = TimeSformerConfig(image_size=(16, 32), patch_size=8, embed_dim=24, depth=1, num_heads=2, num_classes=2)
    model = TimeSformer(config)
    provenance = {
        "name": "mine *bold*",
        "hash": "0123456789abcdef",
        "definition": {"data": {"probe": "motion"}, "recipe": {"optimiser": "sgd", "lr": 0.1, "steps": 3}, "seed": 4},
        "licence": "CC-BY-NC-4.0",
    }
    folder = model.save_pretrained(
        tmp_path / "m", labels=["no", "<b>"], preprocessing=Preprocessing(), provenance=provenance
    )
    card = (folder / "README.md").read_text()
    params = sum(parameter.numel() for parameter in model.parameters())
    for said in (
        "# mine \\*bold\\*",
        "license: cc-by-nc-4.0",
        "attention scheme `divided`",
        "time, space",
        "8 frames of 16 x 32 pixels (height x width)",
        f"{params:,} parameters; {macs_per_view(config) / 1e9:,.3g} G multiply-accumulates for one view",
        "- short_side: 224",
        "2: no, \\<b\\>.",
        "the synthetic probe `motion`",
        "sgd, learning rate 0.1, 3 steps",
        "CC-BY-NC-4.0 (of the weights that it started from)",
        'load_model("this/folder")',
    ):
        assert said in card, said
    (folder / "README.md").write_text("my own words")
    model.save_pretrained(folder, labels=["no", "yes"], preprocessing=Preprocessing())
    assert (folder / "README.md").read_text() == "my own words"
    bare = (TimeSformer(config).save_pretrained(tmp_path / "bare") / "README.md").read_text()
    assert "2; their names are not stated." in bare
    assert bare.count("Not stated") == 3
