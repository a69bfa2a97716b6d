"""Processors' files that leave out what belongs to their class, and files that were changed after an export."""

import ast
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import image_utils
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from transformers.models.vivit.image_processing_vivit import VivitImageProcessor

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.checkpoints import export, load_model, save_model
from timesformer.checkpoints.formats.hf_files import preprocessing_of_files, preprocessing_of_processor
from timesformer.checkpoints.formats.hf_processors import PROCESSORS
from timesformer.data import Preprocessing
from timesformer.data.transforms import normalise, resized_crop
from timesformer.data.transforms import test_geometry as geometry_at_test
from timesformer.errors import InputError

PIL = {
    "VideoMAEImageProcessor": VideoMAEImageProcessorPil,
    "VivitImageProcessor": VivitImageProcessor,
    "ViTImageProcessor": ViTImageProcessorPil,
    "DeiTImageProcessor": DeiTImageProcessorPil,
    "BitImageProcessor": BitImageProcessorPil,
    "SiglipImageProcessor": SiglipImageProcessorPil,
}
"""Those that run without torchvision."""
SOURCES = {
    "TimesformerVideoProcessor": "timesformer.video_processing_timesformer",
    "VideoMAEVideoProcessor": "videomae.video_processing_videomae",
    "VideoMAEImageProcessor": "videomae.image_processing_videomae",
    "VivitVideoProcessor": "vivit.video_processing_vivit",
    "ViTImageProcessor": "vit.image_processing_vit",
    "DeiTImageProcessor": "deit.image_processing_deit",
    "BitImageProcessor": "bit.image_processing_bit",
    "SiglipImageProcessor": "siglip.image_processing_siglip",
    "VJEPA2VideoProcessor": "vjepa2.video_processing_vjepa2",
    "DINOv3ViTImageProcessor": "dinov3_vit.image_processing_dinov3_vit",
}
"""Those that need torchvision, which is not imported here: read from their source."""
Fields = dict[str, Any]


def source_of(module: str) -> ast.Module:
    """A module of transformers, unimported."""
    found = importlib.util.find_spec("transformers")
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin).parent / "models" / Path(*module.split(".")).with_suffix(".py")
    return ast.parse(path.read_text())


def attributes(tree: ast.Module, name: str) -> Fields:
    """Assignments in the body of a class."""
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    names = {**vars(image_utils), "PILImageResampling": image_utils.PILImageResampling}
    found = {}
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            code = compile(ast.Expression(node.value), name, "eval")
            if node.targets[0].id not in ("valid_kwargs", "model_input_names"):
                found[node.targets[0].id] = eval(code, names)
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_the_defaults_are_those_of_the_source(name: str) -> None:
    tree, ours = source_of(SOURCES[name]), PROCESSORS[name]
    theirs = attributes(tree, name)
    completed = ours.completed({})
    for field in ("size", "crop_size", "rescale_factor"):
        if isinstance(theirs.get(field), int):
            theirs[field] = {"height": theirs[field], "width": theirs[field]}
        if field in theirs:
            assert completed[field] == pytest.approx(theirs[field]), field
    assert completed["image_mean"] == list(theirs["image_mean"])
    assert completed["image_std"] == list(theirs["image_std"])
    assert completed["resample"] == int(theirs["resample"])
    assert completed["do_center_crop"] == theirs.get("do_center_crop", False)
    assert all(theirs.get(field, True) for field in ("do_resize", "do_rescale", "do_normalize"))
    subtracts = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and "rescale" in node.name]
    assert completed["offset"] == bool(subtracts)
    assert all("rescale_factor - 1" in ast.unparse(node) for node in subtracts)


def frames(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([120 + 100 * np.sin(x / 19), 120 + 100 * np.cos(y / 23), 255.0 * (x > width // 3)])
    return np.stack([smooth.astype(np.uint8), (smooth / 2).astype(np.uint8)])


def theirs(processor: Any, pixels: np.ndarray) -> np.ndarray:
    found = np.asarray(processor(list(pixels.transpose(0, 2, 3, 1)), return_tensors="np")["pixel_values"])
    return found[0] if found.ndim == 5 else found


def ours(pixels: np.ndarray, record: Preprocessing) -> np.ndarray:
    geometry = geometry_at_test(*pixels.shape[-2:], record, 1)
    return normalise(resized_crop(torch.from_numpy(pixels), geometry, record), record)[0].numpy()


@pytest.mark.parametrize("left_out", ["nothing", "everything", "size", "rescale_factor", "image_mean", "image_std"])
@pytest.mark.parametrize("name", PIL)
def test_a_field_that_is_left_out_is_the_classs(name: str, left_out: str) -> None:
    processor = PIL[name]()
    written = json.loads(processor.to_json_string())
    kept = {key: value for key, value in written.items() if key != left_out and value is not None}
    if left_out == "everything":
        kept = {"image_processor_type": written["image_processor_type"]}
    found, _ = preprocessing_of_processor(kept, Path("preprocessor_config.json"))
    found = {"crop": found["short_side"], **found}
    record = Preprocessing.from_dict(found)
    side = record.short_side
    level = (record.value_range[1] - record.value_range[0]) / 255 / min(record.std)
    # Nothing to resize: the values alone.
    as_it_is = frames(side, side)
    assert np.abs(ours(as_it_is, record) - theirs(processor, as_it_is)).max() < 1e-6
    bigger = frames(300, 300)
    assert np.abs(ours(bigger, record) - theirs(processor, bigger)).max() / level < 1.01  # one grey level of 255


def test_vivit_as_transformers_5_writes_it() -> None:
    """The class always subtracts 1, and its file does not say so."""
    written = {
        "video_processor_type": "VivitVideoProcessor", "do_rescale": True, "rescale_factor": 1 / 127.5,
        "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": 256},
        "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "do_resize": True, "resample": 2,
    }  # fmt: skip
    record, _ = preprocessing_of_processor(written, Path("x"))
    assert record["value_range"] == [-1.0, 1]
    assert preprocessing_of_processor(written | {"offset": False}, Path("x"))[0]["value_range"] == [-1.0, 1]
    plain = written | {"do_rescale": False}
    assert preprocessing_of_processor(plain, Path("x"))[0]["value_range"] == [0.0, 255]  # no rescaling, no offset
    four = {"image_processor_type": "VivitImageProcessor", **written, "offset": False}
    del four["video_processor_type"]
    assert preprocessing_of_processor(four, Path("x"))[0]["value_range"] == [0.0, 2]


@pytest.mark.parametrize(
    ("values", "model_type", "video", "expected"),
    [
        ({}, "timesformer", False, {"mean": [0.5] * 3, "short_side": 224, "crop": [224, 224]}),
        ({}, "timesformer", True, {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}),
        ({}, "vivit", True, {"value_range": [-1.0, 1], "short_side": 256}),
        ({"feature_extractor_type": "VideoMAEFeatureExtractor", "size": 448}, None, False, {"short_side": 448}),
        ({"feature_extractor_type": "ViTFeatureExtractor", "size": 384}, None, False, {"short_side": 384}),
        ({"image_processor_type": "ViTImageProcessorFast"}, None, False, {"mean": [0.5] * 3}),
        ({"image_processor_type": "DeiTImageProcessor"}, None, False, {"interpolation": "bicubic", "short_side": 256}),
        (
            {"image_mean": 0.25, "do_flip_channel_order": True},
            "vit",
            False,
            {"mean": [0.25] * 3, "colour_order": "BGR"},
        ),
    ],
)
def test_layouts_of_transformers_4_and_5(values: Fields, model_type: str | None, video: bool, expected: Fields) -> None:
    record, _ = preprocessing_of_processor(values, Path("x"), model_type, video)
    assert {key: record[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("values", "model_type", "expected"),
    [
        ({}, "dinov2", {"interpolation": "bicubic", "short_side": 224, "crop": [224, 224], "quantised": True}),
        ({"size": {"shortest_edge": 256}}, "dinov2_with_registers", {"short_side": 256, "crop": [224, 224]}),
        ({}, "vjepa2", {"short_side": 292, "crop": [256, 256], "mean": [0.485, 0.456, 0.406]}),
        ({"crop_size": 384, "size": {"shortest_edge": 9}}, "vjepa2", {"short_side": 438, "crop": [384, 384]}),
        ({}, "dinov3_vit", {"short_side": 224, "quantised": False, "interpolation": "bilinear"}),
        ({"size": {"height": 384, "width": 384}}, "siglip", {"short_side": 384, "interpolation": "bicubic"}),
        ({"image_mean": [0.1, 0.2, 0.3]}, "vit_mae", {"short_side": 224, "mean": [0.1, 0.2, 0.3]}),
        ({}, "videomae", {"short_side": 224, "std": [0.5] * 3}),
    ],
)
def test_of_todays_encoders(values: Fields, model_type: str, expected: Fields) -> None:
    record, _ = preprocessing_of_processor(values, Path("x"), model_type, True)
    assert {key: record[key] for key in expected} == expected
    assert record.get("crop", [record["short_side"]] * 2)


def test_a_class_that_is_not_known_must_say_everything() -> None:
    with pytest.raises(InputError, match=r"image_mean: .* the default of the class CLIPImageProcessor, is not known"):
        preprocessing_of_processor({"image_processor_type": "CLIPImageProcessor"}, Path("x"))
    values = {"image_processor_type": "CLIPImageProcessor", "image_mean": 0.5, "image_std": 0.5, "size": 224}
    with pytest.raises(InputError, match=r"resample: .* the default of the class CLIPImageProcessor, is not known"):
        preprocessing_of_processor(values, Path("x"))
    with pytest.raises(InputError, match="its class, which the file does not name"):
        preprocessing_of_processor({"image_mean": 0.5, "image_std": 0.5}, Path("x"))


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"size": True}, "size"),
        ({"size": 0}, "size"),
        ({"size": {"shortest_edge": True}}, "size"),
        ({"size": {"height": 224, "width": True}}, "size"),
        ({"size": {"shortest_edge": -3}}, "size"),
        ({"size": 224.0}, "size"),
        ({"crop_size": True}, "crop_size"),
        ({"crop_size": {"height": 0, "width": 224}}, "crop_size"),
        ({"crop_size": {"width": 224}}, "crop_size"),
        ({"crop_size": "224"}, "crop_size"),
        ({"image_std": [0.2, 0.0, 0.2]}, "image_std"),
        ({"image_std": 0}, "image_std"),
        ({"image_std": [0.2, -0.2, 0.2]}, "image_std"),
        ({"image_std": True}, "image_std"),
        ({"image_std": float("inf")}, "image_std"),
        ({"image_mean": True}, "image_mean"),
        ({"image_mean": [0.5, False, 0.5]}, "image_mean"),
        ({"image_mean": float("nan")}, "image_mean"),
        ({"rescale_factor": True}, "rescale_factor"),
        ({"rescale_factor": float("inf")}, "rescale_factor"),
        ({"resample": True}, "resample"),
        ({"do_resize": "false"}, "do_resize"),
        ({"do_rescale": 1}, "do_rescale"),
        ({"do_normalize": "no"}, "do_normalize"),
        ({"do_center_crop": 0}, "do_center_crop"),
        ({"do_flip_channel_order": "yes"}, "do_flip_channel_order"),
        ({"offset": 1}, "offset"),
    ],
)
@pytest.mark.parametrize("model_type", ["videomae", "vjepa2", "siglip"])
def test_values_that_mean_nothing_name_their_field(values: Fields, field: str, model_type: str) -> None:
    """true is no number of pixels, and nothing is divided by zero."""
    given = {"do_center_crop": True, "crop_size": 224} | values
    if model_type == "vjepa2" and field == "size":
        return  # this class ignores the size
    with pytest.raises(InputError, match=rf"^x: preprocessor_config: {field}: expected "):
        preprocessing_of_processor(given, Path("x"), model_type, True)


RECORD = Preprocessing(num_frames=2, short_side=20, crop=16, sampling="dense", frame_rate=4)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    config = TimeSformerConfig(
        attention="divided", num_frames=2, image_size=16, patch_size=8, embed_dim=128, depth=1, num_heads=2,
        num_classes=3,
    )  # fmt: skip
    model = TimeSformer(config)
    model.extras = {"preprocessing": RECORD.to_dict(), "labels": None, "provenance": None}
    return export(model, tmp_path / "exported")


def preprocessing(folder: Path) -> Preprocessing:
    return Preprocessing.from_dict(load_model(folder).preprocessing)


def test_an_export_that_nobody_has_changed_is_read_as_it_was(exported: Path) -> None:
    assert preprocessing(exported) == RECORD


def test_what_was_changed_in_transformers_wins(exported: Path) -> None:
    processor = VideoMAEImageProcessorPil.from_pretrained(exported)
    processor.image_mean = [0.1, 0.2, 0.3]
    processor.size = {"shortest_edge": 24}
    processor.save_pretrained(exported)
    assert "timesformer_ablations" in json.loads((exported / "preprocessor_config.json").read_text())
    found = load_model(exported)
    record = Preprocessing.from_dict(found.preprocessing)
    assert (record.mean, record.short_side) == ((0.1, 0.2, 0.3), 24)
    assert (record.std, record.sampling, record.frame_rate) == (RECORD.std, "dense", 4)  # what it does not know of
    assert "mean, short_side changed since this library wrote the file" in str(found.report)


def test_a_video_processor_that_was_saved_beside_the_export_wins(exported: Path) -> None:
    file = exported / "video_preprocessor_config.json"
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 16, "width": 16}}
    file.write_text(json.dumps({"video_processor_type": "TimesformerVideoProcessor", **sizes}))
    found = load_model(exported)
    record = Preprocessing.from_dict(found.preprocessing)
    assert (record.short_side, record.mean) == (32, (0.485, 0.456, 0.406))
    assert "stated after the export, in place of preprocessor_config.json" in str(found.report)


def test_files_that_contradict_each_other_are_an_error_that_names_both(exported: Path) -> None:
    crop = {"crop_size": {"height": 16, "width": 16}}
    plain = {"image_processor_type": "VideoMAEImageProcessor", "size": {"shortest_edge": 20}, **crop}
    files = {"preprocessor_config.json": plain, "video_preprocessor_config.json": plain}
    assert preprocessing_of_files(files, exported)[0]["short_side"] == 20
    (exported / "preprocessor_config.json").write_text(json.dumps(plain))
    video = plain | {"video_processor_type": "VideoMAEVideoProcessor", "size": {"shortest_edge": 24}}
    (exported / "video_preprocessor_config.json").write_text(json.dumps(video))
    expected = (
        r"/preprocessor_config\.json and .*video_preprocessor_config\.json contradict each other: short_side is 20"
    )
    with pytest.raises(InputError, match=expected):
        load_model(exported)
    (exported / "preprocessor_config.json").unlink()
    (exported / "processor_config.json").write_text(json.dumps({"video_processor": video, "tokenizer": {}}))
    assert preprocessing(exported).short_side == 24


def test_a_processor_in_a_folder_of_our_own_may_not_contradict_it(tmp_path: Path) -> None:
    model = TimeSformer(
        TimeSformerConfig(num_frames=2, image_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2)
    )
    folder = save_model(tmp_path / "ours", model, preprocessing=RECORD.to_dict())
    file = folder / "preprocessor_config.json"
    values = json.loads(VideoMAEImageProcessorPil(image_mean=[0.45] * 3, image_std=[0.225] * 3).to_json_string())
    file.write_text(json.dumps(values | {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}))
    assert preprocessing(folder) == RECORD
    file.write_text(json.dumps(values | {"size": {"shortest_edge": 24}}))
    with pytest.raises(
        InputError, match=r"preprocessing\.json and .*preprocessor_config\.json contradict .* short_side"
    ):
        load_model(folder)
