"""`timesformer draw`, `probe` and `bench`: pictures of schemes, synthetic data, speed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli_options import Json, SchemeFile, bad_input, console, print_json, progress


def draw(
    scheme: Annotated[str, typer.Argument(help="Name of a scheme.")],
    out: Annotated[Path, typer.Option(help="Picture to write: .png, .svg or .pdf.")],
    scheme_file: SchemeFile = None,
    grid: Annotated[str, typer.Option(help="Frames, rows and columns of patches.")] = "3x4x4",
) -> None:
    """Draw which patches a query sees in every step of a scheme."""
    from timesformer.attention import build, load_file
    from timesformer.checkpoints import write_atomic
    from timesformer.maps import draw_scheme

    if scheme_file is not None:
        load_file(scheme_file)
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise bad_input(f"--out {out}: expected a name that ends in .png, .svg or .pdf")
    figure = draw_scheme(build(scheme), grid=_grid(grid))
    write_atomic(out, lambda path: figure.savefig(path, dpi=150, bbox_inches="tight"))
    print(out)


def _grid(text: str) -> tuple[int, int, int]:
    try:
        t, h, w = (int(side) for side in text.split("x"))
    except ValueError as error:
        raise bad_input(f"--grid {text}: expected frames, rows and columns of patches, as 3x4x4") from error
    if min(t, h, w) < 1:
        raise bad_input(f"--grid {text}: expected at least one patch along every axis")
    return t, h, w


def probe(
    name: Annotated[str, typer.Argument(help="appearance or motion.")],
    out: Annotated[Path, typer.Option(help="Folder in which the probe's own folder is made.")],
    num_train: Annotated[int, typer.Option(min=1, help="Training videos.")] = 1024,
    num_test: Annotated[int, typer.Option(min=1, help="Test videos; even for motion.")] = 256,
    difficulty: Annotated[str, typer.Option(help="Name of a difficulty: quick, full.")] = "quick",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the videos.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    diagnose: Annotated[bool, typer.Option(help="Also write contact sheet and cheap classifiers beside it.")] = False,
    as_json: Json = False,
) -> None:
    """Make a probe: H.264 videos with Kinetics-style csv files and a mask of the main object in every frame."""
    from experiments.probes import describe
    from experiments.report import require_writable
    from timesformer.data.probes import make_probe

    require_writable(out)
    info = make_probe(
        name, out, num_train=num_train, num_test=num_test, seed=seed, difficulty=difficulty, workers=workers
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


def bench(
    out: Annotated[Path, typer.Option(help="Folder of the record.")] = Path("results/bench"),
    repetitions: Annotated[int, typer.Option(min=1, help="Interleaved repetitions of each forward pass.")] = 5,
    threads: Annotated[int, typer.Option(min=0, help="Threads of torch; 0: torch's own choice.")] = 0,
    as_json: Json = False,
) -> None:
    """Measure speed and memory on CPU against transformers' TimesformerForVideoClassification (a few minutes)."""
    from experiments import bench as benches
    from experiments.report import require_writable
    from experiments.tables import to_csv, to_markdown, to_rich
    from timesformer.checkpoints import write_atomic

    require_writable(out)
    record = benches.run(benches.CASES, repetitions=repetitions, threads=threads or None, progress=progress)
    table = benches.table(record)
    write_atomic(out / "cpu_vs_transformers.json", (json.dumps(record, indent=2) + "\n").encode())
    write_atomic(out / "cpu_vs_transformers.csv", to_csv(table).encode())
    write_atomic(out / "cpu_vs_transformers.md", f"# {table.caption}\n\n{to_markdown(table)}".encode())
    if as_json:
        print_json(record)
    else:
        console().print(to_rich(table))
