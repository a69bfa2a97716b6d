"""`timesformer audit`: find unreadable and suspicious files of a dataset."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timesformer_experiments.cli.options import Json, bad_input
from timesformer_experiments.report.terminal import console, print_json, print_text, progress

if TYPE_CHECKING:
    from timesformer.data.survey import SampleVerdict, Survey
    from timesformer_experiments.report.tables import Table

FAILED = 1
MOST_ROWS = 40
"""Largest number of findings shown in the terminal; a report lists all."""


def audit(
    data: Annotated[Path, typer.Argument(help="Annotation file, or a folder with one folder of videos per class.")],
    format: Annotated[
        str | None,
        typer.Option(help="Annotation format: kinetics (default for a file), folder (default for a folder), ssv2, …"),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder of the videos. Default: the folder of the annotation file.")
    ] = None,
    decode: Annotated[bool, typer.Option("--decode", help="Decode every frame, not only the first.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not read whole files: duplicates are told by head, tail and samples.")
    ] = False,
    min_frames: Annotated[int, typer.Option(min=1, help="Report videos with fewer frames as short.")] = 8,
    fps: Annotated[float | None, typer.Option(help="Frames per second of videos stored as folders of images.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Number of threads; 0: four per core.")] = 0,
    state: Annotated[Path, typer.Option(help="File that stores the result for each file, for resuming.")] = Path(
        "runs/audit.jsonl"
    ),
    out: Annotated[
        list[Path] | None, typer.Option(help="Write a report on every sample: .csv or .json; repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find unreadable and suspicious files of a dataset.

    Reads the header and the first frame of every file. An interrupted audit resumes; unchanged files are not read
    again. The fingerprint is the one in the records of runs on this data. The exit code is 1 if a file cannot be read.
    """
    import av.logging

    from timesformer.data import read_annotations
    from timesformer.data.survey import survey
    from timesformer.files import write_atomic
    from timesformer.text import path_text

    for path in out or []:
        if path.suffix not in (".csv", ".json"):
            raise bad_input(f"--out {path}: expected a name that ends in .csv or .json")
    samples = read_annotations(format or ("folder" if data.is_dir() else "kinetics"), data, root, fps=fps)
    start = time.perf_counter()
    av.logging.set_libav_level(av.logging.PANIC)  # the verdicts already say what FFmpeg would print on damaged files
    try:
        found = survey(
            samples,
            decode=decode,
            whole=not quick,
            min_frames=min_frames,
            workers=workers or None,
            state=state,
            progress=lambda done, total: progress(f"{done} of {total} files"),
        )
    finally:
        av.logging.set_libav_level(av.logging.INFO)
    seconds = time.perf_counter() - start
    summary = {
        "annotations": str(data),
        **found.summary(),
        "passed_over": [path_text(path.relative_to(data)) for path in samples.passed_over],
        "classes_without_video": list(samples.empty),
        "files_examined": found.examined,
        "files_remembered": found.remembered,
        "seconds": round(seconds, 3),
        "files_per_minute": round(60 * found.examined / seconds) if found.examined else None,
    }
    for path in out or []:
        write_atomic(path, _report(path.suffix, summary, found))
    if as_json:
        print_json(summary | {"findings": [one.to_dict() for one in found.verdicts if one.verdict != "ok"]})
    else:
        _show(summary, found)
    if found.unreadable:
        raise typer.Exit(FAILED)


def _report(suffix: str, summary: dict[str, Any], found: Survey) -> bytes:
    rows = [one.to_dict() for one in found.verdicts]
    if suffix == ".json":
        return (json.dumps(summary | {"samples": rows}, indent=1) + "\n").encode()
    import pandas as pd

    frame = pd.DataFrame([row | {"also": " ".join(row["also"])} for row in rows])
    return frame.to_csv(index=False, lineterminator="\n").encode()


def _show(summary: dict[str, Any], found: Survey) -> None:
    from timesformer_experiments.report.tables import to_rich

    odd = sorted((one for one in found.verdicts if one.verdict != "ok"), key=_weight)
    if odd:
        console().print(to_rich(_table(odd[:MOST_ROWS], len(odd))))
    labels = list(summary["labels"].values())
    lines = [
        "verdicts     " + ", ".join(f"{kind} {count}" for kind, count in summary["verdicts"].items()),
        f"samples      {summary['num_samples']} in {summary['num_files']} files, "
        f"{summary['num_unreadable']} unreadable",
        *(
            f"{title} {len(names)}: {', '.join(names[:MOST_ROWS])}"
            for title, names in (
                ("no video    ", summary["classes_without_video"]),
                ("passed over ", summary["passed_over"]),
            )
            if names
        ),
        f"labels       {len(labels)}, with {min(labels)} to {max(labels)} samples each",
        f"fingerprint  {summary['fingerprint']}",
        f"of all bytes {summary['content_fingerprint'] or 'not computed with --quick'}",
        f"speed        {found.examined} files in {summary['seconds']} s "
        f"({summary['files_per_minute'] or 0} per minute), {found.remembered} known from an earlier audit",
    ]
    print_text(*lines, indent=13)


def _weight(one: SampleVerdict) -> int:
    from timesformer.data.video.verdict import KINDS

    return KINDS.index(one.verdict)


def _table(odd: list[SampleVerdict], total: int) -> Table:
    import pandas as pd

    from timesformer_experiments.report.tables import Column, Table

    rows = [{"verdict": one.verdict, "name": one.sample.name, "reason": one.reason} for one in odd]
    columns = (
        Column("verdict", "Verdict", "label"),
        Column("name", "Video", "label"),
        Column("reason", "Reason", "label"),
    )
    more = f" (first {len(odd)} shown; write all with --out report.csv)" if total > len(odd) else ""
    return Table(pd.DataFrame(rows), columns, f"{total} finding{'' if total == 1 else 's'}{more}")
