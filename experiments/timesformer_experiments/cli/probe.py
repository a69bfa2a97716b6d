"""`timesformer probe`: a synthetic dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from timesformer_experiments.cli.options import Json, bad_input
from timesformer_experiments.report.terminal import console, print_json


def probe(
    name: Annotated[str, typer.Argument(help="appearance, motion, order, detail or mixture.")],
    out: Annotated[Path, typer.Option(help="Folder in which the probe's own folder is made.")],
    num_train: Annotated[int, typer.Option(min=1, help="Training videos.")] = 1024,
    num_test: Annotated[int, typer.Option(min=1, help="Test videos; in whole pairs or fours.")] = 256,
    difficulty: Annotated[str, typer.Option(help="Name of a difficulty: quick, full.")] = "quick",
    dial: Annotated[
        list[str] | None,
        typer.Option(help="A dial of this probe, as temporal_share=0.3 or gaps=[1,2]; may be given several times."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the videos.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    diagnose: Annotated[bool, typer.Option(help="Also write contact sheet and cheap classifiers beside it.")] = False,
    as_json: Json = False,
) -> None:
    """Make a probe: H.264 videos with Kinetics-style csv files and a mask of the main object in every frame.

    appearance: what is seen; motion: how it moves; mixture: a dial between the two (temporal_share); order: which of
    two events came first (video_frames, event_frames, gaps); detail: a texture that shows only at higher resolution
    (scales, pattern_contrast).
    """
    from timesformer.data.probes import make_probe
    from timesformer_experiments.paper.probes import describe
    from timesformer_experiments.report.report import require_writable

    require_writable(out)
    info = make_probe(
        name,
        out,
        num_train=num_train,
        num_test=num_test,
        seed=seed,
        difficulty=difficulty,
        dials=dict(map(_dial, dial or [])),
        workers=workers,
    )
    files = [info.train_csv, info.test_csv]
    if diagnose:
        files += describe(info, out, info.folder.name)
    if as_json:
        print_json(
            {"folder": str(info.folder), "fingerprint": info.fingerprint, "files": [str(path) for path in files]}
        )
    else:
        console().print(*map(str, files), sep="\n", highlight=False, soft_wrap=True)


def _dial(text: str) -> tuple[str, Any]:
    """Name and value of `name=value`; the value is YAML."""
    name, sign, value = text.partition("=")
    try:
        if not sign:
            raise bad_input(f"--dial {text}: expected name=value, as temporal_share=0.3")
        return name.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise bad_input(f"--dial {text}: the value cannot be read") from error
