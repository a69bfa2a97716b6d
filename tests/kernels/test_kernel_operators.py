"""The operators inside PyTorch: opcheck, torch.compile, autocast, checkpointing, torch.func, FLOP counters."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import triton.language as tl
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap
from torch.library import opcheck
from torch.utils.flop_counter import FlopCounterMode

from tests.attention.custom import SHIPPED
from tests.kernels.kernel_cases import DEVICE, STEPS, Case, random_inputs
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.attention import Predicate, build
from timesformer.config.registry import macs_per_view
from timesformer_experiments.cost.count import cost
from timesformer_kernels import add_norm, attention_pairs, grouped_attention, launch
from timesformer_kernels.layout import tile_numbers

ROOT = Path(__file__).parents[2]
GRID = (3, 3, 2)
TIME = [n for tile in STEPS["time"].tiles(GRID) for n in tile_numbers(tile)]
LOCAL = [n for tile in STEPS["local"].tiles(GRID) for n in tile_numbers(tile)]  # two shapes of group
SMALL = {
    "num_frames": 2,
    "image_size": (12, 8),
    "patch_size": 4,
    "num_classes": 5,
    "embed_dim": 32,
    "num_heads": 2,
    "temporal_depth": 1,
}
CLIP = (2, 3, 12, 8)
ONE_HEAD = {"embed_dim": 16, "num_heads": 1}
KERNEL_SCHEMES = [
    name
    for name in SHIPPED
    if not any(isinstance(over, Predicate) for e in build(name).encoders for s in e.steps for over in s.over)
]


def tensors(
    batch: int = 2, heads: int = 1, device: str = DEVICE, grid: tuple[int, int, int] = GRID
) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    qkv = torch.randn(batch, *grid, 3, heads, 16, device=device, requires_grad=True)
    return qkv, torch.randn(batch, 3, heads, 16, device=device, requires_grad=True)


@pytest.mark.parametrize("mode", range(4), ids=lambda mode: f"mode {mode}")
def test_opcheck_of_attention(mode: int) -> None:
    grid = (2, 3, 1)
    layout = [n for tile in STEPS["local" if mode else "time"].tiles(grid) for n in tile_numbers(tile)]
    qkv, cls = tensors(1, grid=grid)
    given = (qkv, cls if mode else None, layout, mode)
    opcheck(torch.ops.timesformer.grouped_attention.default, given)
    detached = tuple(x.detach() if isinstance(x, Tensor) else x for x in given)
    outputs = torch.ops.timesformer.grouped_attention(*detached)
    gradients = (torch.ones_like(outputs[0]), torch.ones_like(outputs[1]))
    opcheck(
        torch.ops.timesformer.grouped_attention_backward.default,
        (*gradients, *detached[:2], *outputs, layout, mode),
    )


def test_opcheck_of_add_norm() -> None:
    x, more, weight, bias = (torch.randn(n, device=DEVICE, requires_grad=True) for n in ((5, 8), (5, 8), 8, 8))  # type: ignore[call-overload]
    opcheck(torch.ops.timesformer.add_norm.default, (x, more, weight, bias, 1e-6, torch.float32))
    total, normed, mean, scale = torch.ops.timesformer.add_norm(
        *(t.detach() for t in (x, more, weight, bias)), 1e-6, torch.bfloat16
    )
    given = (torch.ones_like(total), torch.ones_like(normed), total, weight.detach(), mean, scale)
    opcheck(torch.ops.timesformer.add_norm_backward.default, given)


def models(attention: str, depth: int = 1, **fields: Any) -> tuple[TimeSformer, TimeSformer, Tensor]:
    """The model with our kernels, the same with PyTorch's attention, and a clip."""
    torch.manual_seed(0)
    ours, theirs = (
        TimeSformer(
            TimeSformerConfig.from_dict({**SMALL, "attention": attention, "depth": depth, "backend": backend, **fields})
        ).to(DEVICE)
        for backend in ("triton", "sdpa")
    )
    for parameter in ours.parameters():  # extra linears and times are zero at first
        torch.nn.init.normal_(parameter, std=0.2)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs, torch.randn(1, *CLIP, device=DEVICE)


def logits_and_gradients(model: TimeSformer, call: Callable[..., Tensor], clip: Tensor) -> list[Tensor]:
    logits = call(clip)
    found = torch.autograd.grad(logits.float().square().sum(), list(model.parameters()), allow_unused=True)
    return [logits.detach(), *(x for x in found if x is not None)]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=2e-3, atol=2e-3 * float(y.abs().max()) + 1e-6)


@pytest.mark.parametrize("attention", KERNEL_SCHEMES)
def test_models_with_our_kernels_equal_those_without(attention: str) -> None:
    ours, theirs, clip = models(attention)
    assert_same(logits_and_gradients(ours, ours, clip), logits_and_gradients(theirs, theirs, clip))
    fused = ours.fuse_for_inference()
    with torch.no_grad():
        torch.testing.assert_close(fused(clip), theirs(clip), rtol=1e-3, atol=1e-3)


COMPILE = """
import sys, torch
from timesformer import TimeSformer, TimeSformerConfig
attention, policy, backend = sys.argv[1:]
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
config = TimeSformerConfig(attention=attention, cls_policy=policy or None, backend="triton", num_frames=2, depth=1,
                           image_size=(12, 8), patch_size=4, num_classes=5, embed_dim=32, num_heads=2)
model = TimeSformer(config).to(device)
for parameter in model.parameters():
    torch.nn.init.normal_(parameter, std=0.2)
clip = torch.randn(1, 2, 3, 12, 8, device=device)
found = []
for call in (model, torch.compile(model, fullgraph=True, backend=backend)):
    logits = call(clip)
    gradients = torch.autograd.grad(logits.square().sum(), list(model.parameters()), allow_unused=True)
    found.append([logits, *gradients])
for x, y in zip(*found, strict=True):
    assert (x is None) == (y is None)
    if x is not None:
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4 * float(x.abs().max()))
print("same")
"""


@pytest.mark.integration
@pytest.mark.parametrize(
    ("attention", "policy", "backend"),
    [
        ("divided", "", "aot_eager"),
        pytest.param("local_global", "global", "aot_eager", marks=pytest.mark.slow),
        pytest.param("divided", "", "inductor", marks=pytest.mark.slow),
    ],
)
def test_compiles_without_a_graph_break(attention: str, policy: str, backend: str) -> None:
    """In a process of its own: the type checks of the tests are no code to compile."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, attention, policy, backend], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.strip() == "same", done.stderr


def test_autocast_and_checkpointing_together() -> None:
    ours, theirs, clip = models("divided", depth=2, **ONE_HEAD)
    with torch.autocast(DEVICE, torch.bfloat16):
        expected, found = (logits_and_gradients(model, model, clip) for model in (theirs, ours))
        ours.gradient_checkpointing = True
        recomputed = logits_and_gradients(ours, ours, clip)
    assert found[0].dtype == torch.bfloat16
    for x, y, z in zip(found, expected, recomputed, strict=True):
        assert torch.equal(x, z)
        assert float((x - y).norm()) < 0.05 * float(y.norm()) + 1e-3


def test_training_with_drop_path_equals_that_without_kernels() -> None:
    """The replicated class token's groups are weighed."""
    ours, theirs, clip = models("local_global", drop_path_rate=0.5, depth=2, **ONE_HEAD)
    found = []
    for model in (ours, theirs):
        torch.manual_seed(3)
        found.append(logits_and_gradients(model, model, clip))
    assert_same(*found)


def transformed(policy: str) -> Callable[[Tensor, Tensor], Tensor]:
    tiles = STEPS["local"].tiles(GRID)

    def loss(qkv: Tensor, cls: Tensor) -> Tensor:
        outputs = grouped_attention(qkv, None if policy == "absent" else cls, tiles, policy)  # type: ignore[arg-type]
        return torch.stack([out.square().sum() for out in outputs if out is not None]).sum()

    return loss


@pytest.mark.parametrize("policy", ["absent", "replicated", "global"])
def test_torch_func_of_attention(policy: str) -> None:
    loss = transformed(policy)
    qkv, cls = tensors()
    clips = list(zip(qkv.detach().split(1), cls.detach().split(1), strict=True))
    expected = [torch.autograd.grad(loss(q.requires_grad_(), c), q)[0] for q, c in clips]
    first, token = clips[0][0].detach(), clips[0][1]
    assert torch.equal(grad(loss)(first, token), expected[0])
    value, pull = vjp(lambda x: loss(x, token), first)
    assert torch.equal(pull(torch.ones((), device=DEVICE))[0], expected[0])
    mapped, classes = torch.stack([q for q, _ in clips], 1).detach(), torch.stack([c for _, c in clips])
    per_clip = vmap(grad(loss), in_dims=(1, 0))(mapped, classes)
    assert torch.equal(per_clip, torch.stack(expected))
    one_class = vmap(loss, in_dims=(1, None))(mapped, classes[0])
    torch.testing.assert_close(one_class[0], value)


def test_torch_func_of_add_norm() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 5, 8, device=DEVICE), torch.rand(8, device=DEVICE), torch.rand(8, device=DEVICE)

    def loss(weight: Tensor, x: Tensor) -> Tensor:
        total, normed = add_norm(x, x, weight, bias, 1e-6)
        return (total * normed.square()).sum()

    expected = []
    for one in x:
        leaf = weight.clone().requires_grad_()
        expected.append(torch.autograd.grad(loss(leaf, one), leaf)[0])
    assert torch.equal(vmap(grad(loss), in_dims=(None, 0))(weight, x), torch.stack(expected))


def test_what_torch_func_cannot_do_is_said() -> None:
    loss = transformed("absent")
    qkv, cls = (x.detach() for x in tensors())
    with pytest.raises(RuntimeError, match="grouped_attention_backward has no backward pass"):
        grad(lambda x: grad(loss)(x, cls).sum())(qkv)
    with pytest.raises(RuntimeError, match="jvp"):
        jvp(lambda x: loss(x, cls), (qkv,), (qkv,))
    first = torch.autograd.grad(loss(qkv.requires_grad_(), cls), qkv, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="grouped_attention_backward"):
        first.sum().backward()


@pytest.mark.parametrize(
    ("policy", "class_only", "pairs"),
    [
        # a 3 x 3 x 2 grid in two quadrants of 6 and two of 3 patches
        ("absent", False, 2 * 6 * 6 + 2 * 3 * 3),
        ("replicated", False, 2 * 7 * 7 + 2 * 4 * 4),
        ("replicated", True, 2 * 7 + 2 * 4),
        ("global", False, 2 * 6 * 7 + 2 * 3 * 4 + 19),
        ("global", True, 19),
    ],
)
def test_flops_by_hand(policy: str, class_only: bool, pairs: int) -> None:
    qkv, cls = tensors(heads=2, device="meta")  # counted by shapes: nothing has to be computed
    given = None if policy == "absent" else cls
    with FlopCounterMode(display=False) as counter:
        outputs = grouped_attention(qkv, given, STEPS["local"].tiles(GRID), policy, class_only=class_only)  # type: ignore[arg-type]
    assert counter.get_total_flops() == 2 * 2 * 16 * pairs * 4  # clips, heads, width, two products of 2 FLOPs
    with FlopCounterMode(display=False) as counter:
        sum(out.sum() for out in outputs if out is not None).backward()  # type: ignore[union-attr]
    assert counter.get_total_flops() == 2 * 2 * 16 * pairs * 10


def test_flops_of_a_model_equal_those_of_attention_written_out() -> None:
    """Forward: backward, ours computes the scores once more."""
    counts = []
    for backend in ("triton", "reference"):
        config = TimeSformerConfig.from_dict({**SMALL, "attention": "divided", "depth": 1, "backend": backend})
        with FlopCounterMode(display=False) as counter, torch.device("meta"):
            TimeSformer(config)(torch.zeros(2, *CLIP))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]


@pytest.mark.parametrize("attention", KERNEL_SCHEMES)
def test_cost_counts_our_operators(attention: str) -> None:
    """To the last MAC: fvcore's count of the traced model equals what the declaration says of PyTorch's attention."""
    ours, theirs = (
        TimeSformerConfig.from_dict({**SMALL, "attention": attention, "depth": 1, "backend": backend})
        for backend in ("triton", "sdpa")
    )
    found, expected = cost(ours), macs_per_view(theirs, kind="executed")
    assert found.macs_fvcore == found.macs_per_view == expected
    assert found.macs_needed == macs_per_view(theirs, kind="needed")


def test_pairs_of_an_uneven_layout() -> None:
    assert attention_pairs(LOCAL, 0) == 2 * 36 + 2 * 9
    assert attention_pairs(TIME, 1) == 6 * 16


def test_launches_read_no_value_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """No synchronisation, so that CUDA graphs can capture them: nothing asks a tensor for its numbers, forward or
    backward; addresses, shapes and strides are all that a launch takes."""

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("a tensor was read back")

    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "nonzero"):
        monkeypatch.setattr(Tensor, name, refused)

    class Recorder:
        def __init__(self) -> None:
            self.calls = 0

        def __getitem__(self, grid: tuple[int, int, int]) -> Any:
            assert all(type(size) is int for size in grid)

            def call(*arguments: Any, **options: Any) -> None:
                plain = [x.value if isinstance(x, tl.constexpr) else x for x in arguments]  # of the interpreter
                assert {type(x) for x in plain} <= {Tensor, torch.nn.Parameter, int, float}
                self.calls += 1

            return call

    recorder = Recorder()
    monkeypatch.setattr(launch, "KERNELS", dict.fromkeys(launch.KERNELS, recorder))
    for case in (
        Case("time", 8, "replicated", 16, torch.float32, "contiguous", "random", (3, 5)),
        Case("space", 2, "global", 16, torch.float32, "permuted", "random", (9, 9)),
    ):
        qkv, cls, _ = random_inputs(case)
        outputs = grouped_attention(qkv.requires_grad_(), cls.requires_grad_(), case.tiles, case.class_policy)
        torch.autograd.grad(
            [x for x in outputs if x is not None], [qkv, cls], [torch.ones_like(x) for x in outputs if x is not None]
        )
    assert recorder.calls == 2 + 2 + 3
