"""Starts from today's encoders: every scheme, other positions, other switches."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.attention.custom import SHIPPED
from tests.checkpoints.formats.encoders.models import KINDS, dinov2, saved, videomae, vjepa2
from timesformer import InputError, TimeSformer
from timesformer.checkpoints import load_model, transfer
from timesformer.positions import sinusoid_table

NO_ROPE = {"position": "space_time", "rope_pairing": "half"}
QUICK = ("divided", "factorised_encoder", "trajectory")


def start(folder: Path, **changes: object) -> tuple[TimeSformer, str]:
    """A model of the folder's configuration with changes, started from it, and the report's text."""
    config = load_model(folder).model.config
    torch.manual_seed(1)
    model = TimeSformer(replace(config, **changes)).eval()  # type: ignore[arg-type]
    return model, str(transfer(model, folder))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    return {kind: saved(make(), root / kind) for kind, (make, _, _) in KINDS.items()}


def allowed(kind: str, attention: str) -> bool:
    """Registers follow the class token, which some schemes do not have; so does a head that reads it."""
    factorised = attention in ("factorised_self_attention", "factorised_dot_product")
    return not (factorised and kind.startswith("dino"))


def kind_of_norm(folder: Path) -> bool:
    """Whether the last norm follows the pooling, so that a first of two encoders has to start with a new one."""
    return load_model(folder).model.config.fc_norm


def check_start(folder: Path, attention: str, frames: int) -> None:
    loaded = load_model(folder, attention=attention, num_frames=frames)
    model, report = loaded.model, loaded.report
    config = model.config
    missing = [name for name in report.initialised if not name.startswith(("head", "encoders.1."))]
    known = (".mixer.", ".fc.", "positions.time", *(("encoders.0.norm",) if kind_of_norm(folder) else ()))
    zero = {step.name for encoder in config.scheme.encoders for step in encoder.steps if step.zero_start}
    known += tuple(f".steps.{name}.proj." for name in zero)  # ViViT 3 begins without its time step
    assert all(any(part in name for part in known) for name in missing), missing
    assert all(report.reasons[name] for name in report.left_out)
    assert model(torch.randn(1, frames, 3, *config.height_width)).isfinite().all()
    source = load_model(folder).model
    wanted = source.encoders[0].blocks[1].mlp.fc1.weight
    assert torch.equal(model.encoders[0].blocks[1].mlp.fc1.weight, wanted)
    steps = source.encoders[0].blocks[1].attention_steps()
    for step in model.encoders[0].blocks[1].attention_steps():
        assert torch.equal(step.qkv.weight, steps[0].qkv.weight)
        assert step.fc is None or not step.fc.weight.any()


@pytest.mark.parametrize("attention", QUICK)
@pytest.mark.parametrize("kind", ["videomae", "vjepa2", "dinov2_registers", "siglip"])
def test_a_scheme_starts_from_an_encoder(kind: str, attention: str, folders: dict[str, Path]) -> None:
    check_start(folders[kind], attention, 4)


@pytest.mark.slow
@pytest.mark.parametrize("attention", SHIPPED)
@pytest.mark.parametrize("kind", KINDS)
def test_every_scheme_starts_from_every_encoder(kind: str, attention: str, folders: dict[str, Path]) -> None:
    if allowed(kind, attention):
        check_start(folders[kind], attention, 4)
        return
    with pytest.raises(InputError, match=r"registers|pool"):
        check_start(folders[kind], attention, 4)


def test_divided_from_an_image_model_is_the_image_model_at_first(folders: dict[str, Path]) -> None:
    """The extra linear of the time step is zero: a repeated frame gives the image model's logits."""
    image = load_model(folders["dinov2_registers"]).model
    video = load_model(folders["dinov2_registers"], attention="divided", num_frames=4).model
    frame = torch.randn(2, 1, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(video(frame.expand(-1, 4, -1, -1, -1)), image(frame), rtol=1e-4, atol=1e-5)


def test_joint_from_divided_settings_of_videomae_is_exact(folders: dict[str, Path]) -> None:
    """Sinusoids as a learned table, all biases: the same function of the same clip."""
    source = load_model(folders["videomae"]).model
    model, report = start(folders["videomae"], position="table", qkv_bias="qkv")
    clip = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(clip), source(clip))
    assert torch.equal(model.encoders[0].positions.table, sinusoid_table(8, 48))
    assert "sinusoids" in report
    assert "those of k are zero" in report


def test_a_layer_scale_that_is_not_there_is_folded(tmp_path: Path) -> None:
    folder = saved(dinov2(), tmp_path)
    model, report = start(folder, layer_scale=None)
    frame = torch.randn(2, 1, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(model(frame), load_model(folder).model(frame), rtol=1e-4, atol=1e-5)
    assert "layer_scale: folded" in report


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        (
            "vjepa2",
            {"position": "space_time", "rope_pairing": "half"},
            "rope there cannot become space_time exactly; dropped",
        ),
        ("videomae", {"position": "space_time"}, "sinusoid there cannot become space_time exactly; dropped"),
        ("vjepa2", {"rope_pairing": "half"}, "queries and keys turn otherwise"),
        ("dinov2", {"position": "rope"}, "positions.space (the new model has no such positions"),
        ("dinov2", {"registers": 2}, "encoders.0.registers (the source has no registers)"),
        ("dinov2_registers", {"registers": 0}, "encoders.0.registers (the new model has no registers)"),
        ("dinov2_registers", {"registers": 2}, "4 registers there, 2 here"),
        ("dinov2", {"pool": "class"}, "it reads class+mean there and class here"),
        ("vjepa2", {"pool": "mean", "pooler_depth": 0}, "the new model pools otherwise"),
        ("videomae", {"fc_norm": False, "fc_norm_eps": 1e-6}, "the new model pools otherwise"),
        ("videomae", {"gate": "head"}, "a gate that the source lacks; open"),
    ],
)
def test_what_changes_is_said(kind: str, changes: dict[str, object], said: str, folders: dict[str, Path]) -> None:
    _, report = start(folders[kind], **changes)
    assert said in report


@pytest.mark.parametrize(("name", "value"), [("mlp", "swiglu"), ("norm", "rms")])
def test_other_kinds_of_layers_are_refused(name: str, value: str, folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=f"{name} is .* there and '{value}' here"):
        start(folders["videomae"], **{name: value})


def test_fields_of_a_switch_go_with_it(folders: dict[str, Path]) -> None:
    """Another position or pooling needs no word about what only the old one has."""
    config = load_model(folders["vjepa2"], position="space_time", pool="mean").model.config
    assert config.changed_switches() == {"class_token": False, "pool": "mean"}
    config = load_model(folders["videomae"], fc_norm=False).model.config
    assert config.fc_norm_eps == 1e-6
    with pytest.raises(InputError, match="rope_base"):
        load_model(folders["vjepa2"], position="space_time", rope_base=100.0)


def test_tubelets_and_other_sizes(tmp_path: Path) -> None:
    clip = torch.randn(1, 8, 3, 64, 64)
    for number, theirs in enumerate((videomae(), vjepa2())):
        folder = saved(theirs, tmp_path / str(number))
        model = load_model(folder, attention="divided", num_frames=8, image_size=64).model
        assert model(clip).isfinite().all()
