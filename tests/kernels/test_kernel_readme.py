"""The folder's README against the code and the committed tables."""

import csv
import json
import re
from pathlib import Path

import torch

from tests.kernels.kernel_cases import DEVICE, covering
from timesformer_kernels import launch
from timesformer_kernels.aot import to_markdown
from timesformer_kernels.auto import RULE_LENGTH

ROOT = Path(__file__).parents[2]
README = (ROOT / "kernels/README.md").read_text(encoding="utf-8")


def test_its_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    names = {
        "qkv": torch.randn(1, 8, 14, 14, 3, 1, 16, device=DEVICE),
        "cls_qkv": torch.randn(1, 3, 1, 16, device=DEVICE),
    }
    exec(code, names)
    assert names["patches"].shape == (1, 8, 14, 14, 1, 16)
    assert names["cls"].shape == (1, 1, 16)


def test_its_table_of_the_compiler_is_that_of_the_csv() -> None:
    with (ROOT / "results/kernels/aot.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert to_markdown(rows) in README
    assert f"{len(rows)} kernels" in README


def test_its_block_sizes_are_those_of_the_code() -> None:
    kernels = {
        ("long_forward", 128): "long, forward",
        ("long_forward", launch.LARGE): f"long, forward, from {launch.LARGE} tokens",
        ("long_backward_q", 128): "long, backward of queries",
        ("long_backward_kv", 128): "long, backward of keys",
        ("lone_forward", 128): "lone query",
        ("lone_backward", 128): "lone query",
    }
    found = {
        (name, length): [
            launch.blocks_for(name, length, *given)
            for given in ((64, torch.bfloat16), (64, torch.float32), (80, torch.float16))
        ]
        for name, length in kernels
    }
    for kernel, row in kernels.items():
        cells = [f"{b.rows} × {b.columns}" + (" with 8 warps" if b.warps == 8 else "") for b in found[kernel]]
        assert f"| {row} | {' | '.join(cells)} |" in README
    assert all(blocks.stages == 3 for some in found.values() for blocks in some)
    below = launch.blocks_for("long_forward", launch.LARGE - 1, 64, torch.bfloat16)
    assert below == launch.blocks_for("long_forward", 128, 64, torch.bfloat16)
    assert "| short | 64 | 32 up to 32 tokens, else 64 | 32 up to 32 tokens, else 64 with 8 warps |" in README
    for width, dtype in ((64, torch.float32), (80, torch.bfloat16)):
        short, longer = (launch.blocks_for("short_backward", length, width, dtype) for length in (32, 33))
        assert (short.rows, short.warps, longer.rows, longer.warps) == (32, 4, 64, 8)
    assert launch.blocks_for("short_forward", 8, 64, torch.bfloat16) == launch.Blocks(64, 0, 4, 1)


def test_its_other_figures() -> None:
    assert f"{len(covering())} combinations" in README
    assert f"groups of up to {RULE_LENGTH} tokens" in README
    assert f"groups from {launch.SPLIT:,} patches are split" in README
    assert f"{launch.ENOUGH} programs, in whole blocks of at least {launch.PART} keys a part" in README
    assert f"at most {launch.MOST_PARTS} parts" in README
    forms = json.loads((ROOT / "results/kernels/copies.json").read_text())["forms"]
    forward, backward = (forms["released"][direction]["bytes"] / 1e6 for direction in ("forward", "backward"))
    assert f"writes {forward:.1f} MB a clip in copies forward and {backward:.1f} MB backward" in " ".join(
        README.split()
    )
    assert forms["triton"]["forward"]["bytes"] == forms["triton"]["backward"]["bytes"] == 0
