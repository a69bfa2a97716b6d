"""`timesformer probe`: make a synthetic dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from timesformer_experiments.cli.options import Json, bad_input
from timesformer_experiments.report.terminal import print_json, print_text


def probe(
    name: Annotated[str, typer.Argument(help="Kind of probe: one of those below.")],
    out: Annotated[Path, typer.Option(help="Folder in which to create the folder of the probe.")],
    num_train: Annotated[int, typer.Option(min=1, help="Number of training videos.")] = 1024,
    num_test: Annotated[
        int, typer.Option(min=1, help="Number of test videos, which come in groups of two, four or eight.")
    ] = 256,
    num_val: Annotated[int, typer.Option(min=0, help="Number of validation videos, in the same groups.")] = 0,
    difficulty: Annotated[str, typer.Option(help="Difficulty: quick or full.")] = "quick",
    dial: Annotated[
        list[str] | None,
        typer.Option(help="Setting of this kind of probe, such as temporal_share=0.3 or gaps=[1,2]; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the videos.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 1,
    diagnose: Annotated[
        bool, typer.Option(help="Also write a contact sheet and the accuracy of cheap classifiers.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a probe, a synthetic video dataset that tests one ability.

    The videos are H.264, with Kinetics-style csv files and a mask of the main object in every frame. Classes are, by
    kind of probe (settings for --dial in brackets):

    appearance: what is seen.

    motion: how it moves.

    mixture: both, in a chosen proportion (temporal_share).

    order: which of two events came first (video_frames, event_frames, gaps).

    detail: a texture that is visible only at higher resolution (scales, pattern_contrast).

    match: which way random textures move, by whole patches (move, distance, grid).

    spin: which way a ring of textures turns (ring, drift, grid).

    contact: whether twins at an offset have one colour (max_offset, pairs, grid).

    cue: where a texture was that is asked for later (gap, cue_distractors, question_patches).

    bind: which object does which motion (speed, grid).

    shell: where the cups end that were marked (patches_per_frame, grid).

    The last six also have video_frames.
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
        num_val=num_val,
        seed=seed,
        difficulty=difficulty,
        dials=dict(map(_dial, dial or [])),
        workers=workers,
    )
    files = [path for path in (info.train_csv, info.test_csv, info.val_csv) if path is not None]
    if diagnose:
        files += describe(info, out, info.folder.name)
    if as_json:
        print_json(
            {"folder": str(info.folder), "fingerprint": info.fingerprint, "files": [str(path) for path in files]}
        )
    else:
        print_text(*map(str, files))


def _dial(text: str) -> tuple[str, Any]:
    """Return name and value of `name=value`; the value is YAML."""
    from timesformer.config.yaml_text import parse_yaml

    name, sign, value = text.partition("=")
    try:
        if not sign:
            raise bad_input(f"--dial {text}: expected name=value, such as temporal_share=0.3")
        return name.strip(), parse_yaml(value, f"--dial {text}")
    except yaml.YAMLError as error:
        raise bad_input(f"--dial {text}: expected a value in YAML, such as 0.3 or [1,2]") from error
