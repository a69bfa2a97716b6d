"""`timesformer draw`: picture of an attention scheme."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from timesformer_experiments.cli.options import SchemeFile, SchemeOptions, attention_named, bad_input


def draw(
    scheme: Annotated[str, typer.Argument(help="Name of the attention scheme.")],
    out: Annotated[Path, typer.Option(help="Picture to write: .png, .svg or .pdf.")],
    option: SchemeOptions = None,
    scheme_file: SchemeFile = None,
    grid: Annotated[str, typer.Option(help="Number of frames, rows and columns of patches.")] = "3x4x4",
    reach: Annotated[
        bool, typer.Option("--reach", help="Draw instead which patches a patch can depend on after each step.")
    ] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="With --reach: number of steps to draw.")] = None,
    blocks: Annotated[int | None, typer.Option(min=1, help="With --reach: number of blocks to draw.")] = None,
    bridge: Annotated[
        bool, typer.Option(help="With --reach: whether information passes through the class token.")
    ] = True,
) -> None:
    """Draw which patches a query attends to in each step of a scheme.

    With --reach, draw which patches it can depend on after each step.
    """
    from timesformer.attention import build, load_file
    from timesformer.files import write_atomic
    from timesformer.maps import draw_reach, draw_scheme

    if scheme_file is not None:
        load_file(scheme_file)
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise bad_input(f"--out {out}: expected a name that ends in .png, .svg or .pdf")
    if not reach and (steps is not None or blocks is not None or not bridge):
        raise bad_input("--steps, --blocks, --no-bridge: expected only together with --reach")
    chosen = build(attention_named(scheme, option))
    if reach:
        figure = draw_reach(chosen, grid=_grid(grid), steps=steps, blocks=blocks, bridge=bridge)
    else:
        figure = draw_scheme(chosen, grid=_grid(grid))
    write_atomic(out, lambda path: figure.savefig(path, dpi=150, bbox_inches="tight"))
    print(out)


def _grid(text: str) -> tuple[int, int, int]:
    try:
        t, h, w = (int(side) for side in text.split("x"))
    except ValueError as error:
        raise bad_input(f"--grid {text}: expected frames, rows and columns of patches, such as 3x4x4") from error
    if min(t, h, w) < 1:
        raise bad_input(f"--grid {text}: expected at least one patch along every axis")
    return t, h, w
