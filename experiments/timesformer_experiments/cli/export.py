"""`timesformer export`: convert a checkpoint to another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from timesformer_experiments.cli.options import Json, Runs, SchemeFile, Trust, model_source
from timesformer_experiments.report.terminal import print_json, progress


def export(
    source: Annotated[
        str,
        typer.Argument(help="Folder, file or hub name of a checkpoint, or the YAML file of a run."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    format: Annotated[
        str,
        typer.Option(
            help="Format to write: hf-timesformer, hf-vivit, hf-videomae, hf-vjepa2, hf-dinov2, our own, "
            "timesformer-ablations, or a graph that runs without this library: onnx, torch-export."
        ),
    ] = "hf-timesformer",
    strict: Annotated[bool, typer.Option(help="Fail if a weight of the checkpoint is not recognised.")] = True,
    scheme_file: SchemeFile = None,
    trust: Trust = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Convert a checkpoint to another format.

    A report on standard error accounts for every weight.
    """
    from timesformer.checkpoints import export as write
    from timesformer.checkpoints import load_model

    loaded = load_model(model_source(source, runs), strict=strict, trust=trust, scheme_file=scheme_file)
    progress(str(loaded.report))
    folder = write(loaded, out, format)
    if as_json:
        print_json({"folder": str(folder), "format": format, "weights": loaded.report.counts()})
    else:
        print(folder)
