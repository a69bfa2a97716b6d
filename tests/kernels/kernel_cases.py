"""Cases for the kernels, their inputs, and the rule by which an error is judged."""

import itertools
import random
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from timesformer.attention import ALL, EACH, Grid, Partition, blocks, stride
from timesformer_kernels import Tile, reference_groups
from timesformer_kernels.grouped import is_short
from timesformer_kernels.launch import blocks_for

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

STEPS = {
    "time": Partition(ALL, EACH, EACH),
    "space": Partition(EACH, ALL, ALL),
    "joint": Partition(ALL, ALL, ALL),
    "width": Partition(EACH, EACH, ALL),
    "height": Partition(EACH, ALL, EACH),
    "local": Partition(ALL, blocks(2), blocks(2)),
    "global": Partition(stride(2), stride(2), stride(2)),
}
FRAMES = (1, 2, 5, 8, 16, 32, 96)
SIZES = ((3, 5), (5, 3), (7, 5), (1, 7), (9, 9), (1, 1), (3, 1), (13, 11))
POLICIES = ("absent", "replicated", "weighted", "class_only", "global", "global_class_only")
"""The class token's policies; `weighted` is replicated with group weights, `class_only` replicated."""
WIDTHS = (16, 32, 64, 80, 128, 20)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = ("contiguous", "offset", "permuted", "expanded", "every_second")
GRADIENTS = ("random", "stride_zero")
DEAREST = 600
"""Products of two blocks that the interpreter may compute in a case: about 5 ms each."""
DEAR = 50
"""More than that: a slow case."""


@dataclass(frozen=True)
class Case:
    """One call of `grouped_attention`, forward and backward."""

    step: str
    frames: int
    policy: str
    width: int
    dtype: torch.dtype
    layout: str
    gradient: str
    size: tuple[int, int]
    heads: int = 1
    batch: int = 2

    def __str__(self) -> str:
        size = "x".join(map(str, self.grid))
        return f"{self.step}-{size}-{self.policy}-e{self.width}-{str(self.dtype)[6:]}-{self.layout}-{self.gradient}"

    @property
    def grid(self) -> Grid:
        return self.frames, *self.size

    @property
    def tiles(self) -> tuple[Tile, ...]:
        return STEPS[self.step].tiles(self.grid)

    @property
    def class_policy(self) -> Literal["absent", "replicated", "global"]:
        return "absent" if self.policy == "absent" else "global" if "global" in self.policy else "replicated"

    @property
    def class_only(self) -> bool:
        return "class_only" in self.policy

    def products(self) -> int:
        """How many blocks its kernels go through, forward and backward."""
        tiles, cls = self.tiles, self.policy != "absent"
        calls = [(tiles, 3 if self.class_only else int(cls))] if self.policy != "global_class_only" else []
        if self.class_policy == "global":
            calls.append((STEPS["joint"].tiles(self.grid), 3))
        found = 0
        for called, mode in calls:
            for tile in called:
                length = tile.group_size + cls
                if is_short(called, mode):
                    found += 2 * -(-tile.num_groups // (64 // length))
                    continue
                lone = ("lone_forward", "lone_backward")
                for kernel in lone if mode == 3 else ("long_forward", "long_backward_q", "long_backward_kv"):
                    blocks = blocks_for(kernel, length, self.width, self.dtype)
                    queries = 1 if mode == 3 else -(-length // blocks.rows)
                    found += tile.num_groups * queries * -(-length // blocks.columns)
        return found * self.heads * self.batch


def covering(seed: int = 8) -> list[Case]:
    """Cases in which every two values of two factors meet, each on a grid that the interpreter can afford."""
    factors: tuple[tuple[Any, ...], ...] = (tuple(STEPS), FRAMES, POLICIES, WIDTHS, DTYPES, LAYOUTS, GRADIENTS)
    draw = random.Random(seed)
    left = {
        (i, j, a, b)
        for i, j in itertools.combinations(range(len(factors)), 2)
        for a in range(len(factors[i]))
        for b in range(len(factors[j]))
    }

    def new_pairs(row: dict[int, int], factor: int, value: int) -> int:
        given = [(i, factor, v, value) if i < factor else (factor, i, value, v) for i, v in row.items()]
        return sum(pair in left for pair in given)

    cases: list[Case] = []
    while left:
        i, j, a, b = min(left)
        row = {i: a, j: b}
        others = [factor for factor in range(len(factors)) if factor not in row]
        for factor in draw.sample(others, len(others)):
            values = draw.sample(range(len(factors[factor])), len(factors[factor]))
            row[factor] = max(values, key=lambda value: new_pairs(row, factor, value))
        left -= {(i, j, row[i], row[j]) for i, j in itertools.combinations(range(len(factors)), 2)}
        cases.append(_affordable([factors[factor][row[factor]] for factor in range(len(factors))], len(cases)))
    return cases


def _affordable(values: list[Any], number: int) -> Case:
    """The next size in turn that is not too dear."""
    sizes = SIZES[number % len(SIZES) :] + SIZES[: number % len(SIZES)]
    cases = [Case(*values, size, 1 + number % 2, 1 + number % 3 // 2) for size in sizes]
    cases += [Case(*values, size, 1, 1) for size in sizes]
    return next(case for case in cases if case.products() <= DEAREST)


def laid_out(values: Tensor, layout: str) -> Tensor:
    """The values of (b, t, h, w, 3, k, e) or (b, 3, k, e) in a tensor of other strides (`expanded`: of one clip)."""
    if layout == "offset":  # a slice of a bigger buffer
        bigger = torch.full([n + 3 for n in values.shape], torch.nan, dtype=values.dtype, device=values.device)
        out = bigger[tuple(slice(1, 1 + n) for n in values.shape)]
    elif layout == "permuted":  # heads and channels first
        out = torch.empty(*reversed(values.shape), dtype=values.dtype, device=values.device)
        out = out.permute(*reversed(range(values.dim())))
    elif layout == "every_second":  # every second channel
        out = torch.full((*values.shape, 2), torch.nan, dtype=values.dtype, device=values.device)[..., 1]
    elif layout == "expanded":  # one clip for all: a batch stride of 0
        return values[:1].expand(values.shape)
    else:
        return values.clone()
    out.copy_(values)
    return out


def random_inputs(case: Case, seed: int = 0) -> tuple[Tensor, Tensor, Tensor | None]:
    """qkv, class token's qkv and group weights, with the case's strides."""
    generator = torch.Generator().manual_seed(seed)
    heads = (case.heads, case.width)
    qkv = torch.randn(case.batch, *case.grid, 3, *heads, generator=generator).to(DEVICE, case.dtype)
    cls = torch.randn(case.batch, 3, *heads, generator=generator).to(DEVICE, case.dtype)
    groups = sum(tile.num_groups for tile in case.tiles)
    weights = torch.rand(case.batch, groups, generator=generator).to(DEVICE) if case.policy == "weighted" else None
    return laid_out(qkv, case.layout), laid_out(cls, case.layout), weights


def written_out(case: Case, qkv: Tensor, cls: Tensor, weights: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """What `grouped_attention` computes, from `reference_groups`, in the inputs' dtype."""
    if case.class_policy == "absent":
        return reference_groups(qkv, None, case.tiles, 0)[0], None
    if case.class_policy == "replicated":
        out, groups = reference_groups(qkv, cls, case.tiles, 3 if case.class_only else 1)
        assert groups is not None
        if weights is not None:
            groups = groups * weights.to(groups.dtype)[:, :, None, None]
        return None if case.class_only else out, groups.mean(1)
    whole = STEPS["joint"].tiles(case.grid)
    token = reference_groups(qkv, cls, whole, 3)[1]
    assert token is not None
    return None if case.class_only else reference_groups(qkv, cls, case.tiles, 2)[0], token[:, 0]


def run(function: Any, qkv: Tensor, cls: Tensor, gradient: str) -> list[Tensor]:
    """Outputs of `function(qkv, cls)`, and the gradients of both inputs."""
    qkv, cls = qkv.detach().requires_grad_(), cls.detach().requires_grad_()
    outputs = [x for x in function(qkv, cls) if x is not None]
    generator = torch.Generator().manual_seed(1)
    given = [torch.randn(x.shape, generator=generator).to(DEVICE, qkv.dtype) for x in outputs]
    if gradient == "stride_zero":
        given = [x.flatten()[0].expand(x.shape) for x in given]
    found = torch.autograd.grad(
        outputs, [qkv, cls], [g.to(x.dtype) for g, x in zip(given, outputs, strict=True)], allow_unused=True
    )
    return [x.detach() for x in outputs] + [x for x in found if x is not None]


def judge(ours: list[Tensor], plain: list[Tensor], exact: list[Tensor], dtype: torch.dtype) -> None:
    """`err(kernel) <= 2 * (err(reference in that dtype) + rounding)`, both against float64."""
    assert len(ours) == len(plain) == len(exact)
    for number, (x, y, z) in enumerate(zip(ours, plain, exact, strict=True)):
        assert x.shape == z.shape
        assert torch.isfinite(x).all(), f"tensor {number}: not everything was written"
        rounding = torch.finfo(dtype).eps / 2 * float(z.abs().max())
        error, reference = (float((found.double() - z).abs().max()) for found in (x, y))
        assert error <= 2 * (reference + rounding), f"tensor {number}: {error:.3e}, the reference's {reference:.3e}"
