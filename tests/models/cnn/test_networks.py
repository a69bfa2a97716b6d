"""I3D, SlowFast and C2D: sizes and costs as published, shapes, what each can see, gradients, errors."""

import pytest
import torch
from torch import nn

from timesformer.config.registry import build_model, read_config
from timesformer.errors import InputError
from timesformer.models.cnn import BASELINES, CnnConfig, build, macs_per_view
from timesformer_experiments.cost.count import cost
from timesformer_experiments.cost.memory import predict
from timesformer_experiments.report.published import published

FULL = {
    "i3d": CnnConfig("i3d", image_size=256),
    "slowfast": CnnConfig("slowfast", num_frames=32, image_size=256),
}
FVCORE_NORM = 5
"""What fvcore counts for an element of a batch norm."""


def small(baseline: str, **fields: object) -> CnnConfig:
    sizes = {"num_frames": 8, "image_size": 32, "num_classes": 5, "width": 8, "blocks": (1, 2, 1, 1), "beta": 0.25}
    return CnnConfig.from_dict({"baseline": baseline, **sizes, **fields})


def lively(config: CnnConfig) -> nn.Module:
    """A network in evaluation mode whose blocks do something: new ones start as their shortcuts."""
    torch.manual_seed(0)
    model = build(config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    nn.init.normal_(model.head.weight, std=0.2)
    return model


def norm_elements(config: CnnConfig) -> int:
    """Elements that batch norms give out for one clip."""
    found = 0

    def count(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal found
        found += output.numel()

    with torch.device("meta"):
        model = build(config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.register_forward_hook(count)
    model(torch.empty(1, config.num_frames, 3, *config.height_width, device="meta"))
    return found


@pytest.mark.parametrize("baseline", FULL)
def test_parameters_and_macs_as_published(baseline: str) -> None:
    config = FULL[baseline]
    zoo = next(row for row in published("table2", "zoo").rows if row["key"] == baseline)
    paper = next(row for row in published("table2", "models").rows if row["key"] == baseline)
    with torch.device("meta"):
        params = sum(parameter.numel() for parameter in build(config).parameters())
    macs = macs_per_view(config)
    assert round(params / 1e6, 2) == zoo["params_millions"]
    assert round(params / 1e6, 1) == paper["params_millions"]
    # I3D's published figure holds what fvcore counts for norms (1.1 % of it), SlowFast's does not; the paper's TFLOPs
    # of 30 views hold none in either.
    norms = FVCORE_NORM * norm_elements(config) if baseline == "i3d" else 0
    assert round((macs + norms) / 1e9, 2) == zoo["gmacs_per_view"]
    assert round(30 * macs / 1e12, 2) == paper["tflops_total"]


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_the_two_counts_agree(baseline: str, size: tuple[int, int]) -> None:
    config = small(baseline, image_size=size)
    counted = cost(config, views=30)  # raises where they do not
    assert counted.macs_fvcore == counted.macs_per_view == macs_per_view(config) > 0
    assert counted.params == sum(parameter.numel() for parameter in build(config).parameters())
    assert (counted.attention, counted.comparisons_per_patch) == (baseline, None)
    assert counted.tflops_total == pytest.approx(30 * counted.macs_per_view / 1e12)


@pytest.mark.slow
@pytest.mark.parametrize("baseline", FULL)
def test_the_two_counts_agree_at_full_size(baseline: str) -> None:
    counted = cost(FULL[baseline])
    assert counted.macs_fvcore == counted.macs_per_view


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("frames", [4, 8])
def test_logits_of_any_size(baseline: str, frames: int) -> None:
    model = lively(small(baseline, num_classes=(5, 3)))
    with torch.no_grad():
        logits = model(torch.randn(2, frames, 3, 33, 20))
    assert logits.shape == (2, 8)
    assert logits.isfinite().all()


@pytest.mark.parametrize("baseline", BASELINES)
def test_every_weight_has_a_gradient(baseline: str) -> None:
    model = lively(small(baseline)).train()
    nn.functional.cross_entropy(model(torch.randn(4, 8, 3, 32, 32)), torch.arange(4)).backward()
    still = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert still == []


@pytest.mark.parametrize(("baseline", "sees_order"), [("c2d", False), ("i3d", True), ("slowfast", True)])
@torch.no_grad()
def test_order_of_the_frames(baseline: str, sees_order: bool) -> None:
    model, clip = lively(small(baseline)), torch.randn(2, 8, 3, 32, 32)
    same = torch.allclose(model(clip), model(clip.flip(1)), atol=1e-4)
    assert same != sees_order


@torch.no_grad()
def test_slowfasts_slow_pathway_sees_every_fourth_frame_and_the_fast_one_all() -> None:
    model, clip = lively(small("slowfast")), torch.randn(1, 8, 3, 32, 32)
    changed = clip.clone()
    changed[:, 3] += 1
    slow, fast = model.config.width * 32, model.config.fast_width * 32
    assert model.features(clip).shape == (1, slow + fast)
    assert not torch.equal(model(clip), model(changed))
    for lateral in model.lateral:
        nn.init.zeros_(lateral.norm.weight)
        nn.init.zeros_(lateral.norm.bias)
    alone = [model.features(each)[:, :slow] for each in (clip, changed)]
    assert torch.equal(*alone)
    changed[:, 4] += 1
    assert not torch.equal(alone[0], model.features(changed)[:, :slow])


def test_a_block_starts_as_its_shortcut() -> None:
    model = build(small("i3d")).eval()
    block, x = model.path.stages[1].blocks[1], torch.randn(1, 64, 2, 4, 4)
    assert torch.equal(block(x), x.relu())


@pytest.mark.parametrize("baseline", BASELINES)
def test_predicted_memory_grows_with_the_batch(baseline: str) -> None:
    config = small(baseline)
    one, two = (predict(config, batch=batch, train=True) for batch in (1, 2))
    assert one.params_bytes == sum(tensor.nbytes for tensor in build(config).state_dict().values())
    assert one.peak_bytes < two.peak_bytes < 2 * one.peak_bytes
    assert predict(config, batch=1, train=False).peak_bytes < one.peak_bytes
    with pytest.raises(InputError, match="gradient_checkpointing"):
        predict(config, batch=1, train=True, gradient_checkpointing=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"baseline": "vgg"}, "baseline: expected one of c2d, i3d, slowfast"),
        ({"num_frames": 0}, "num_frames"),
        ({"num_frames": 1}, "at least 2 for i3d"),
        ({"baseline": "slowfast", "num_frames": 6}, "expected a multiple of alpha 4"),
        ({"blocks": [1, 1]}, "blocks: expected 4"),
        ({"blocks": 3}, "blocks: expected 4"),
        ({"beta": 0}, "beta"),
        ({"drop_rate": 1.0}, "drop_rate"),
        ({"num_classes": []}, "num_classes"),
        ({"image_size": [32, 0]}, "image_size"),
        ({"patch_size": 16}, "unknown field 'patch_size' of a baseline"),
        ({"attention": "divided"}, "attention and baseline"),
    ],
)
def test_impossible_configurations_name_the_field(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_config({"baseline": "i3d", **fields})


def test_impossible_clips_are_refused() -> None:
    for baseline, shape, message in (
        ("i3d", (1, 1, 3, 32, 32), "at least 2"),
        ("slowfast", (1, 6, 3, 32, 32), "multiple of alpha"),
        ("c2d", (1, 3, 4, 32, 32), "3 channels"),
    ):
        with pytest.raises(InputError, match=message):
            build(small(baseline))(torch.zeros(shape))


def test_configurations_survive_json() -> None:
    config = small("slowfast", num_classes=(3, 4))
    assert read_config(config.to_dict()) == config
    assert build_model(read_config({"attention": "space", "depth": 1, "embed_dim": 24})).config.attention == "space"
