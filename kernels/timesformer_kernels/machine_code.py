"""Machine code of a kernel: its instructions, and the loop that computes products.

It reads the text of NVIDIA's disassembler, which Triton ships.
"""

import re
import subprocess
import tempfile
from dataclasses import dataclass

import triton

PRODUCT = re.compile(r"(HMMA|HGMMA|UTC\w*MMA|FFMA)\b")
"""Products by tensor cores, and by the fp32 units."""


@dataclass(frozen=True)
class Loop:
    """A loop in the machine code of a kernel, in instructions per warp and iteration.

    `in_flight` is the smallest number of asynchronous copies (groups of them, as the kernel commits them) that may
    still be on their way after a wait of the loop: 0 if it waits for everything, so that nothing is read ahead.
    `product_waits` counts the waits for Hopper's asynchronous products.
    """

    instructions: int
    in_flight: int
    product_waits: int


def disassemble(cubin: bytes) -> tuple[dict[str, int], str]:
    """Return a kernel's resource usage (REG, STACK, SHARED, LOCAL) and the text of its machine code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
        code = subprocess.run([tool, "-sass", file.name], capture_output=True, text=True, check=True).stdout
    found = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", usage)}
    return found, code


def loops(code: str) -> list[Loop]:
    """Return the loops that compute products, in the order of the code.

    A loop reaches from the target of a jump backwards to the jump.  After the last EXIT there are only parts that wait
    for a barrier again; their jumps back are no loops.
    """
    found = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([^;]*?)\s*;", code)
    instructions = [(int(address, 16), text) for address, text in found]
    end = max((address for address, text in instructions if re.match(r"EXIT\b", text)), default=0)
    made = []
    for address, text in instructions:
        jump = re.match(r"BRA\b.*?(0x[0-9a-f]+)", text)
        if jump is None or not (target := int(jump[1], 16)) < address < end:
            continue
        body = [line for at, line in instructions if target <= at <= address]
        if any(PRODUCT.match(line) for line in body):
            left = [int(count, 16) for line in body for count in re.findall(r"^DEPBAR\.LE SB0, (0x[0-9a-f]+)", line)]
            products = sum(line.startswith("WARPGROUP.DEPBAR") for line in body)
            made.append(Loop(len(body), min(left, default=0), products))
    return made
