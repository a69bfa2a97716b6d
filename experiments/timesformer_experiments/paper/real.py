"""Models of the paper on real datasets: `timesformer reproduce NAME --profile paper --data k400=FOLDER,ssv2=FOLDER`.

The runs at the paper's scale follow from the variants of an artefact; recipe, sampling and protocol are the paper's
(see `timesformer.training.recipe.Recipe.paper` and `timesformer_experiments.paper.datasets`). `check` verifies the
folders, files, counts and checkpoint, and estimates memory and time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from timesformer import TimeSformerConfig
from timesformer.checkpoints import settings_of
from timesformer.checkpoints.transfer import SHARED_FIELDS
from timesformer.config.registry import macs_per_view
from timesformer.data import read_annotations
from timesformer.errors import InputError
from timesformer.training.recipe import Recipe
from timesformer_experiments.cost.memory import predict
from timesformer_experiments.paper.ablation import Ablation, restrictions_said
from timesformer_experiments.paper.accuracy import Cell, accuracies, columns_of
from timesformer_experiments.paper.datasets import DATASETS, MODELS, Dataset
from timesformer_experiments.paper.drawing import draw_dots
from timesformer_experiments.paper.listed import Listed
from timesformer_experiments.paper.registry import module_of
from timesformer_experiments.paper.setting import NAMES_IN_THE_PAPER
from timesformer_experiments.report.published import published
from timesformer_experiments.report.report import Report
from timesformer_experiments.report.tables import Column, Table
from timesformer_experiments.specs.run import RunSpec, located

DROP_PATH_RATE = 0.1
JITTER, JITTER_HR = (256, 320), (448, 512)
FRAME_RATES = {8: 32, 16: 16}
"""{frames of a clip: stride at 30 frames per second}.  Longer clips have stride 4; on HowTo100M it is always 32."""
LOOKED_AT = 20
"""Number of videos of each list whose files are checked."""
BACKWARD = 3
"""Cost of a training step relative to a forward pass, in multiply-accumulates."""


@dataclass(frozen=True)
class Row:
    """Model to be trained on a dataset, with the paper's accuracy."""

    key: str
    label: str
    dataset: str
    config: TimeSformerConfig
    published_percent: float | None


def rows_of(name: str) -> list[Row]:
    """List the models of an artefact that are trained on real datasets from one checkpoint of ViT-B."""
    module = module_of(name)
    found: list[Row] = []
    for part in vars(module).values():
        if isinstance(part, Ablation) and part.name == name:
            found += _rows_of_ablation(part)
        elif isinstance(part, Listed):
            found += _rows_of_list(part)
    return found


def _rows_of_ablation(ablation: Ablation) -> Iterator[Row]:
    printed = ablation.rows()
    for dataset in dict.fromkeys(ablation.probes.values()):
        if dataset not in DATASETS:
            continue
        for variant in ablation.variants:
            config = variant.config(DATASETS[dataset].classes)
            # Variants with other initial weights than the checkpoint, or with other data, are not rows of this table.
            whole = variant.share == variant.image_share == 1 and variant.image is not None and not variant.through
            of_model = all(path.startswith("model.") for path in variant.change)
            if whole and of_model and isinstance(config, TimeSformerConfig) and _starts_from_vit_b(config):
                value = printed.get(variant.key, {}).get(f"{dataset}_top1_percent")
                yield Row(variant.key, variant.label, dataset, config, value)


def _starts_from_vit_b(config: TimeSformerConfig) -> bool:
    return all(getattr(config, name) == getattr(TimeSformerConfig(), name) for name in SHARED_FIELDS)


def _rows_of_list(listed: Listed) -> Iterator[Row]:
    printed = {row["model"]: row for row in published(listed.name, "models").rows}
    for dataset in listed.datasets:
        for model, size in MODELS.items():
            config = TimeSformerConfig.from_dict({**size, "num_classes": DATASETS[dataset].classes})
            yield Row(model, model, dataset, config, printed[model].get(f"{dataset}_top1_percent"))


def parse_data(text: str) -> dict[str, Path]:
    """Parse `k400=FOLDER,ssv2=FOLDER`.  Raises InputError for an unknown dataset or a part without a folder."""
    found = {}
    for part in text.split(","):
        name, equals, folder = part.partition("=")
        if name not in DATASETS or not equals or not folder:
            raise InputError(f"--data {part}: expected DATASET=FOLDER with one of {', '.join(DATASETS)}")
        if name in found:
            raise InputError(f"--data {part}: {name} is given twice; expected one folder")
        found[name] = Path(folder)
    return found


def cells(name: str, data: Mapping[str, Path], init_from: str) -> list[Cell]:
    """List the runs of an artefact on the given datasets.

    Raises InputError if there are none, or if a folder lacks files of the dataset.
    """
    wanted = [row for row in rows_of(name) if row.dataset in data]
    if not wanted:
        there = sorted({row.dataset for row in rows_of(name)})
        if not there:
            raise InputError(f"{name}: this artefact has no models for real datasets")
        raise InputError(f"{name}: --data must name one or more of its datasets, which are {', '.join(there)}")
    return [Cell(row.key, row.dataset, 0, run_of(name, row, data[row.dataset], init_from)) for row in wanted]


def run_of(name: str, row: Row, folder: Path, init_from: str) -> RunSpec:
    """Return the run of a row with the paper's recipe and protocol."""
    dataset, config = DATASETS[row.dataset], row.config
    large = min(config.height_width) >= min(JITTER_HR)
    recipe = {key: value for key, value in Recipe.paper().to_dict().items() if key != "seed"}
    return RunSpec.parse(
        {
            "name": f"{name}-paper-{row.dataset}-{row.key}-s0",
            "data": {
                "format": dataset.format,
                "train": str(folder / dataset.train),
                "test": str(folder / dataset.test),
                "root": str(folder / dataset.videos),
                "num_classes": dataset.classes,
                "jitter": JITTER_HR if large else JITTER,
                "flip": dataset.flip,
                "cache": False,
                "preprocessing": _sampling(row.dataset, config.num_frames),
            },
            "model": {**config.to_dict(), "drop_path_rate": DROP_PATH_RATE},
            "recipe": recipe,
            "protocol": dataset.protocol,
            "init_from": init_from,
        },
        f"{name}, {row.dataset}",
    )


def _sampling(dataset: str, frames: int) -> dict[str, Any]:
    if not DATASETS[dataset].dense:
        return {"sampling": "uniform"}
    return {"sampling": "dense", "frame_rate": 32 if dataset == "howto100m" else FRAME_RATES.get(frames, 4)}


def check(name: str, data: Mapping[str, Path], init_from: str) -> pd.DataFrame:
    """Return a row for each requirement of `--profile paper`, with what was found; nothing is started."""
    found = [*_check_checkpoint(init_from)]
    for dataset, folder in data.items():
        found += _check_dataset(DATASETS[dataset], folder)
    rate = macs_per_second()
    for row in rows_of(name):
        if row.dataset in data:
            found += _expect(row, rate)
    return pd.DataFrame(found, columns=["what", "expected", "found", "fine"])


def _line(what: str, expected: str, found: str, fine: bool | None) -> dict[str, Any]:
    return {"what": what, "expected": expected, "found": found, "fine": {True: "yes", False: "NO", None: ""}[fine]}


def _check_checkpoint(init_from: str) -> Iterator[dict[str, Any]]:
    expected = "an image model of ViT-B's shape"
    try:
        place = located(init_from)
        config, _ = settings_of(init_from)
    except InputError as error:
        yield _line(f"checkpoint {init_from}", expected, str(error), False)
        return
    image, fits = config.num_frames == 1, isinstance(config, TimeSformerConfig) and _starts_from_vit_b(config)
    found = [str(place), *([] if image else [f"{config.num_frames} frames"])]
    found += [] if fits else [f"{name} {getattr(config, name, 'unknown')}" for name in SHARED_FIELDS]
    yield _line(f"checkpoint {init_from}", expected, ", ".join(found), image and fits)


def _check_dataset(dataset: Dataset, folder: Path) -> Iterator[dict[str, Any]]:
    if not folder.is_dir():
        yield _line(f"{dataset.title}: {folder}", "a folder", "no such folder", False)
        return
    for file in (dataset.train, dataset.test, *dataset.files):
        there = (folder / file).is_file()
        yield _line(f"{dataset.title}: {file}", "a file", "there" if there else f"not in {folder}", there)
    for file, count in ((dataset.train, dataset.num_train), (dataset.test, dataset.num_test)):
        if not (folder / file).is_file():
            continue
        try:
            samples = read_annotations(dataset.format, folder / file, folder / dataset.videos, dataset.classes)
        except InputError as error:
            yield _line(f"{dataset.title}: {file}", "readable", str(error), False)
            continue
        near = abs(len(samples) - count) <= dataset.tolerance * count
        expected = f"{count:,} videos, within {100 * dataset.tolerance:g} %"
        yield _line(f"{dataset.title}: videos in {file}", expected, f"{len(samples):,}", near)
        step = max(1, len(samples) // LOOKED_AT)
        looked = list(samples)[::step][:LOOKED_AT]
        missing = [sample.name for sample in looked if not sample.path.exists()]
        shown = f"{len(missing)} missing, such as {missing[0]}" if missing else "all there"
        yield _line(f"{dataset.title}: {len(looked)} videos of {file}", "there", shown, not missing)


def _expect(row: Row, rate: float) -> Iterator[dict[str, Any]]:
    """Yield estimates of the memory of a training step and of the hours of training, without a verdict."""
    recipe, dataset = Recipe.paper(), DATASETS[row.dataset]
    batch = recipe.batch_size // recipe.accumulate
    memory = predict(row.config, batch=batch, train=True, device="cuda").peak_bytes / 2**30
    assert recipe.epochs is not None
    hours = BACKWARD * macs_per_view(row.config) * dataset.num_train * recipe.epochs / rate / 3600
    place = f"{NAMES_IN_THE_PAPER[row.dataset]}, {row.label}"
    yield _line(f"{place}: memory, {batch} clips a step, fp32, on a GPU", "", f"{memory:,.1f} GiB", None)
    what = f"{place}: training, {dataset.num_train:,} videos, at this machine's present rate of matrix products"
    yield _line(what, "", f"about {float(f'{hours:.2g}'):,.0f} h", None)


def macs_per_second(size: int = 1024, repetitions: int = 5) -> float:
    """Measure the multiply-accumulates per second of fp32 matrix products on this machine: the fastest repetition."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    matrix = torch.randn(size, size, device=device)
    times = []
    for _ in range(1 + repetitions):
        began = time.perf_counter()
        matrix @ matrix
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return size**3 / min(times[1:])


CHECKED = (
    Column("what", "What", "label"),
    Column("expected", "Expected", "label"),
    Column("found", "Found", "label"),
    Column("fine", "Fine", "label"),
)


def report(name: str, title: str, found: Sequence[Cell], records: Sequence[dict[str, Any]]) -> Report:
    """Make the report of accuracies on the real datasets beside the paper's."""
    measured = accuracies(found, records, name)
    datasets = list(dict.fromkeys(cell.part for cell in found))
    table_rows: dict[str, dict[str, Any]] = {}
    for row in rows_of(name):
        if (row.key, row.dataset) not in measured:
            continue
        each = table_rows.setdefault(row.key, {"label": row.label})
        each |= columns_of(measured[row.key, row.dataset], f"measured_{row.dataset}")
        each[f"published_{row.dataset}_top1_percent"] = row.published_percent
    columns = [Column("label", "Model", "label")]
    for dataset in datasets:
        key, shown = f"measured_{dataset}_top1", NAMES_IN_THE_PAPER[dataset]
        bounds = (f"{key}_low_percent", f"{key}_high_percent")
        columns.append(Column(f"{key}_percent", f"{shown} [%]", "measured", bounds=bounds))
        columns.append(Column(f"published_{dataset}_top1_percent", f"{shown}, paper [%]", "published"))
    frame = pd.DataFrame(list(table_rows.values()))
    caption = f"{title}, on the real datasets with the paper's recipe and protocol; 95 % intervals over test videos"
    return Report(
        name=name,
        title=f"{title}: real data",
        table=Table(frame, tuple(columns), caption, measured="measured here, on the real dataset"),
        figure=draw_dots(frame, {dataset: dataset for dataset in datasets}, "Model"),
        findings=(*_differences(frame, datasets), *restrictions_said(measured)),
        sources=(),
        remarks=(),
        records=tuple(records),
    )


def _differences(frame: pd.DataFrame, datasets: Sequence[str]) -> Iterator[str]:
    for dataset in datasets:
        for row in frame.to_dict(orient="records"):
            paper, ours = row[f"published_{dataset}_top1_percent"], row[f"measured_{dataset}_top1_percent"]
            if not pd.isna(paper) and not pd.isna(ours):
                place = NAMES_IN_THE_PAPER[dataset]
                yield f"{row['label']} on {place}: {ours:.1f} %, {ours - paper:+.1f} points from the paper."
