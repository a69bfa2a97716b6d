"""Bytes that a divided block moves: the released form against ours."""

import json
from collections import Counter
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.kernels.kernel_cases import DEVICE, STEPS
from timesformer_experiments.bench import copies
from timesformer_experiments.bench.copies import FORMS, CopyCounter, ReleasedBlock, copied, main, make_block
from timesformer_kernels import add_norm, grouped_attention

ROOT = Path(__file__).parents[2]
GRID = (4, 3, 5)


@pytest.mark.parametrize("backend", ["sdpa", "triton"])
def test_the_released_form_computes_what_ours_computes(backend: str) -> None:
    grid = (2, 2, 3)
    torch.manual_seed(0)
    block = make_block(backend, 32, 2).to(DEVICE)  # type: ignore[arg-type]
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    patches, cls = torch.randn(2, *grid, 32, device=DEVICE), torch.randn(2, 32, device=DEVICE)
    tokens = torch.cat([cls[:, None], patches.permute(0, 2, 3, 1, 4).flatten(1, 3)], 1)
    with torch.no_grad():
        found, found_cls = block(patches, cls)
        for fused in (False, True):
            released = ReleasedBlock(block, grid, fused)(tokens)
            torch.testing.assert_close(found_cls, released[:, 0], rtol=1e-4, atol=1e-4)
            theirs = released[:, 1:].unflatten(1, (2, 3, 2)).permute(0, 3, 1, 2, 4)
            torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-4)


@lru_cache
def small_block(form: copies.Form) -> dict[str, Counter[str]]:
    """The bytes that a small block of this form moves."""
    return copied(form, GRID, channels=32, heads=2)


@pytest.mark.parametrize("form", FORMS)
def test_at_most_a_tenth_of_the_released_forms_bytes(form: copies.Form) -> None:
    ours, released = small_block("triton"), small_block(form)
    for direction in ("forward", "backward"):
        moved = sum(released[direction].values())
        assert sum(ours[direction].values()) <= moved / 10
        assert form == "triton" or moved > 3 * 2 * (4 * 3 * 5 * 32 * 2)  # more than three passes over the patches


def test_every_copy_is_counted() -> None:
    x = torch.zeros(4, 6)
    with CopyCounter() as counter:
        torch.cat([x, x])
        x.T.contiguous()
        x.new_zeros(3).copy_(x[0, :3])
        x[:, :2].copy_(x[:, :2].to(torch.float16))  # conversions, not copies
        x.view(24).unsqueeze(0).expand(3, -1)
        x + x
    assert counter.bytes == {"cat": 192, "clone": 96, "new_zeros": 12, "copy_": 12}


def test_copies_inside_our_operators_are_counted() -> None:
    """A gradient of stride 0 has to be laid out."""
    qkv = torch.randn(1, *GRID, 3, 1, 16, device="meta", requires_grad=True)
    out, _ = grouped_attention(qkv, None, STEPS["time"].tiles(GRID))
    assert out is not None
    with CopyCounter() as counter:
        out.sum().backward()
    assert counter.bytes["contiguous"] == 4 * out.numel()
    x, weight = torch.randn(3, 8, device="meta", requires_grad=True), torch.randn(8, device="meta")
    with CopyCounter() as counter:
        add_norm(x, x[:, :1].expand(3, 8), weight, weight, 1e-6)
    assert counter.bytes == {"contiguous": 4 * 3 * 8}


def test_the_committed_record_is_what_the_command_writes(tmp_path: Path) -> None:
    main(["--out", str(tmp_path)])
    committed = json.loads((ROOT / "results/kernels/copies.json").read_text())
    found = json.loads((tmp_path / "copies.json").read_text())
    assert found["forms"] == committed["forms"]
    for direction in ("forward", "backward"):
        ours, released = (found["forms"][form][direction]["bytes"] for form in ("triton", "released"))
        assert ours <= released / 10
    lines = (tmp_path / "copies.md").read_text().splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == 1 + len(FORMS)


def test_a_hand_count() -> None:
    """One released step forward: q, k and v laid out for the products, then the heads put side by side."""
    block = make_block("sdpa", 32, 2)
    step = block.steps["time"]
    x = torch.zeros(6, 5, 32)
    with CopyCounter() as counter:
        ReleasedBlock(block, GRID).attention(step, x)  # type: ignore[arg-type]
    assert counter.bytes == {"clone": 4 * (6 * 5 * 32 * 4)}
