"""`timesformer features`: features of videos before the classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from timesformer_experiments.cli.options import (
    AllowUnreadable,
    BatchSize,
    Checkpoint,
    Clips,
    Crops,
    Device,
    Json,
    PrecisionName,
    ProtocolName,
    Runs,
    SchemeFile,
    Trust,
    Workers,
    bad_input,
    chosen_device,
    chosen_precision,
    chosen_protocol,
    finish,
    listed,
    loaded_model,
)
from timesformer_experiments.report.terminal import print_json, progress


def features(
    sources: Annotated[
        list[str], typer.Argument(help="Videos and folders of videos, or one annotation file (.csv, .json, .txt).")
    ],
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(help="File to write: .parquet, .npy or .npz; with --tokens .npy or .npz.")],
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Write every token of every view instead of one vector.")
    ] = False,
    per_view: Annotated[
        bool, typer.Option("--per-view", help="Write one vector per view instead of their mean.")
    ] = False,
    format: Annotated[str | None, typer.Option(help="Annotation format: kinetics, ssv2, folder, …")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the videos in the annotation file.")] = None,
    protocol: ProtocolName = None,
    clips: Clips = None,
    crops: Crops = None,
    allow_unreadable: AllowUnreadable = False,
    batch_size: BatchSize = 8,
    workers: Workers = 0,
    device: Device = None,
    precision: PrecisionName = "fp32",
    scheme_file: SchemeFile = None,
    trust: Trust = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Write the features of videos: the pooled vector before the classifier, or all tokens.

    The videos of a folder with one folder per class keep their classes as labels. The file states how it was
    made: checkpoint, protocol, preprocessing, versions and unreadable videos.
    """
    from timesformer.evaluation.features import write_features

    chosen = chosen_protocol(protocol or "paper", clips, crops)
    samples, classes = _samples(sources, format, root)
    model, record, _ = loaded_model(checkpoint, runs, trust, scheme_file)
    place = chosen_device(device)
    result = write_features(
        out,
        model,
        samples,
        record,
        protocol=chosen,
        tokens=tokens,
        per_view=per_view,
        metadata={"checkpoint": checkpoint} | ({} if classes is None else {"classes": classes}),
        batch_size=batch_size,
        workers=workers,
        device=place,
        precision=chosen_precision(precision, place, quiet=as_json),
        progress=not as_json,
    )
    if as_json:
        files = [str(path) for path in result.files]
        print_json({"files": files, "rows": result.rows, **result.metadata, "unreadable": listed(result.unreadable)})
    else:
        for path in result.files:
            print(path)
    finish(result.unreadable, result.rows > 0, allow_unreadable, result.metadata["videos_enlarged"])


def _samples(sources: list[str], format: str | None, root: Path | None) -> tuple[list[Any], Any]:
    """The samples, and the names of their classes where the sources have some."""
    from timesformer.data import Sample, read_annotations
    from timesformer.data.video.find import class_folders, find_videos

    listed = [source for source in sources if Path(source).suffix.lower() in (".csv", ".json", ".txt")]
    if format is None and not listed:
        if root is not None:
            raise bad_input("--root: expected only with an annotation file")
        videos = find_videos(sources)
        classes = class_folders(Path(sources[0]), videos) if len(sources) == 1 else None
        if classes is None:
            return [Sample(path, -1, str(path)) for path in videos], None
        progress(f"{sources[0]}: the labels are its {len(classes)} folders")
        return [Sample(path, classes.index(path.parent.name), str(path)) for path in videos], classes
    if len(sources) != 1:
        raise bad_input(
            f"{(listed or sources)[0]}: expected an annotation file as the only source, got {len(sources)} sources"
        )
    found = read_annotations(format or "kinetics", sources[0], root)
    return list(found), found.labels
