"""The released code's files."""

from pathlib import Path

import pytest
import torch
from transformers import TimesformerConfig, TimesformerForVideoClassification

from tests.checkpoints.fakes import as_hf, fair_state, write_fair
from timesformer import InputError, TimeSformer
from timesformer.checkpoints import export, load_model, settings_of, transfer

NAMES = {"space": "space_only", "joint": "joint_space_time", "divided": "divided_space_time"}
CLIP = (2, 4, 3, 32, 32)


def hf_model(state: dict[str, torch.Tensor], attention: str, frames: int = 4) -> TimesformerForVideoClassification:
    config = TimesformerConfig(
        attention_type=attention,
        num_frames=frames,
        image_size=32,
        patch_size=8,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=256,
        num_labels=5,
    )
    model = TimesformerForVideoClassification(config).eval()
    model.load_state_dict(as_hf(state))
    return model


@pytest.mark.parametrize("with_cfg", [True, False])
@pytest.mark.parametrize("scheme", ["joint", "divided"])
@torch.no_grad()
def test_a_released_file_gives_the_logits_of_transformers(scheme: str, with_cfg: bool, tmp_path: Path) -> None:
    state = fair_state(NAMES[scheme])
    loaded = load_model(write_fair(tmp_path / "x.pyth", state, NAMES[scheme] if with_cfg else None))
    config = loaded.model.config
    assert (config.attention, config.num_frames, config.image_size, config.patch_size) == (scheme, 4, 32, 8)
    assert (config.num_classes, config.depth, config.num_heads, config.norm_eps) == (5, 2, 2, 1e-6)
    assert (config.mlp_ratio, config.drop_path_rate) == (2.0, 0.1)
    report = loaded.report
    assert (report.initialised, report.left_out, report.resized, report.inflated) == ([], [], [], [])
    assert "num_heads not in the file: 2 heads of 64 channels" in str(report)
    clip = torch.randn(CLIP)
    expected = hf_model(state, NAMES[scheme])(clip).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(loaded.model(clip), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_released_file_goes_to_hugging_face_and_back(tmp_path: Path) -> None:
    loaded = load_model(write_fair(tmp_path / "x.pyth", fair_state(), "divided_space_time"))
    export(loaded, tmp_path / "hf", "hf-timesformer")
    theirs, info = TimesformerForVideoClassification.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    clip = torch.randn(CLIP)
    torch.testing.assert_close(theirs.eval()(clip).logits, loaded.model(clip), atol=1e-5, rtol=0)
    again = load_model(tmp_path / "hf")
    assert again.model.config == loaded.model.config
    assert again.preprocessing == loaded.preprocessing
    assert again.provenance["licence"] == "CC-BY-NC-4.0"
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)


@torch.no_grad()
def test_space_only_averages_the_frames_before_the_last_norm(tmp_path: Path) -> None:
    state = fair_state("space_only")
    loaded = load_model(write_fair(tmp_path / "x.pyth", state, "space_only"))
    assert loaded.model.config.attention == "space"
    assert loaded.model.config.num_frames == 8
    theirs, clip = hf_model(state, "space_only"), torch.randn(CLIP)
    body = theirs.timesformer
    tokens = body.encoder(body.embeddings(clip)).last_hidden_state.unflatten(0, (2, 4))
    expected = theirs.classifier(body.layernorm(tokens.mean(1))[:, 0])
    torch.testing.assert_close(loaded.model(clip), expected, atol=1e-5, rtol=0)
    without_nesting = tmp_path / "y.pth"
    torch.save({f"module.model.{name}": value for name, value in state.items()}, without_nesting)
    assert load_model(without_nesting).model.config == loaded.model.config


def test_image_weights_in_the_released_nesting_are_inflated(tmp_path: Path) -> None:
    """cfg asks for divided attention, the file holds none in time: both start from the same weights."""
    state = fair_state("space_only")
    loaded = load_model(
        write_fair(tmp_path / "x.pyth", state | {"time_embed": torch.ones(1, 8, 128)}, NAMES["divided"])
    )
    ours = loaded.model.state_dict()
    for part, theirs in (("norm", "norm1"), ("qkv", "attn.qkv"), ("proj", "attn.proj")):
        for step in ("time", "space"):
            assert torch.equal(
                ours[f"encoders.0.blocks.1.steps.{step}.{part}.weight"], state[f"blocks.1.{theirs}.weight"]
            )
    assert len(loaded.report.inflated) == 2 * 6
    assert not ours["encoders.0.blocks.1.steps.time.fc.weight"].any()
    assert "an extra linear that the source lacks; zero" in str(loaded.report)
    assert "no temporal attention in the file" in str(loaded.report)


def test_time_positions_that_space_only_does_not_use_are_listed(tmp_path: Path) -> None:
    state = fair_state("joint_space_time")
    loaded = load_model(write_fair(tmp_path / "x.pyth", state, "space_only"))
    assert loaded.report.left_out == ["time_embed"]
    assert "time_embed (space-only attention adds no positions in time)" in str(loaded.report)


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("kinetics", {"colour_order": "RGB", "sampling": "dense", "frame_rate": 32}),
        ("ssv2", {"colour_order": "BGR", "sampling": "uniform"}),
    ],
)
def test_cfg_gives_the_preprocessing(dataset: str, expected: dict[str, object], tmp_path: Path) -> None:
    loaded = load_model(write_fair(tmp_path / "x.pyth", fair_state(), NAMES["divided"], dataset))
    common = {"mean": [0.45] * 3, "std": [0.225] * 3, "num_frames": 4, "short_side": 32, "crop": 32}
    assert common | expected == {key: loaded.preprocessing[key] for key in common | expected}
    assert ("frame_rate" in loaded.preprocessing) == (dataset == "kinetics")
    assert "preprocessing: the checkpoint's" in str(loaded.report)


def test_the_licence_is_stated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded = load_model(write_fair(tmp_path / "x.pyth", fair_state(), None))
    assert loaded.provenance["licence"] == "CC-BY-NC-4.0"
    assert loaded.provenance["epoch"] == 14
    assert loaded.provenance["source"] == "x.pyth"
    assert "CC-BY-NC-4.0" in caplog.text
    assert "CC-BY-NC-4.0" in str(loaded.report)


def without(state: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if name not in names}


BROKEN = [
    (lambda s: without(s, "blocks.1.mlp.fc2.bias"), None, "blocks.1.mlp.fc2.bias is missing"),
    (lambda s: without(s, "blocks.1.temporal_attn.qkv.weight"), None, "steps.time.qkv.weight is missing"),
    (lambda s: s | {"blocks.0.extra": torch.zeros(1)}, None, "blocks.0.extra: no known use in a FAIR checkpoint"),
    (lambda s: s | {"norm.bias": torch.zeros(3)}, None, r"norm.bias has shape \(3,\), expected \(128,\)"),
    (lambda s: s | {"norm.bias": torch.zeros(128, dtype=torch.int64)}, None, "norm.bias holds torch.int64"),
    (lambda s: s | {"pos_embed": torch.zeros(1, 14, 128)}, None, "pos_embed: 13 rows"),
    (lambda s: s | {"pos_embed": torch.zeros(17, 128)}, None, "expected 4 and 3 axes"),
    (lambda s: s, "space_only", "cfg says space_only, but there are weights of temporal attention"),
    (lambda s: s, "sideways", "ATTENTION_TYPE: expected one of"),
]


@pytest.mark.parametrize(("change", "attention", "message"), BROKEN)
def test_what_nothing_explains_fails(change, attention, message, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = write_fair(tmp_path / "x.pyth", fair_state(), None)
    stored = torch.load(path, weights_only=True)
    stored["model_state"] = {f"model.{name}": value for name, value in change(fair_state()).items()}
    if attention is not None:
        stored["cfg"] = f"TIMESFORMER: {{ATTENTION_TYPE: {attention}}}"
    torch.save(stored, path)
    with pytest.raises(InputError, match=message) as error:
        load_model(path)
    assert "x.pyth" in str(error.value)


@pytest.mark.parametrize(("cfg", "message"), [("a: [", "cfg: not valid YAML"), ("just text", "cfg: expected sections")])
def test_a_cfg_that_is_none(cfg: str, message: str, tmp_path: Path) -> None:
    path = write_fair(tmp_path / "x.pyth", fair_state(), None)
    torch.save(torch.load(path, weights_only=True) | {"cfg": cfg}, path)
    with pytest.raises(InputError, match=message):
        load_model(path)


def test_strict_false_goes_on_and_says_so(tmp_path: Path) -> None:
    state = fair_state()
    state["blocks.0.extra"] = torch.zeros(1)
    state["norm.bias"] = torch.zeros(3)
    del state["blocks.1.mlp.fc2.bias"]
    loaded = load_model(write_fair(tmp_path / "x.pyth", state, None), strict=False)
    report = loaded.report
    assert sorted(report.initialised) == ["encoders.0.blocks.1.mlp.fc2.bias", "encoders.0.norm.bias"]
    assert sorted(report.left_out) == ["blocks.0.extra", "encoders.0.norm.bias"]
    assert "blocks.0.extra (no known use)" in str(report)
    assert "encoders.0.blocks.1.mlp.fc2.bias (is missing)" in str(report)


def test_odd_widths_need_a_stated_number_of_heads(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="width 96; expected a multiple of 64"):
        load_model(write_fair(tmp_path / "x.pyth", fair_state(width=96), None))
    assumed = load_model(write_fair(tmp_path / "y.pyth", fair_state(), None), num_heads=4)
    assert assumed.model.config.num_heads == 4


def test_a_file_without_a_head(tmp_path: Path) -> None:
    state = without(fair_state(), "head.weight", "head.bias")
    path = tmp_path / "x.pyth"
    torch.save({"model_state": state}, path)
    loaded = load_model(path, num_classes=3)
    assert sorted(loaded.report.initialised) == ["head.bias", "head.weight"]
    assert "the checkpoint has no classifier" in str(loaded.report)
    assert loaded.labels == ["class 0", "class 1", "class 2"]


def test_a_stated_number_of_heads_is_used(tmp_path: Path) -> None:
    path = write_fair(tmp_path / "x.pyth", fair_state("divided_space_time", width=48), None)
    loaded = load_model(path, num_heads=4)
    assert loaded.model.config.num_heads == 4
    assert "num_heads not in the file: 4 heads, as stated" in str(loaded.report)
    assert settings_of(path, num_heads=4)[0].num_heads == 4
    with pytest.raises(InputError, match=r"width 48; expected a multiple of 64, .* or num_heads to be stated"):
        load_model(path)
    with pytest.raises(InputError, match="num_heads 5 does not divide the width 48"):
        load_model(path, num_heads=5)
    model = TimeSformer(loaded.model.config)
    assert transfer(model, path).initialised == []
