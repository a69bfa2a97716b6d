"""`timesformer export`: a checkpoint of any format in another one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from timesformer_experiments.cli.options import Json, SchemeFile
from timesformer_experiments.report.terminal import print_json, progress


def export(
    source: Annotated[str, typer.Argument(help="Folder, file or hub name of a checkpoint, of any known format.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    format: Annotated[
        str, typer.Option(help="hf-timesformer, hf-vivit, or timesformer-ablations, our own.")
    ] = "hf-timesformer",
    strict: Annotated[bool, typer.Option(help="Fail on weights that nothing explains.")] = True,
    scheme_file: SchemeFile = None,
    as_json: Json = False,
) -> None:
    """Convert a checkpoint; what became of every weight goes to standard error."""
    from timesformer.attention import load_file
    from timesformer.checkpoints import export as write
    from timesformer.checkpoints import load_model

    if scheme_file is not None:
        load_file(scheme_file)
    loaded = load_model(source, strict=strict)
    progress(str(loaded.report))
    folder = write(loaded, out, format)
    if as_json:
        print_json({"folder": str(folder), "format": format, "weights": loaded.report.counts()})
    else:
        print(folder)
