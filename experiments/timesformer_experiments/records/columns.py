"""Meaning, type and unit of every column that `load_results` gives: of a frame at hand, or as a list for the pages.

    from timesformer_experiments.records.columns import describe
    describe(load_results("runs/sweep"))

The columns of configurations follow from the fields of a run, a model, its data and its recipe; those of metrics from
the registry of measures and the evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase

import pandas as pd

from timesformer import TimeSformerConfig
from timesformer.config.cnn import CnnConfig
from timesformer.training.recipe import Recipe
from timesformer_experiments.cost.measures import METRICS
from timesformer_experiments.records.frame import ENVIRONMENT, FIRST, LAST, SET, VERSIONS
from timesformer_experiments.specs.data import CsvData, ProbeData
from timesformer_experiments.specs.run import RunSpec

OF_RUNS = {
    "hash": "what identifies the run: name of its folder",
    "name": "name of the run or of the sweep's cell",
    "kind": "accuracy (trained and evaluated) or cost (measured without training)",
    "sweep": "name of the sweep, where the run is a cell of one",
    "outcome": "done or failed",
    "reason": "why it failed",
    "reason_kind": "error, out_of_memory, diverged, disk_full, … where it failed",
    "seed": "seed of the run; on probes also of the data",
    "protocol": "test protocol",
    "started_utc": "when it started",
    "finished_utc": "when it ended",
    "wall_seconds": "time from start to end, without earlier attempts",
    "log": "file that holds the record, from the folder that was read",
}
METRICS_OF_RUNS = {
    "top1_percent": "top-1 accuracy",
    "top1_low_percent": "lower end of its 95 % interval (Wilson) for new test videos",
    "top1_high_percent": "upper end",
    "top5_percent": "top-5 accuracy, from five classes on",
    "top5_low_percent": "lower end of its 95 % interval",
    "top5_high_percent": "upper end",
    "*_top1_percent": "top-1 accuracy of a head of a model with several; `action_…`: of all heads at once",
    "*_top5_percent": "top-5 accuracy of a head",
    "test_videos": "evaluated videos",
    "test_videos_unreadable": "test videos that could not be read, and are not evaluated",
    "test_videos_substituted": "test videos replaced by others: always 0",
    "evaluate_seconds": "time of the evaluation",
    "params": "parameters of the model",
    "train_steps": "training steps",
    "kept_step": "step whose weights were kept, where that is not the last",
    "train_loss": "mean training loss at the end",
    "train_top1_percent": "top-1 accuracy on training clips at the end",
    "train_seconds": "time of the training",
    "train_clips_per_second": "clips trained on in a second",
    "train_videos_unreadable": "training videos that could not be read",
    "macs_per_view": "multiply-accumulates of a view that the chosen path executes",
    "macs_needed": "multiply-accumulates of a view for the pairs that the scheme declares",
    "views": "views of a video under the protocol",
    "tflops_total": "10¹² multiply-accumulates of all views of a video",
    "memory_device": "device for which memory is predicted",
    "memory_batch": "clips for which memory is predicted",
    "train_peak_memory_bytes": "peak memory of a training step, predicted",
    "inference_peak_memory_bytes": "peak memory of a forward pass, predicted",
    "train_*_bytes": "part of the peak: params, gradients, optimiser, activations, attention",
    "inference_*_bytes": "part of the peak: attention",
    "latency_seconds": "time of the forward pass of one clip",
    "clips_per_second": "clips of a forward pass in a second",
    "train_step_clips_per_second": "clips of a training step in a second",
    "speed_batch": "clips for which speed is measured",
}
METRICS_OF_MAPS = {
    "videos": "videos whose maps were measured",
    "object_area_percent": "mean share of the pixels inside the object's mask",
    "*.energy_inside_percent": "share of a method's weight inside the object; `untrained.…`: of an untrained model",
    "*.pointing_percent": "videos in which the largest weight lies on the object",
    "*.deletion_area": "area under the probability as patches are removed, the heaviest first",
    "*.insertion_area": "area under the probability as patches are added, the heaviest first",
}
OTHERS = {
    "init_from": "hash of the run, or digest of the weights, that it started from",
    "init_from_name": "name of that run",
    "scheme_file_sha256": "digest of the file of a scheme of your own",
    "evaluated_on": "split that it was evaluated on, where that is not test for all",
    "selection": "how a tuned recipe was chosen, as JSON",
    "measured_on": "hash of the run whose model was measured",
    "localisation.*": "how maps were measured",
}
OF_DATA = {
    "fingerprint": "digest of the videos",
    "num_videos": "number of videos",
    "num_unreadable": "of these unreadable",
}
OF_MACHINES = {
    "git_commit": "commit of this library",
    "git_dirty": "whether its files had been changed",
    "platform": "operating system and architecture",
    "cpu_model": "processor",
    "cpu_cores": "cores",
    "memory_bytes": "memory of the machine",
    "device": "cpu, or name of the GPU",
    "threads": "threads of torch",
    "processes": "processes of the run",
}
UNITS = {
    "percent": "%",
    "bytes": "bytes",
    "per_second": "1/s",
    "seconds": "s",
    "pixels": "pixels",
    "utc": "UTC",
    "area": "0 to 1",
}
"""By the end of a name; `per_second` before `seconds`."""
NAMED_UNITS = {
    **dict.fromkeys(("model.image_height", "model.image_width", "model.patch_size"), "pixels"),
    **dict.fromkeys(("macs_per_view", "macs_needed"), "MACs"),
    "tflops_total": "TFLOPs",
}
NOT_DOCUMENTED = "not documented"


@dataclass(frozen=True)
class Documented:
    """A column, or with * several; `group`: what it belongs to."""

    name: str
    meaning: str
    group: str

    @property
    def unit(self) -> str:
        """Unit of the values; empty without one."""
        if self.name in NAMED_UNITS:
            return NAMED_UNITS[self.name]
        return next((unit for end, unit in UNITS.items() if re.search(rf"(?:^|[_.]){end}$", self.name)), "")


def documented() -> tuple[Documented, ...]:
    """Return all columns that a frame may have, in their order."""
    return tuple(_documented())


def _documented() -> Iterator[Documented]:
    for name in FIRST:
        yield Documented(name, OF_RUNS[name], "run")
    yield Documented("cell.*", "value on an axis of the sweep; lists as JSON", "sweep")
    yield from (Documented(name, meaning, "run") for name, meaning in OTHERS.items())
    for name, of_run in RunSpec.model_fields.items():
        if name not in ("data", "model", "recipe", *FIRST, *OTHERS) and of_run is not None:
            yield Documented(name, "field of the run", "run")
    yield Documented("model.image_height", "height of a frame that the model reads", "model")
    yield Documented("model.image_width", "width of a frame that the model reads", "model")
    of_models = {each.name for config in (TimeSformerConfig, CnnConfig) for each in fields(config)} - {"image_size"}
    for prefix, names in (
        ("model", sorted(of_models)),
        ("recipe", sorted(each.name for each in fields(Recipe))),
        ("data", sorted({*ProbeData.model_fields, *CsvData.model_fields})),
    ):
        for name in names:
            yield Documented(f"{prefix}.{name}", f"field of {SAID[prefix]}", prefix)
    yield Documented("data.*.*", "field of a field of the data, such as of `difficulty`", "data")
    shown = {metric.name: metric.title for metric in METRICS}
    for name, meaning in {**METRICS_OF_RUNS, **{k: v for k, v in shown.items() if k not in METRICS_OF_RUNS}}.items():
        yield Documented(name, meaning, "metrics")
    yield from (Documented(name, meaning, "metrics") for name, meaning in METRICS_OF_MAPS.items())
    for half in ("train", "test", "validation"):
        for name in SET:
            yield Documented(f"dataset.{half}.{name}", f"{half}: {OF_DATA[name]}", "dataset")
    for name in ENVIRONMENT:
        yield Documented(f"environment.{name}", OF_MACHINES[name], "environment")
    for name in VERSIONS:
        yield Documented(f"environment.{name}", f"version of {name}", "environment")
    for name in (*LAST, "log"):
        yield Documented(name, OF_RUNS[name], "run")


SAID = {
    "model": "the model ([fields](train.md#fields-of-a-run))",
    "recipe": "the recipe ([fields](train.md#fields-of-a-run))",
    "data": "the data ([fields](train.md#fields-of-a-run))",
}


def describe(frame: pd.DataFrame) -> pd.DataFrame:
    """Describe the columns of a frame of `load_results`, a row each.

    Return column, group, type (of pandas), unit, meaning, values (that are not missing) and different (values).
    """
    exact = {each.name: each for each in documented()}
    patterns = [each for each in exact.values() if "*" in each.name]
    rows = []
    for name in map(str, frame.columns):
        found = exact.get(name) or next((each for each in patterns if fnmatchcase(name, each.name)), None)
        own = Documented(name, "", "")
        rows.append(
            {
                "column": name,
                "group": found.group if found else "",
                "type": str(frame[name].dtype),
                "unit": own.unit,
                "meaning": re.sub(r" \(\[.*?\]\(.*?\)\)", "", found.meaning) if found else NOT_DOCUMENTED,
                "values": int(frame[name].notna().sum()),
                "different": int(frame[name].nunique()),
            }
        )
    return pd.DataFrame(rows, columns=["column", "group", "type", "unit", "meaning", "values", "different"])


def to_markdown() -> str:
    """Return the list as a table of a page: fields of configurations as one row each group, the rest one by one."""
    lines = ["| column | unit | meaning |", "|---|---|---|"]
    for each in documented():
        configuration = each.meaning == f"field of {SAID.get(each.group, '')}"
        if configuration and any(f"| `{each.group}.…` |" in line for line in lines):
            continue
        name = f"{each.group}.…" if configuration else each.name
        lines.append(f"| `{name}` | {each.unit if not configuration else ''} | {each.meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(to_markdown(), end="")
