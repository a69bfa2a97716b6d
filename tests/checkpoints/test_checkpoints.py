"""Writing, reading and starting from models."""

from pathlib import Path

import pytest
import torch

from tests.attention.custom import SHIPPED
from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.checkpoints import load_model, save_model, transfer
from timesformer.files import write_atomic

SIZES = {"image_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}


def make(attention: str, frames: int = 4, **changes: object) -> TimeSformer:
    return TimeSformer(TimeSformerConfig(**({"attention": attention, "num_frames": frames} | SIZES | changes)))  # type: ignore[arg-type]


@pytest.fixture
def image_model(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    return save_model(tmp_path / "image", make("space", frames=1))


def test_round_trip_is_exact(tmp_path: Path) -> None:
    model = make("axial")
    labels = ["left", "right", "<up>", "down", "größer"]
    save_model(tmp_path, model, labels=labels, provenance={"seed": 3})
    loaded = load_model(tmp_path)
    clip = torch.randn(1, 4, 3, 16, 16)
    assert torch.equal(loaded.model(clip), model.eval()(clip))
    assert loaded.labels == labels
    assert loaded.provenance == {"seed": 3}
    assert loaded.preprocessing["mean"] == [0.45] * 3
    assert torch.equal(TimeSformer.from_pretrained(tmp_path)(clip), model(clip))


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        load_model(tmp_path)
    folder = save_model(tmp_path / "m", make("joint"))
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:200])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_model(folder)
    weights.write_bytes(whole)
    (folder / "config.json").write_text('{"library": "another"}')
    with pytest.raises(
        InputError, match=r"unknown format: a config.json with library 'another'.*Known: timesformer-abl"
    ):
        load_model(folder)
    (folder / "config.json").write_text('{"library": "timesformer-ablations"}')
    with pytest.raises(InputError, match=r"config\.json: model: expected the fields"):
        load_model(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(InputError, match=r"config\.json: expected a JSON object, got list"):
        load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json:1"):
        load_model(folder)
    with pytest.raises(InputError, match="labels"):
        save_model(tmp_path / "n", make("joint"), labels=["one"])


@pytest.mark.parametrize("attention", SHIPPED)
def test_every_scheme_starts_from_an_image_model(attention: str, image_model: Path) -> None:
    model, source = make(attention), load_model(image_model).model.state_dict()
    report = transfer(model, image_model)
    state = model.state_dict()
    encoder = model.scheme.encoders[0]
    assert report.left_out == (["encoders.0.cls_token"] if encoder.class_tokens == "none" else [])
    zero_starts = tuple(f".steps.{step.name}.proj.weight" for step in encoder.steps if step.zero_start)
    for name in report.initialised:
        assert report.reasons[name]
        if name.startswith("encoders.1."):  # a second, temporal encoder has no counterpart in an image model
            continue
        if ".mixer." in name:  # nor have projections of a mixer's own
            continue
        assert name.endswith((".time", ".fc.weight", ".fc.bias", ".proj.bias", *zero_starts)), name
        assert not state[name].any(), name
    steps = [name for name in state if name.startswith("encoders.0.") and name.endswith("qkv.weight")]
    assert steps
    for name in steps:
        block = name.split(".steps.")[0]
        assert torch.equal(state[name], source[f"{block}.steps.space.qkv.weight"])
    assert set(report.copied + report.inflated + report.resized + report.initialised) == set(state)


def test_next_dataset_drops_the_head_and_resizes(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "a", make("divided"))
    model = make("divided", frames=6, num_classes=7, image_size=24)
    report = transfer(model, folder)
    assert report.left_out == ["head.bias", "head.weight"]
    assert sorted(report.initialised) == ["head.bias", "head.weight"]
    assert sorted(report.resized) == ["encoders.0.positions.space", "encoders.0.positions.time"]
    assert "left_out: head.bias, head.weight" in str(report)
    same = make("divided")
    assert transfer(same, folder).initialised == []


def test_tubelets_start_from_image_filters(image_model: Path) -> None:
    source = load_model(image_model).model.patch_embed.proj.weight.detach()
    for init in ("central_frame", "filter_inflation"):
        model = make("joint", tubelet_size=2, tubelet_init=init)
        assert "patch_embed.proj.weight" in transfer(model, image_model).resized
        weight = model.patch_embed.proj.weight.detach().view(24, 3, 2, 64)
        image = source.view(24, 3, 64)
        assert torch.equal(weight[:, :, 1], image if init == "central_frame" else image / 2)
        assert torch.equal(weight[:, :, 0], torch.zeros_like(image) if init == "central_frame" else image / 2)


def test_tubelets_from_random_weights_leave_the_image_filters(image_model: Path) -> None:
    model = make("joint", tubelet_size=2, tubelet_init="random")
    before = model.patch_embed.proj.weight.detach().clone()
    report = transfer(model, image_model)
    assert torch.equal(model.patch_embed.proj.weight, before)
    assert "patch_embed.proj.weight" in report.initialised
    assert "random weights" in report.reasons["patch_embed.proj.weight"]
    frames = make("joint", tubelet_init="random")  # of single frames there is nothing to inflate
    assert "patch_embed.proj.weight" in transfer(frames, image_model).copied


def test_other_widths_are_refused(image_model: Path) -> None:
    with pytest.raises(InputError, match="embed_dim"):
        transfer(make("joint", embed_dim=48), image_model)


def test_write_atomic(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "new" / "a.txt", "one")
    assert path.read_text() == "one"

    def fails(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("power lost")

    with pytest.raises(RuntimeError):
        write_atomic(path, fails)
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        write_atomic(tmp_path / "file" / "x", b"")
