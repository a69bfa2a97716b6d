"""`timesformer sweep`: grids of runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from timesformer_experiments.cli.options import DataDir, Json, bad_input
from timesformer_experiments.report.terminal import console, print_json, print_text, progress


def sweep(
    file: Annotated[Path, typer.Argument(help="YAML file of the sweep: base, axes, measure.")],
    out: Annotated[Path, typer.Option(help="Folder of the sweep. An interrupted sweep resumes from this folder.")],
    jobs: Annotated[
        int,
        typer.Option(
            min=0,
            help="Number of runs in parallel; 0: one per GPU, or one on a CPU (one per core if nothing is trained).",
        ),
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the runs with their cost, memory and time; run nothing.")
    ] = False,
    retry: Annotated[str, typer.Option(help="failed: repeat failed runs; none: skip them.")] = "none",
    ray: Annotated[
        str | None, typer.Option(help="Run on a Ray cluster: auto, HOST:PORT, or local to start one on this machine.")
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="With --dry-run: GPU-hours on a100, h100 or h200.")] = None,
    mfu: Annotated[float, typer.Option(help="With --gpu: assumed share of the card's peak (model FLOPs use).")] = 0.4,
    precision: Annotated[str, typer.Option(help="With --gpu: precision of the card's peak, bf16 or fp32.")] = "bf16",
    price: Annotated[float | None, typer.Option(help="With --gpu: price of one GPU-hour, in any currency.")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Run every cell of a sweep, and resume it after an interruption.

    Finished runs are skipped and interrupted ones resume. A failed run is recorded with its reason; the others go on.
    Several such commands may work in the same folder. With `tune` and `until` further runs follow from the first. The
    exit code is 1 if a cell has failed.
    """
    from timesformer_experiments.sweep.carry_out import carry_out_sweep, default_jobs, open_sweep
    from timesformer_experiments.sweep.forecast import forecast, show, summary

    if retry not in ("none", "failed"):
        raise bad_input(f"--retry {retry}: expected failed or none")
    if gpu is not None and not dry_run:
        raise bad_input("--gpu: expected with --dry-run, which estimates GPU-hours")
    opened = open_sweep(file, out, data_dir, "failed" if retry == "failed" else "none")
    plan, most_runs = opened.outlook()
    slots = jobs or default_jobs(opened)
    expected = forecast(opened.sweep.name, plan, slots, memory=dry_run, say=progress, most_runs=most_runs)
    if gpu is not None:
        from timesformer_experiments.cost.gpu_hours import Budget

        expected = replace(expected, budget=Budget(gpu, mfu, precision, price))  # type: ignore[arg-type]
    if dry_run:
        if as_json:
            print_json(expected.to_dict())
        else:
            console().print(show(expected))
        return
    progress(summary(expected))
    result = carry_out_sweep(opened, jobs=jobs, ray=ray)
    failures = result.failures
    if as_json:
        counts = {"cells": len(result.cells), "failed": sum(cell["outcome"] != "done" for cell in result.cells)}
        print_json({"sweep": opened.sweep.name, "folder": str(out), **counts, "records": result.cells})
    else:
        _show(opened.sweep.name, out, result.cells)
    if failures:
        for name, reason in failures.items():
            progress(f"failed: {name}: {reason}")
        progress(f"{len(failures)} failed; repeat them with --retry failed")
        raise typer.Exit(1)


def _show(name: str, out: Path, cells: list[dict[str, Any]]) -> None:
    done = sum(cell["outcome"] == "done" for cell in cells)
    text = f"{name}: {done} of {len(cells)} cells done; records in {out / 'records.jsonl'}"
    print_text(text)
