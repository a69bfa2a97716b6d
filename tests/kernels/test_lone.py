"""The lone query of the class token: one part of keys, many, and parts that are short or hold the class token alone."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.library import opcheck

from tests.kernels.kernel_cases import DEVICE, STEPS, Case, random_inputs, run
from tests.kernels.test_grouped import check, empty_is_nan, kernels
from timesformer_kernels import grouped_attention, launch
from timesformer_kernels.launch import Keys
from timesformer_kernels.layout import layout_numbers

ROOT = Path(__file__).parents[2]
__all__ = ["empty_is_nan"]


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Setter of the number of parts of every group that has as many whole blocks; without it, the rule holds."""

    def force(wanted: int) -> None:
        def split(size: int, block: int, programs: int) -> Keys:
            found = max(1, min(wanted, size // block))
            return Keys(found, size // block % found, size // block // found * block)

        monkeypatch.setattr(launch, "split", split)
        launch.problems.cache_clear()

    yield force
    launch.problems.cache_clear()


def test_parts_by_hand() -> None:
    """A clip of 8 x 14 x 14 patches with 12 heads, then of 16 x 28 x 28; blocks of 64 keys."""
    assert launch.split(1568, 64, 12) == Keys(12, 0, 128)
    assert launch.split(1568, 64, 12 * 4) == Keys(5, 4, 256)  # 24 blocks
    assert launch.split(1568, 64, 12 * 32) == Keys(1, 0, 1536)  # there are programs enough
    assert launch.split(12544, 64, 12) == Keys(21, 7, 576)  # 196 blocks
    assert launch.split(10**6, 64, 1) == Keys(32, 9, 31232)  # no more than one program adds
    assert launch.split(1023, 64, 1) == Keys(1, 0, 960)  # a second launch would take longer
    assert launch.split(7, 64, 1) == Keys(1, 0, 0)  # no whole block


def test_parts_hold_every_whole_block_once_and_none_is_empty() -> None:
    sizes, programs = (1, 63, 64, 1024, 1025, 1087, 1600, 9999, 70000), (1, 3, 12, 100, 129, 10**6)
    for size, block, before in itertools.product(sizes, (16, 32, 64), programs):
        parts, extra, keys = launch.split(size, block, before)
        assert parts * keys + extra * block == size // block * block
        assert 0 <= extra < parts <= launch.MOST_PARTS
        assert keys % block == 0
        if parts > 1:
            assert size >= launch.SPLIT
            assert keys >= launch.PART
            assert parts * before <= launch.ENOUGH


def lone(patches: int, dtype: torch.dtype = torch.float32, width: int = 16, **fields: Any) -> Case:
    """One group of a row of patches, whose class token is the only query."""
    given = {"layout": "contiguous", "gradient": "random", "batch": 1, **fields}
    return Case("joint", 1, "global_class_only", width, dtype, size=(1, patches), **given)


CASES = [
    (lone(31), 4),  # no whole block of 32
    (lone(65), 2),  # two parts of a block; one patch and the class token are left
    (lone(64), 2),  # the class token alone is left
    (lone(161, heads=2), 3),  # parts of 2, 2 and 1 blocks: the last is short
    (lone(350, layout="permuted"), 10),  # many
    (lone(201, torch.bfloat16, 20), 3),
    (lone(257, torch.float16, 32, layout="every_second", gradient="stride_zero"), 3),
    (lone(100, torch.bfloat16, 80), 3),  # blocks of 32
    (Case("local", 3, "class_only", 16, torch.float32, "offset", "random", (9, 13), batch=1), 2),  # uneven groups
    (Case("global", 4, "weighted", 16, torch.float16, "contiguous", "random", (9, 9), batch=1), 3),
    (Case("global", 2, "global", 16, torch.float32, "expanded", "stride_zero", (7, 9), batch=2), 3),
]
MANY = [(lone(32 * 33 + 5), 32), (lone(64 * 34 + 63, torch.bfloat16, 64), 32)]


@pytest.mark.usefixtures("empty_is_nan")
@pytest.mark.parametrize(
    ("case", "wanted"), [*CASES, *(pytest.param(*given, marks=pytest.mark.slow) for given in MANY)], ids=str
)
def test_values_and_gradients(case: Case, wanted: int, parts: Any) -> None:
    parts(wanted)
    check(case)


def results(case: Case) -> list[Tensor]:
    qkv, cls, _ = random_inputs(case)
    return run(lambda q, c: kernels(case, q, c, None), qkv, cls, case.gradient)


def test_many_parts_differ_from_one_by_rounding_and_never_from_themselves(parts: Any) -> None:
    for case in (lone(300), lone(300, torch.bfloat16)):
        parts(1)
        whole = results(case)
        for wanted in (2, 4):
            parts(wanted)
            found, again = results(case), results(case)
            assert all(torch.equal(x, y) for x, y in zip(found, again, strict=True))
            for x, y in zip(found, whole, strict=True):
                assert float((x - y).abs().max()) <= 4 * torch.finfo(case.dtype).eps * float(y.abs().max())


class Recorder:
    """Stands in for the kernels; keeps the name and the grid of each launch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.launches: list[tuple[str, tuple[int, ...]]] = []
        monkeypatch.setattr(launch, "KERNELS", {name: self.kernel(name) for name in launch.KERNELS})

    def kernel(self, name: str) -> Any:
        recorder = self

        class Kernel:
            def __getitem__(self, grid: tuple[int, ...]) -> Any:
                return lambda *arguments, **options: recorder.launches.append((name, grid))

        return Kernel()


@pytest.mark.parametrize(("batch", "parts_each"), [(1, 12), (4, 5), (32, 1)])
def test_a_launch_has_the_parts_of_the_rule(batch: int, parts_each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    qkv = torch.zeros(1, 8, 14, 14, 3, 12, 16, device=DEVICE).expand(batch, -1, -1, -1, -1, -1, -1)
    cls = torch.zeros(batch, 3, 12, 16, device=DEVICE, requires_grad=True)
    _, out = grouped_attention(qkv, cls, STEPS["joint"].tiles((8, 14, 14)), "global", class_only=True)
    assert out is not None
    out.sum().backward()
    forward, backward = ("lone_forward", (12, parts_each, batch)), ("lone_backward", (12, parts_each, batch))
    combined = [("lone_combine", (12, 1, batch))] if parts_each > 1 else []
    assert recorder.launches == [forward, *combined, backward]


def test_opcheck_and_transforms_of_a_split_group(parts: Any) -> None:
    parts(3)
    tiles = STEPS["joint"].tiles((1, 9, 11))
    torch.manual_seed(0)
    qkv = torch.randn(2, 1, 9, 11, 3, 1, 16, device=DEVICE, requires_grad=True)
    cls = torch.randn(2, 3, 1, 16, device=DEVICE, requires_grad=True)
    layout = layout_numbers(tiles)
    opcheck(torch.ops.timesformer.grouped_attention.default, (qkv, cls, layout, 3))
    given = qkv.detach(), cls.detach()
    saved = torch.ops.timesformer.grouped_attention(*given, layout, 3)
    ones = torch.ones_like(saved[0]), torch.ones_like(saved[1])
    opcheck(torch.ops.timesformer.grouped_attention_backward.default, (*ones, *given, *saved, layout, 3))

    def loss(q: Tensor, c: Tensor) -> Tensor:
        out = grouped_attention(q, c, tiles, "global", class_only=True)[1]
        assert out is not None
        return out.square().sum()

    expected = torch.autograd.grad(loss(qkv, cls), [qkv, cls])
    found = vmap(grad(loss, argnums=(0, 1)))(given[0][:, None], given[1][:, None])
    for x, y in zip(found, expected, strict=True):
        assert torch.equal(x[:, 0], y)


COMPILE = """
import torch
from timesformer_kernels import AxisTile, Tile, grouped_attention
device = "cuda" if torch.cuda.is_available() else "cpu"
tile = Tile(AxisTile(0, 1, 0, 1, 1, 1), AxisTile(0, 1, 0, 32, 32, 1), AxisTile(0, 1, 0, 33, 33, 1))
torch.manual_seed(0)
qkv = torch.randn(1, 1, 32, 33, 3, 1, 16, device=device, requires_grad=True)
cls = torch.randn(1, 3, 1, 16, device=device, requires_grad=True)
def attention(qkv, cls):
    return grouped_attention(qkv, cls, [tile], "global", class_only=True)[1]
found = []
for call in (attention, torch.compile(attention, fullgraph=True, backend="aot_eager")):
    out = call(qkv, cls)
    found.append([out, *torch.autograd.grad(out.square().sum(), [qkv, cls])])
assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))
print("same")
"""


@pytest.mark.slow
def test_a_split_group_compiles_without_a_graph_break() -> None:
    """In a process of its own, as the type checks of the tests are no code to compile.  The rule splits 1056 keys."""
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "same", done.stderr
