"""Bytes that a divided block only copies: tokens into groups and back, class tokens repeated and concatenated.

`python -m timesformer_experiments.bench.copies --out results/kernels` counts them for the released block and for ours,
forward and backward.  Nothing is computed: the tensors are fake, and our operators stop before they launch kernels.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest.mock import DEFAULT, patch

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch._library.custom_ops import OPDEFS
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from timesformer import TimeSformerConfig
from timesformer.attention import build
from timesformer.models.blocks import Attention, Block
from timesformer_kernels import launch, norm_kernels

MOVES = frozenset(
    """_to_copy as_strided_copy cat clone constant_pad_nd contiguous copy_ fill_ gather index index_put index_select
    masked_scatter new_zeros ones repeat roll scatter select_backward select_scatter slice_backward slice_scatter stack
    zero_ zeros zeros_like""".split()  # noqa: SIM905
)
"""Operations of aten that compute nothing; conversions to another dtype are left out."""

Form = Literal["released", "released_sdpa", "sdpa", "triton"]
FORMS: dict[Form, str] = {
    "released": "as released: frames, patch positions and class tokens regrouped, attention written out",
    "released_sdpa": "as released, with PyTorch's fused attention",
    "sdpa": 'ours, `backend="sdpa"`',
    "triton": 'ours, `backend="triton"`',
}


class CopyCounter(TorchDispatchMode):
    """Mode that counts the bytes written by layout operations, by operation, also inside our operators."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "timesformer":
            with self, without_launches():
                return OPDEFS[func._schema.name]._init_fn(*args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if name in MOVES and not _converts(name, args) and not (name == "contiguous" and out is args[0]):
            self.bytes[name] += sum(x.numel() * x.element_size() for x in tree_leaves(out) if isinstance(x, Tensor))
        return out


def _converts(name: str, args: Any) -> bool:
    return name == "_to_copy" or (name == "copy_" and args[0].dtype != args[1].dtype)


class _NoLaunch:
    """Substitute for a kernel that does nothing."""

    def __getitem__(self, grid: Any) -> Any:
        return lambda *args, **options: None


@contextmanager
def without_launches() -> Iterator[None]:
    """Let our operators allocate and copy as usual inside, without starting kernels."""
    names = ("add_norm_forward", "add_norm_backward")
    with (
        patch.dict(launch.KERNELS, {name: _NoLaunch() for name in launch.KERNELS}),
        patch.multiple(norm_kernels, new_callable=_NoLaunch, **dict.fromkeys(names, DEFAULT)),
    ):
        yield


class ReleasedBlock(nn.Module):
    """A divided block with the memory layout of the released code and the weights of one of our blocks.

    Input and output are tokens (b, 1 + h * w * t, d): the class token, then the patches with time fastest.  Written
    from a description of the released code.
    """

    def __init__(self, block: Block, grid: tuple[int, int, int], fused_attention: bool = False) -> None:
        super().__init__()
        self.block, self.grid, self.fused_attention = block, grid, fused_attention

    def attention(self, step: Attention, x: Tensor) -> Tensor:
        """Apply self-attention to sequences (n, s, d)."""
        assert step.qkv is not None
        qkv = step.qkv(x).reshape(*x.shape[:2], 3, step.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        if self.fused_attention:
            out = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            out = ((q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5).softmax(-1) @ v
        projected: Tensor = step.proj(out.transpose(1, 2).reshape(x.shape))
        return projected

    def forward(self, x: Tensor) -> Tensor:
        (t, h, _), b = self.grid, len(x)
        time, space, mlp = self.block._step("time"), self.block._step("space"), self.block.mlp
        assert time.fc is not None
        cls, patches = x[:, :1], x[:, 1:]
        sequences = rearrange(patches, "b (n t) d -> (b n) t d", t=t)
        more = self.attention(time, time.norm(sequences))
        patches = patches + time.fc(rearrange(more, "(b n) t d -> b (n t) d", b=b))
        copies = repeat(cls, "b 1 d -> (b t) 1 d", t=t)
        frames = torch.cat([copies, rearrange(patches, "b (h w t) d -> (b t) (h w) d", t=t, h=h)], 1)
        more = self.attention(space, space.norm(frames))
        more_cls = rearrange(more[:, 0], "(b t) d -> b t d", t=t).mean(1, keepdim=True)
        more = rearrange(more[:, 1:], "(b t) (h w) d -> b (h w t) d", t=t, h=h)
        x = torch.cat([cls, patches], 1) + torch.cat([more_cls, more], 1)
        out: Tensor = x + mlp.one(x)
        return out


def make_block(backend: Literal["sdpa", "triton"], channels: int, heads: int) -> Block:
    """Return a block of the divided scheme."""
    config = TimeSformerConfig(attention="divided", backend="sdpa", embed_dim=channels, num_heads=heads)
    block = Block(build("divided").encoders[0], config, drop_path=0.0)
    block.fused_norm = backend == "triton"
    for step in block.steps.values():
        assert isinstance(step, Attention)
        step.backend = backend
    return block


def copied(
    form: Form, grid: tuple[int, int, int] = (8, 14, 14), channels: int = 768, heads: int = 12, batch: int = 2
) -> dict[str, Counter[str]]:
    """Count the bytes written by layout operations in bf16, by operation, `forward` and `backward`."""
    # PyTorch's attention is fused on a (fake) CPU; our operators run on the meta device without a GPU.
    with FakeTensorMode(), torch.device("meta" if form == "triton" else "cpu"):
        usual = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            return _copied(form, grid, channels, heads, batch)
        finally:
            torch.set_default_dtype(usual)


def _copied(form: Form, grid: tuple[int, int, int], channels: int, heads: int, batch: int) -> dict[str, Counter[str]]:
    def tokens(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, channels, requires_grad=True)

    block = make_block("triton" if form == "triton" else "sdpa", channels, heads)
    released = ReleasedBlock(block, grid, fused_attention=form == "released_sdpa")
    patches, cls, x = tokens(*grid), tokens(), tokens(1 + grid[0] * grid[1] * grid[2])
    with CopyCounter() as forward:
        found = released(x) if form.startswith("released") else block(patches, cls)
    outputs = [found] if isinstance(found, Tensor) else list(found)
    given = [torch.empty_like(out) for out in outputs]
    with CopyCounter() as backward:
        torch.autograd.backward(outputs, given)
    return {"forward": forward.bytes, "backward": backward.bytes}


def report(**sizes: Any) -> dict[str, Any]:
    """Return the record: the bytes of a clip for each form and direction, by operation."""
    batch = 2
    counts = {form: copied(form, batch=batch, **sizes) for form in FORMS}
    return {
        "command": "python -m timesformer_experiments.bench.copies --out results/kernels",
        "unit": "bytes that layout operations write, one clip, one divided block, bf16",
        "torch": torch.__version__,
        "sizes": {"grid": [8, 14, 14], "channels": 768, "heads": 12} | sizes,
        "forms": {
            form: {
                direction: {"bytes": sum(found.values()) // batch}
                | {"by_operation": {name: size // batch for name, size in sorted(found.items())}}
                for direction, found in directions.items()
            }
            for form, directions in counts.items()
        },
    }


def to_markdown(record: dict[str, Any]) -> str:
    """Return the record as a table, in MB and in percent of the bytes of the released form."""
    t, h, w = record["sizes"]["grid"]
    unit = t * h * w * record["sizes"]["channels"] * 2
    lines = [
        "# Bytes copied by layout operations in a divided block",
        "",
        f"Written by copies, concatenations, repeats, fills and their gradients, one clip of {t} × {h * w} patches of "
        f"{record['sizes']['channels']} channels, bf16; one pass over the patches is {unit / 1e6:.2f} MB.  Counted by "
        f"a dispatch mode with torch {record['torch']}: `{record['command']}`.",
        "",
        "| block | forward, MB | of the released | backward, MB | of the released | which, forward · backward |",
        "|---|---|---|---|---|---|",
    ]
    forms = record["forms"]
    for form, found in forms.items():
        cells = [FORMS[form]]
        for direction in ("forward", "backward"):
            size, base = found[direction]["bytes"], forms["released"][direction]["bytes"]
            cells += [f"{size / 1e6:.2f}", f"{100 * size / base:.1f} %"]
        named = [", ".join(found[d]["by_operation"]) or "none" for d in ("forward", "backward")]
        lines.append(f"| {' | '.join([*cells, ' · '.join(named)])} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Count the bytes and write `copies.json` and `copies.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    record = report()
    (out / "copies.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (out / "copies.md").write_text(to_markdown(record), encoding="utf-8")


if __name__ == "__main__":
    main()
