"""`timesformer status`: how far a sweep is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from timesformer_experiments.cli.options import Json
from timesformer_experiments.report.terminal import console, print_json


def status(
    folder: Annotated[Path, typer.Argument(help="Folder of a sweep.")],
    as_json: Json = False,
) -> None:
    """Show the progress of a sweep from its folder.

    The sweep may be running at the same time, on this machine or another.
    """
    from timesformer_experiments.sweep.status import show, sweep_status

    found = sweep_status(folder)
    if as_json:
        print_json(found.to_dict())
    else:
        console().print(show(found))
