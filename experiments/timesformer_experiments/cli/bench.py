"""`timesformer draw`, `probe` and `bench`: pictures of schemes, synthetic data, speed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml

from timesformer_experiments.cli.options import Json, SchemeFile, bad_input, console, print_json, progress

CPU_BENCHES = ("transformers", "loader", "memory", "results")


def draw(
    scheme: Annotated[str, typer.Argument(help="Name of a scheme.")],
    out: Annotated[Path, typer.Option(help="Picture to write: .png, .svg or .pdf.")],
    scheme_file: SchemeFile = None,
    grid: Annotated[str, typer.Option(help="Frames, rows and columns of patches.")] = "3x4x4",
) -> None:
    """Draw which patches a query sees in every step of a scheme."""
    from timesformer.attention import build, load_file
    from timesformer.files import write_atomic
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


def bench(
    out: Annotated[Path, typer.Option(help="Folder of the record.")] = Path("results/bench"),
    repetitions: Annotated[int, typer.Option(min=1, help="Interleaved repetitions of each measurement.")] = 5,
    threads: Annotated[int, typer.Option(min=0, help="Threads of torch; 0: torch's own choice.")] = 0,
    only: Annotated[
        str,
        typer.Option(
            help="transformers: the model on CPU against that library's; loader: reading of clips; memory: predicted "
            "against measured; results: reading of 10,000 records; or the kernels' slices, comma between: checks, "
            "ceilings, kernels, flex, blocks, models, largest, report."
        ),
    ] = "transformers",
    data_dir: Annotated[Path, typer.Option(help="Folder in which the loader's videos are made.")] = Path(".cache"),
    device: Annotated[str, typer.Option(help="cpu, cuda or auto; with --only memory auto is cpu.")] = "auto",
    minutes: Annotated[float, typer.Option(help="Kernels' slices: begin nothing that would end later.")] = 8.0,
    size: Annotated[str, typer.Option(help="Kernels' slices: full, or tiny for a proof that they run.")] = "full",
    retry: Annotated[bool, typer.Option(help="Kernels' slices: measure again what failed.")] = False,
    as_json: Json = False,
) -> None:
    """Measure speed and memory on CPU against transformers' TimesformerForVideoClassification (a few minutes).

    With `--only loader`: clips per second and core, against a plain PyAV loop and key-frame seeking. With
    `--only memory`: the predicted peak of every scheme against the growth of the resident set (or, with
    `--device cuda`, the allocator's peak). With `--only kernels` and the like: kernels, blocks and whole models on a
    GPU against their peers, in slices that add to one record; the same command goes on where it ended.
    """
    from timesformer.files import write_atomic
    from timesformer_experiments.report.report import require_writable
    from timesformer_experiments.report.tables import to_csv, to_markdown, to_rich

    if device not in ("auto", "cpu", "cuda"):
        raise bad_input(f"--device {device}: expected auto, cpu or cuda")
    if only not in CPU_BENCHES:
        require_writable(out)
        _bench_kernels(only, out, device, minutes, size, retry, as_json)
        return
    where: Literal["cpu", "cuda"] = "cuda" if device == "cuda" else "cpu"
    require_writable(out)
    if only == "loader":
        from timesformer_experiments.bench import loader as bench_loader

        record = bench_loader.run(bench_loader.CASES, data_dir, repetitions=repetitions, progress=progress)
        name, table = "loader", bench_loader.table(record)
    elif only == "results":
        from timesformer_experiments.bench import results as bench_results

        record = bench_results.run(repetitions=repetitions, progress=progress)
        name, table = "results", bench_results.table(record)
    elif only == "memory":
        from timesformer_experiments.bench import memory as memory_check

        record = memory_check.run(memory_check.cases(where), threads=threads or 1, progress=progress)
        name, table = f"memory_{where}", memory_check.table(record)
    else:
        from timesformer_experiments.bench import transformers as benches

        record = benches.run(benches.CASES, repetitions=repetitions, threads=threads or None, progress=progress)
        name, table = "cpu_vs_transformers", benches.table(record)
    write_atomic(out / f"{name}.json", (json.dumps(record, indent=2) + "\n").encode())
    write_atomic(out / f"{name}.csv", to_csv(table).encode())
    write_atomic(out / f"{name}.md", f"# {table.caption}\n\n{to_markdown(table)}".encode())
    if as_json:
        print_json(record)
    else:
        console().print(to_rich(table))


def _bench_kernels(only: str, out: Path, device: str, minutes: float, size: str, retry: bool, as_json: bool) -> None:
    """Slices of `timesformer_experiments.bench.gpu`, which also runs without what this command line needs."""
    from timesformer_experiments.bench import gpu as bench_gpu
    from timesformer_experiments.bench.gpu.__main__ import main
    from timesformer_experiments.bench.gpu.output import summary

    for word in only.split(","):
        if word not in bench_gpu.SLICES:
            known = ", ".join((*CPU_BENCHES, *bench_gpu.SLICES))
            raise bad_input(f"--only {word}: expected one of {known}")
    if size not in ("full", "tiny"):
        raise bad_input(f"--size {size}: expected full or tiny")
    given = ["--only", only, "--out", str(out), "--device", device, "--minutes", str(minutes), "--size", size]
    code = main([*given, *(["--retry"] if retry else [])])
    if as_json:
        print_json(summary(out))
    else:
        print((out / "gpu_targets.md").read_text(encoding="utf-8"))
    if code:
        raise typer.Exit(code)
