"""Models that are built otherwise than their checkpoint says, and what travels with a model."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from transformers import TimesformerConfig, TimesformerForVideoClassification

from tests.checkpoints.fakes import fair_state, write_fair
from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.checkpoints import LoadedModel, export, load_model, save_model, transfer
from timesformer.checkpoints.formats.hf_files import preprocessing_of_processor, processor_of_preprocessing
from timesformer.checkpoints.published import preprocessing_of
from timesformer.data import Preprocessing
from timesformer.positions import resize_space, resize_table, resize_time

DIVIDED = "divided_space_time"


@pytest.fixture
def released(tmp_path: Path) -> Path:
    torch.manual_seed(2)
    return write_fair(tmp_path / "x.pyth", fair_state(), DIVIDED)


def test_the_released_rules_of_resizing_by_hand() -> None:
    rows = torch.arange(4.0)[:, None]
    assert resize_space(rows, (2, 2), (4, 4), "fair-load")[..., 0].tolist() == [[r] * 4 for r in range(4)]
    assert resize_space(rows, (2, 2), (4, 4), "fair-forward")[..., 0].tolist() == [
        [0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3],
    ]  # fmt: skip
    assert resize_space(rows, (2, 2), (1, 8), "fair-load")[..., 0].tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]
    assert resize_space(rows, (2, 2), (2, 4), "fair-forward")[..., 0].tolist() == [[0, 0, 1, 1], [2, 2, 3, 3]]
    assert resize_time(rows, 6, "fair-load")[:, 0].tolist() == [0, 0, 1, 2, 2, 3]
    assert resize_time(rows, 2, "fair-forward")[:, 0].tolist() == [0, 2]
    assert resize_time(rows, 8)[:, 0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    table = resize_table(torch.arange(8.0)[:, None], (2, 2, 2), (4, 2, 4), "fair-load")[..., 0]
    assert table[:, 0, 0].tolist() == [0, 0, 4, 4]
    assert table[3].tolist() == [[4, 4, 5, 5], [6, 6, 7, 7]]
    for rule in ("bicubic", "fair-load", "fair-forward"):
        assert resize_space(rows, (2, 2), (2, 2), rule)[..., 0].tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize("rule", ["bicubic", "fair-load", "fair-forward"])
def test_a_rectangular_model_of_another_length(rule: Any, released: Path) -> None:
    loaded = load_model(released, num_frames=6, image_size=(24, 48), position_resize=rule)
    assert loaded.model.config.height_width == (24, 48)
    assert sorted(loaded.report.resized) == ["encoders.0.positions.space", "encoders.0.positions.time"]
    assert f"(4x4x4 -> 6x3x6 tokens, {rule})" in str(loaded.report)
    source = load_model(released).model.state_dict()
    state = loaded.model.state_dict()
    old, new = source["encoders.0.positions.space"], state["encoders.0.positions.space"]
    assert torch.equal(new[0], old[0])  # the class token's row stays
    assert torch.equal(new[1:].unflatten(0, (3, 6)), resize_space(old[1:], (4, 4), (3, 6), rule))
    time = "encoders.0.positions.time"
    assert torch.equal(state[time], resize_time(source[time], 6, rule))
    assert loaded.model(torch.randn(1, 6, 3, 24, 48)).shape == (1, 5)
    record = Preprocessing.from_dict(loaded.preprocessing)
    assert (record.num_frames, record.crop_size, record.short_side) == (6, (24, 48), 24)


def test_bicubic_is_what_the_model_does_with_clips_of_that_size(released: Path) -> None:
    clip = torch.randn(1, 8, 3, 16, 48)
    with torch.no_grad():
        baked = load_model(released, num_frames=8, image_size=(16, 48)).model(clip)
        torch.testing.assert_close(baked, load_model(released).model(clip), atol=1e-5, rtol=0)


def test_overrides(released: Path) -> None:
    joint = load_model(released, attention="joint", num_classes=3, backend="reference", drop_path_rate=0.3)
    config = joint.model.config
    assert (config.attention, config.num_classes, config.backend, config.drop_path_rate) == (
        "joint",
        3,
        "reference",
        0.3,
    )
    ours, source = joint.model.state_dict(), load_model(released).model.state_dict()
    name = "encoders.0.blocks.0.steps.{}.qkv.weight"
    assert torch.equal(ours[name.format("joint")], source[name.format("space")])  # an image model's step
    assert {"head.weight", name.format("time")} <= set(joint.report.left_out)
    assert "(another number of classes)" in str(joint.report)
    assert "(the new scheme has no such step)" in str(joint.report)
    assert joint.labels == ["class 0", "class 1", "class 2"]
    assert joint.provenance["overrides"]["attention"] == "joint"
    with pytest.raises(InputError, match="unknown option 'frames'; expected fields of a configuration"):
        load_model(released, frames=3)
    with pytest.raises(InputError, match="patch_size is 8 there and 16 here"):
        load_model(released, patch_size=16)
    with pytest.raises(InputError, match="num_frames"):
        load_model(released, num_frames=0)
    with pytest.raises(InputError, match="position_resize: expected one of"):
        load_model(released, position_resize="nearest")  # type: ignore[arg-type]


def test_other_heads_of_the_same_size_are_other_classes(released: Path) -> None:
    loaded = load_model(released, num_classes=(2, 3))
    assert {"head.weight", "head.bias"} <= set(loaded.report.left_out)
    assert {"head.weight", "head.bias"} <= set(loaded.report.initialised)


@pytest.mark.parametrize("attention", ["axial", "local_global", "divided_st"])
def test_a_released_file_starts_any_scheme(attention: str, released: Path) -> None:
    config = load_model(released).model.config
    model = TimeSformer(TimeSformerConfig(**config.to_dict() | {"attention": attention, "num_classes": 7}))
    report = transfer(model, released)
    assert report.licence == "CC-BY-NC-4.0"
    assert set(report.copied + report.inflated + report.resized + report.initialised) == set(model.state_dict())
    assert all(name.startswith("head.") or ".fc." in name for name in report.initialised)


def test_fewer_blocks_are_the_first_ones(released: Path) -> None:
    whole, part = load_model(released), load_model(released, depth=1)
    assert whole.model.config.depth == 2
    weights = whole.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in part.model.state_dict().items())
    assert part.report.reasons["encoders.0.blocks.1.mlp.fc1.weight"] == "the new model has 1 blocks"
    with pytest.raises(InputError, match="depth is 2 there and 3 here"):
        load_model(released, depth=3)


def test_the_temporal_encoders_table_follows_the_number_of_frames(tmp_path: Path) -> None:
    config = TimeSformerConfig(
        attention="factorised_encoder", num_frames=8, tubelet_size=2, image_size=16, patch_size=8,
        embed_dim=16, depth=1, temporal_depth=1, num_heads=2, num_classes=3,
    )  # fmt: skip
    folder = save_model(tmp_path / "m", TimeSformer(config))
    loaded = load_model(folder, num_frames=16)
    name = "encoders.1.positions.table"
    assert name in loaded.report.resized
    before, after = load_model(folder).model.state_dict()[name], loaded.model.state_dict()[name]
    assert (before.shape[0], after.shape[0]) == (5, 9)
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1:], resize_time(before[1:], 8))


def test_weights_that_are_no_models_of_ours(tmp_path: Path) -> None:
    config = TimeSformerConfig(image_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=2, num_classes=2)
    folder = save_model(tmp_path / "m", TimeSformer(config))
    values = json.loads((folder / "config.json").read_text())
    values["model"]["attention"] = "joint"
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"steps\.space.*and \d+ more: no known use in a timesformer-ablations"):
        load_model(folder)
    loaded = load_model(folder, strict=False)
    assert any(".steps.joint." in name for name in loaded.report.initialised)
    assert any(".steps.space." in name for name in loaded.report.left_out)


def test_extras_travel_with_the_model(tmp_path: Path) -> None:
    config = TimeSformerConfig(image_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=2, num_classes=2)
    model, record = TimeSformer(config), {"mean": [0.1] * 3, "std": [1.0] * 3, "crop": 16, "short_side": 20}
    model.save_pretrained(tmp_path / "a", labels=["no", "yes"], preprocessing=record, provenance={"seed": 1})
    again = TimeSformer.from_pretrained(tmp_path / "a")
    again.save_pretrained(tmp_path / "b", provenance={"seed": 2})
    loaded = load_model(tmp_path / "b")
    assert (loaded.labels, loaded.preprocessing, loaded.provenance) == (["no", "yes"], record, {"seed": 2})
    assert "preprocessing: the checkpoint's" in str(loaded.report)
    wider = load_model(tmp_path / "b", image_size=(32, 64), num_frames=2)
    assert wider.preprocessing == record | {"crop": [32, 64], "short_side": 40, "num_frames": 2}
    TimeSformer(config).save_pretrained(tmp_path / "c")
    assert load_model(tmp_path / "c").labels == ["class 0", "class 1"]


class Api:
    """Stands for `huggingface_hub.HfApi`: remembers what would be uploaded."""

    calls: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012
    refuses = False

    def create_repo(self, name: str, **options: Any) -> None:
        if self.refuses:
            raise RuntimeError("401 Client Error\nmore")
        self.calls.append((name, options))

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        self.calls.append((repo_id, {"files": files, "message": commit_message}))


def test_push_to_hub_uploads_exactly_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(Api, "calls", [])
    config = TimeSformerConfig(image_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=2, num_classes=2)
    model = TimeSformer(config)
    address = model.push_to_hub("me/model", private=True, message="first", labels=["no", "yes"])
    assert address == "https://huggingface.co/me/model"
    assert Api.calls[0] == ("me/model", {"private": True, "exist_ok": True})
    folder = model.save_pretrained(tmp_path / "m", labels=["no", "yes"])
    assert Api.calls[1][1]["files"] == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert Api.calls[1][1]["message"] == "first"
    with pytest.raises(InputError, match="expected a name like user/model, got 'model'"):
        model.push_to_hub("model")
    monkeypatch.setattr(Api, "refuses", True)
    with pytest.raises(InputError, match=r"push_to_hub me/model: 401 Client Error \(`hf auth login`"):
        model.push_to_hub("me/model")


def test_export_takes_models_and_what_was_loaded(released: Path, tmp_path: Path) -> None:
    loaded = load_model(released)
    own = load_model(export(loaded, tmp_path / "own", "timesformer-ablations"))
    assert own.model.config == loaded.model.config
    assert own.preprocessing == loaded.preprocessing
    renamed = LoadedModel(loaded.model, loaded.preprocessing, list("abcde"), loaded.provenance, loaded.report)
    assert load_model(export(renamed, tmp_path / "named")).labels == list("abcde")
    bare = TimeSformer(loaded.model.config)
    again = load_model(export(bare, tmp_path / "bare"))
    assert again.labels == [f"class {i}" for i in range(5)]
    assert not (tmp_path / "bare" / "preprocessor_config.json").exists()
    with pytest.raises(
        InputError, match=r"format: expected one of hf-timesformer, .*, hf-dinov2, onnx, torch-export, timesformer-abl"
    ):
        export(bare, tmp_path / "x", "tflite")
    with pytest.raises(InputError, match="labels: expected 5 names, one per class, got 1"):
        export(LoadedModel(bare, {}, ["a"], {}, loaded.report), tmp_path / "x")
    with pytest.raises(InputError, match="fused for inference"):
        export(load_model(released).model.fuse_for_inference(), tmp_path / "x")


def test_export_dispatches_to_vivit(tmp_path: Path) -> None:
    model = TimeSformer(
        TimeSformerConfig(
            attention="joint", position="table", num_frames=4, tubelet_size=2, image_size=16, patch_size=8,
            embed_dim=16, depth=1, num_heads=2, num_classes=3,
        )
    )  # fmt: skip
    again = load_model(export(model, tmp_path / "vivit", "hf-vivit")).model
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())


def hf_folder(folder: Path, processor: dict[str, Any] | None = None) -> Path:
    config = TimesformerConfig(
        num_frames=4, image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, num_labels=3,
    )  # fmt: skip
    TimesformerForVideoClassification(config).save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


PROCESSOR = {
    "do_resize": True,
    "size": {"shortest_edge": 40},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
    "do_rescale": True,
    "rescale_factor": 0.00392156862745098,
    "do_normalize": True,
    "image_mean": [0.45, 0.45, 0.45],
    "image_std": [0.225, 0.225, 0.225],
}


def test_preprocessing_of_a_checkpoint_comes_first(tmp_path: Path) -> None:
    loaded = load_model(hf_folder(tmp_path / "own", PROCESSOR))
    record = Preprocessing.from_dict(loaded.preprocessing)
    assert (record.short_side, record.crop_size, record.interpolation, record.antialias) == (
        40,
        (32, 32),
        "bicubic",
        True,
    )
    assert (record.num_frames, record.value_range, record.mean) == (4, (0.0, 1.0), (0.45,) * 3)
    assert "the checkpoint's, completed by the released default" in str(loaded.report)


def test_built_in_records_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "facebook/timesformer-base-finetuned-ssv2"
    built_in = preprocessing_of(name)
    assert built_in is not None
    monkeypatch.chdir(tmp_path)
    hf_folder(tmp_path / name)
    loaded = load_model(name)
    assert loaded.preprocessing == built_in | {"num_frames": 4}
    assert f"the built-in record of {name}" in str(loaded.report)
    hf_folder(tmp_path / name, PROCESSOR)
    loaded = load_model(name)
    assert loaded.preprocessing["colour_order"] == built_in["colour_order"]
    assert loaded.preprocessing["short_side"] == 40
    assert f"the checkpoint's, completed by the built-in record of {name}" in str(loaded.report)


def test_the_released_default_comes_last(tmp_path: Path) -> None:
    loaded = load_model(hf_folder(tmp_path / "unknown"))
    assert "the released default (the checkpoint carries none)" in str(loaded.report)
    record = Preprocessing.from_dict(loaded.preprocessing)
    assert record == Preprocessing(num_frames=4, short_side=32, crop=(32, 32))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"size": 48}, {"short_side": 48}),
        ({"size": {"height": 36, "width": 40}}, {"short_side": 36}),
        ({"crop_size": 24}, {"crop": [24, 24]}),
        ({"rescale_factor": 1 / 127.5, "offset": True}, {"value_range": [-1.0, 1]}),
        ({"do_rescale": False}, {"value_range": [0.0, 255]}),
        ({"do_normalize": False}, {"mean": [0.0] * 3, "std": [1.0] * 3}),
    ],
)
def test_settings_of_a_processor(change: dict[str, Any], expected: dict[str, Any]) -> None:
    record, notes = preprocessing_of_processor(PROCESSOR | change, Path("x"))
    assert {key: record[key] for key in expected} == expected
    assert bool(notes) == ("height" in str(change.get("size", "")))
    plain = PROCESSOR | {"do_resize": False, "do_center_crop": False}
    assert "short_side" not in preprocessing_of_processor(plain, Path("x"))[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_mean": "half"}, "image_mean: expected three numbers, got 'half'"),
        ({"resample": 0}, "resample: expected one of"),
        ({"size": {"longest_edge": 3}}, "size: expected shortest_edge, or height and width"),
        ({"crop_size": "big"}, "crop_size: expected height and width"),
        ({"rescale_factor": -1}, "rescale_factor: expected a positive number"),
    ],
)
def test_settings_that_are_none(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match="preprocessor_config: " + message):
        preprocessing_of_processor(PROCESSOR | change, Path("x"))
    with pytest.raises(InputError, match="expected a JSON object, got list"):
        preprocessing_of_processor([], Path("x"))


def test_a_record_as_settings_of_a_processor() -> None:
    vivit = Preprocessing(short_side=256, mean=(0.0,) * 3, std=(1.0,) * 3, value_range=(-1.0, 1.0)).to_dict()
    values = processor_of_preprocessing(vivit)
    assert values["offset"] is True
    assert values["rescale_factor"] == pytest.approx(1 / 127.5)
    assert values["image_processor_type"] == "VivitImageProcessor"
    assert preprocessing_of_processor(values, Path("x")) == (vivit, [])
    plain = {key: value for key, value in values.items() if key != "timesformer_ablations"}
    read = preprocessing_of_processor(plain, Path("x"))[0]
    for key in ("mean", "std", "value_range", "short_side", "interpolation"):
        assert read[key] == vivit[key], key
    with pytest.raises(InputError, match="value_range: Hugging Face processors start at 0 or -1, got -2"):
        processor_of_preprocessing(vivit | {"value_range": (-2.0, 1.0)})
