"""`timesformer bench`: speed and memory compared with other implementations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from timesformer_experiments.cli.options import Json, bad_input
from timesformer_experiments.report.terminal import console, print_json, print_markdown, progress

CPU_BENCHES = ("transformers", "peers", "loader", "memory", "results", "sparse")


def bench(
    out: Annotated[Path, typer.Option(help="Folder to write the record to.")] = Path("results/bench"),
    repetitions: Annotated[int, typer.Option(min=1, help="Interleaved repetitions of each measurement.")] = 5,
    threads: Annotated[int, typer.Option(min=0, help="Number of torch threads; 0: torch's default.")] = 0,
    only: Annotated[
        str,
        typer.Option(
            help="One of transformers (our model and the one of that library, on CPU), peers (the same and inference "
            "engines, fp32 and bf16, inference and training), loader (reading clips), memory "
            "(predicted and measured peak), results (reading 10,000 records), sparse (attention cores of sparse "
            "schemes and of joint attention, on CPU); or, separated by commas, the GPU benchmarks checks, ceilings, "
            "targets, tools, kernels, flex, blocks, models, largest, report."
        ),
    ] = "transformers",
    data_dir: Annotated[Path, typer.Option(help="Folder for the videos of the loader benchmark.")] = Path(".cache"),
    device: Annotated[str, typer.Option(help="cpu, cuda or auto; with --only memory, auto means cpu.")] = "auto",
    minutes: Annotated[
        float | None,
        typer.Option(
            help="GPU benchmarks and peers: time limit; start no measurement that would exceed it. Default: 9, of "
            "peers 12."
        ),
    ] = None,
    size: Annotated[str, typer.Option(help="GPU benchmarks: full, or tiny to check that they run.")] = "full",
    retry: Annotated[bool, typer.Option(help="GPU benchmarks and peers: repeat failed measurements.")] = False,
    as_json: Json = False,
) -> None:
    """Measure speed and memory, compared with other implementations.

    Default: our model on CPU compared with TimesformerForVideoClassification of transformers (a few minutes).

    --only peers: our model on CPU compared with transformers, eager and compiled, and with ONNX Runtime and OpenVINO on
    an export of its model. It prints a plan first; repeat the command to measure what did not fit into the time.

    --only loader: clips per second on one core, compared with decord, OpenCV, torchcodec (if they can be imported), a
    plain PyAV loop and key-frame seeking.

    --only memory: predicted peak memory of every scheme, compared with the growth of the resident set or, with
    --device cuda, with the allocator's peak.

    --only sparse: time and memory of the attention core of sparse schemes, compared with joint attention, on CPU.

    --only kernels and the other GPU benchmarks: kernels, blocks and whole models on a GPU, compared with other
    implementations. All print a plan first and add to one record; repeat the command to continue. Targets: what the
    targets are compared with and nothing else. Tools: capture of CUDA graphs, compute-sanitizer and Nsight Compute.
    """
    from timesformer.files import write_atomic, write_json
    from timesformer_experiments.report.report import require_writable
    from timesformer_experiments.report.tables import Table, to_csv, to_markdown, to_rich

    if device not in ("auto", "cpu", "cuda"):
        raise bad_input(f"--device {device}: expected auto, cpu or cuda")
    if only not in CPU_BENCHES:
        require_writable(out)
        _bench_kernels(only, out, device, minutes or 9.0, size, retry, as_json)
        return
    where: Literal["cpu", "cuda"] = "cuda" if device == "cuda" else "cpu"
    require_writable(out)
    more: tuple[Table, ...] = ()
    if only == "peers":
        from timesformer_experiments.bench import peers as bench_peers
        from timesformer_experiments.bench.peers_table import goals
        from timesformer_experiments.bench.peers_table import table as peers_table

        path = out / "peers_cpu.json"
        record = bench_peers.run(
            repetitions=repetitions,
            threads=threads or None,
            minutes=minutes or 12.0,
            retry=retry,
            previous=bench_peers.read(path),
            keep=lambda found: write_json(path, found),
            progress=progress,
        )
        name, table, more = "peers_cpu", peers_table(record), (goals(record),)
        write_atomic(out / "peers_cpu_goals.csv", to_csv(more[0]).encode())
    elif only == "loader":
        from timesformer_experiments.bench import loader as bench_loader

        record = bench_loader.run(bench_loader.CASES, data_dir, repetitions=repetitions, progress=progress)
        name, table = "loader", bench_loader.table(record)
    elif only == "results":
        from timesformer_experiments.bench import results as bench_results

        record = bench_results.run(repetitions=repetitions, progress=progress)
        name, table = "results", bench_results.table(record)
    elif only == "sparse":
        from timesformer_experiments.bench import sparse as bench_sparse

        record = bench_sparse.run(repetitions=repetitions, threads=threads or None, progress=progress)
        name, table = "sparse_cpu", bench_sparse.table(record)
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
    text = f"# {table.caption}\n\n{to_markdown(table)}"
    text += "".join(f"\n## {each.caption}\n\n{to_markdown(each)}" for each in more)
    write_atomic(out / f"{name}.md", text.encode())
    if as_json:
        print_json(record)
    else:
        for each in (table, *more):
            console().print(to_rich(each))


def _bench_kernels(only: str, out: Path, device: str, minutes: float, size: str, retry: bool, as_json: bool) -> None:
    """Run slices of `timesformer_experiments.bench.gpu`, which also runs without the packages of this command line."""
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
        print_markdown((out / "gpu_targets.md").read_text(encoding="utf-8"))
    if code:
        raise typer.Exit(code)
