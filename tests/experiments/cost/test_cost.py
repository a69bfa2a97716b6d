"""Parameters and multiply-accumulates against the paper's figures, and the two counts against each other."""

from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from tests.attention.custom import SHIPPED, has_class_token
from timesformer import TimeSformerConfig
from timesformer.attention import Step, Tiles, Window
from timesformer.attention.backends import BackendError
from timesformer.config.counting import macs_per_view, step_pairs
from timesformer.config.registry import build_model
from timesformer.errors import InputError
from timesformer.models.blocks import Block
from timesformer_experiments.cost import count as cost_module
from timesformer_experiments.cost.count import Cost, CountsDisagree, cost
from timesformer_experiments.cost.fvcore_count import UncountedOperator, fvcore_macs

# Parameters with the 174 classes of SSv2; GMACs of one view of 8 x 224 x 224.
PAPER_SCALE = {
    "space": (85_932_462, 140.5),
    "joint": (85_938_606, 179.6),
    "divided": (121_392_558, 195.8),
    "local_global": (121_392_558, 206.8),
    "axial": (156_846_510, 246.3),
}


def vit_base(attention: str, **fields: object) -> TimeSformerConfig:
    return TimeSformerConfig.from_dict({"attention": attention, "num_classes": 174, **fields})


def declared(config: TimeSformerConfig, views: int = 1) -> Cost:
    """The cost by the declaration alone: tracing takes most of the time."""
    with mock.patch.object(cost_module, "_traced", return_value=macs_per_view(config)):
        return cost(config, views)


def assert_traced_count_agrees(config: TimeSformerConfig) -> None:
    """Two blocks show it: one whose tokens all go on, and the last, of which the head may read one token alone.

    All twelve are traced by the test of the command line.
    """
    counted = cost(replace(config, depth=2, temporal_depth=2))
    assert counted.macs_fvcore == pytest.approx(counted.macs_per_view, rel=1e-3)


@pytest.mark.parametrize(
    "fields",
    [
        {"attention": "divided", "depth": 3},
        {"attention": "factorised_encoder", "depth": 2, "temporal_depth": 3},
        {"attention": "swin", "depth": 3},
        {"schedule": {"0-1": "space", "2": "divided"}, "depth": 3},
        {"schedule": ["divided", "joint"], "depth": 4, "registers": 2, "gate": "head", "mlp": "swiglu"},
        {"attention": "joint", "depth": 2, "pool": "attentive", "backend": "reference"},
    ],
    ids=str,
)
def test_one_block_of_each_kind_stands_for_all(fields: dict[str, Any]) -> None:
    """To the last MAC: the count with repeated blocks left out, and that of the trace of every block."""
    small = {"image_size": 64, "num_frames": 4, "embed_dim": 48, "num_heads": 4, "num_classes": 5}
    config = TimeSformerConfig.from_dict({**small, **fields})
    with torch.device("meta"):
        model = build_model(config).eval()
    every = fvcore_macs(cost_module._EveryOutput(model), [meta(1, 4, 3, 64, 64)])
    assert cost(config).macs_fvcore == every
    assert cost(config).params == sum(parameter.numel() for parameter in model.parameters())


def test_twelve_equal_blocks_are_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[nn.Module] = []
    forward = Block.forward
    monkeypatch.setattr(Block, "forward", lambda self, *given: ran.append(self) or forward(self, *given))
    cost(vit_base("divided"))
    assert len(ran) == 1


@pytest.mark.parametrize("attention", PAPER_SCALE)
def test_five_schemes_at_the_papers_scale(attention: str) -> None:
    params, gmacs = PAPER_SCALE[attention]
    counted = declared(vit_base(attention))
    assert counted.params == params
    assert counted.macs_per_view == pytest.approx(gmacs * 1e9, rel=2e-3)
    assert counted.macs_needed <= counted.macs_per_view
    assert_traced_count_agrees(vit_base(attention))


@pytest.mark.parametrize(
    ("frames", "crop", "gmacs", "tflops"), [(8, 224, 195.8, 0.59), (16, 448, 1702.7, 5.11), (96, 224, 2379.9, 7.14)]
)
def test_the_papers_three_models(frames: int, crop: int, gmacs: float, tflops: float) -> None:
    config = vit_base("divided", num_frames=frames, image_size=crop)
    counted = declared(config, views=3)
    assert_traced_count_agrees(config)
    assert counted.macs_per_view == pytest.approx(gmacs * 1e9, rel=2e-3)
    assert counted.tflops_total == pytest.approx(3 * counted.macs_per_view / 1e12)
    assert counted.tflops_total == pytest.approx(tflops, abs=0.01)


@pytest.mark.parametrize(
    ("attention", "fields", "params"),
    [
        ("divided", {"temporal_fc": False}, 114_305_454),
        ("axial", {"temporal_fc": False}, 142_672_302),
        ("divided", {"num_classes": 400}, 121_566_352),
        ("divided", {"num_frames": 16, "image_size": 448}, 121_850_286),
        ("divided", {"num_classes": 400, "num_frames": 96}, 121_633_936),
    ],
)
def test_parameters_of_other_models(attention: str, fields: dict[str, int | bool], params: int) -> None:
    assert declared(vit_base(attention, **fields)).params == params


@pytest.mark.parametrize(
    ("attention", "cls_policy"),
    [(name, policy) for name in SHIPPED for policy in (None, "global") if policy is None or has_class_token(name)],
)
def test_the_two_counts_agree_on_an_odd_rectangular_grid(attention: str, cls_policy: str | None) -> None:
    small = {"num_frames": 3, "image_size": (20, 28), "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
    small["temporal_depth"] = 1
    counted = cost(TimeSformerConfig.from_dict({"attention": attention, "cls_policy": cls_policy, **small}))
    assert counted.macs_fvcore == pytest.approx(counted.macs_per_view, rel=1e-3)
    assert (counted.image_height, counted.image_width) == (20, 28)


@pytest.mark.parametrize(
    ("attention", "cls_policy", "comparisons"),
    [("joint", None, 8 * 196 + 1), ("space", None, 196 + 1), ("divided", "global", 8 + 196 + 2)],
)
def test_comparisons_per_patch_as_in_the_paper(attention: str, cls_policy: str | None, comparisons: int) -> None:
    assert declared(vit_base(attention, cls_policy=cls_policy, depth=1)).comparisons_per_patch == comparisons


# ViViT-B/16x2 with 400 classes at 32 x 224 x 224: parameters, and the paper's millions of parameters and GFLOPs
# (table 2 of arXiv 2103.15691).  Ours are 0.3 to 0.8 % below: matrix products alone, without softmax, norms and
# activations.
VIVIT_B = {
    "joint": (88_954_000, 88.9, 455.2),
    "factorised_encoder": (115_062_928, 115.1, 284.4),
    "factorised_self_attention": (117_319_312, 117.3, 372.3),
    "factorised_dot_product": (88_952_464, 88.9, 277.1),
}


@pytest.mark.parametrize("attention", VIVIT_B)
def test_vivits_four_models_at_the_papers_scale(attention: str) -> None:
    params, millions, gflops = VIVIT_B[attention]
    config = vit_base(attention, num_classes=400, num_frames=32, tubelet_size=2, position="table")
    counted = declared(config)
    assert_traced_count_agrees(config)
    assert counted.params == params
    assert counted.params / 1e6 == pytest.approx(millions, abs=0.1)
    assert 0.99 * gflops < counted.macs_per_view / 1e9 < gflops


def test_disagreeing_counts_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    right = cost_module.macs_per_view
    monkeypatch.setattr(cost_module, "macs_per_view", lambda config, kind: int(1.01 * right(config, kind)))
    with pytest.raises(CountsDisagree, match="divided at 8x224x224"):
        cost(vit_base("divided", depth=1))


def test_impossible_requests_name_the_field() -> None:
    with pytest.raises(InputError, match="views: expected at least 1, got 0"):
        cost(vit_base("divided"), views=0)
    with pytest.raises(BackendError, match="backend 'flex': expected a predicate, got a partition"):
        cost(vit_base("divided", backend="flex"))


@pytest.mark.parametrize("fields", [{}, {"class_token": False, "pool": "mean"}, {"registers": 2}], ids=str)
@pytest.mark.parametrize("attention", ["local_global_window_fixed", "sliding_tile(tile=[2,4,4],window=[1,1,1])"])
def test_flex_executes_the_whole_blocks_of_its_mask(attention: str, fields: dict[str, Any]) -> None:
    """The second count takes the blocks from FlexAttention's own mask."""
    flex, sdpa = (
        cost(TimeSformerConfig(attention=attention, num_frames=4, image_size=160, depth=1, backend=name, **fields))
        for name in ("flex", "sdpa")
    )
    assert flex.macs_per_view == pytest.approx(flex.macs_fvcore, rel=1e-3)
    assert flex.macs_per_view > sdpa.macs_per_view >= flex.macs_needed == sdpa.macs_needed


def test_blocks_of_flex_written_out() -> None:
    """2 x 8 x 16 patches in tiles of 1 x 8 x 16, each of one block, and a class token in a block of its own."""
    step = Step("frames", (Tiles((1, 8, 16), Window((1, 1, 1))),), cls="global")
    (pairs,) = step_pairs(step, (2, 8, 16), kind="executed", backend="flex")
    assert pairs is not None
    assert pairs.patches == 2 * 128 * (128 + 128)
    (alone,) = step_pairs(replace(step, cls="absent"), (2, 8, 16), kind="executed", backend="flex")
    assert alone is not None
    assert alone.patches == 2 * 128 * 128


class Call(nn.Module):
    """A module around a function of tensors."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        assert callable(self.function)
        output = self.function(*inputs)
        assert isinstance(output, torch.Tensor)
        return output


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


@pytest.mark.parametrize(
    ("function", "shapes", "macs"),
    [
        (nn.functional.linear, [(2, 3, 4), (5, 4)], 2 * 3 * 4 * 5),
        (torch.addmm, [(5,), (3, 4), (4, 5)], 3 * 4 * 5),
        (torch.matmul, [(3, 4), (7, 4, 5)], 7 * 3 * 4 * 5),
        (torch.bmm, [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        (lambda x, y: torch.einsum("b i k, b j k -> b i j", x, y), [(2, 3, 4), (2, 5, 4)], 2 * 3 * 5 * 4),
        (lambda x: torch.einsum("b i j -> b j i", x), [(2, 3, 4)], 0),
        (
            nn.functional.scaled_dot_product_attention,
            [(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)],
            2 * 3 * 5 * 7 * (4 + 6),
        ),
        (nn.functional.gelu, [(2, 3)], 0),
        (lambda x: nn.functional.layer_norm(x, (4,)), [(2, 4)], 0),
        (lambda x: (x + x).softmax(-1), [(2, 4)], 0),
    ],
)
def test_products_are_counted_from_their_shapes(function: object, shapes: list[tuple[int, ...]], macs: int) -> None:
    assert fvcore_macs(Call(function), [meta(*shape) for shape in shapes]) == macs


def test_convolutions_are_counted() -> None:
    conv = nn.Conv2d(3, 8, kernel_size=4, stride=4)
    assert fvcore_macs(conv, [torch.zeros(1, 3, 8, 8)]) == 2 * 2 * 8 * 3 * 4 * 4


def test_products_that_cannot_be_counted_are_an_error() -> None:
    with pytest.raises(UncountedOperator, match="two operands"):
        fvcore_macs(Call(lambda x, y, z: torch.einsum("ij,jk,kl->il", x, y, z)), [meta(2, 3), meta(3, 4), meta(4, 5)])
    with pytest.raises(UncountedOperator, match="aten::tensordot"):
        fvcore_macs(Call(lambda x, y: torch.tensordot(x, y, dims=1)), [meta(2, 3), meta(3, 4)])
