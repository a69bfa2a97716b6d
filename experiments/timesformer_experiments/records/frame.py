"""Records as a data frame: a row a run, a column a value, typed, with the unit in its name.

    hash, name, kind, sweep, outcome, reason, reason_kind, seed, protocol
    cell.<axis>                  the values of the sweep's axes
    model.…, data.…, recipe.…    the run's configuration; an image's size as model.image_height and model.image_width
    init_from, init_from_name    hash of the run (or of the weights) that it started from
    top1_percent, params, …      metrics
    dataset.train.…, dataset.test.…    fingerprint, num_videos, num_unreadable; also dataset.validation.…
    evaluated_on, selection      where a run was evaluated on validation data, where one was tuned (as JSON)
    environment.…                commit, versions, hardware
    started_utc, finished_utc, wall_seconds
    log                          the file that holds the record, from the folder that was read

Whole numbers are Int64, other numbers float64 (missing: NaN), truth values boolean, choices categories, other text
strings, times UTC.  Lists are JSON text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd

from timesformer import TimeSformerConfig
from timesformer.attention.options import spell
from timesformer.config.cnn import CnnConfig
from timesformer.errors import InputError
from timesformer.training.recipe import Recipe
from timesformer_experiments.cost.measures import METRICS

FIRST = ("hash", "name", "kind", "sweep", "outcome", "reason", "reason_kind", "seed", "protocol")
LAST = ("started_utc", "finished_utc", "wall_seconds")
SET = ("fingerprint", "num_videos", "num_unreadable")
ENVIRONMENT = (
    "git_commit",
    "git_dirty",
    "platform",
    "cpu_model",
    "cpu_cores",
    "memory_bytes",
    "device",
    "threads",
    "processes",
)
VERSIONS = ("python", "timesformer-ablations", "torch")
TIME = "%Y-%m-%dT%H:%M:%SZ"
ColumnType = Literal["integer", "number", "truth", "choice", "text", "time"]
TYPES: dict[str, ColumnType] = {
    **dict.fromkeys(
        ("hash", "name", "reason", "init_from", "init_from_name", "selection", "environment.git_commit"), "text"
    ),
    **dict.fromkeys(("scheme_file_sha256", "dataset.train.fingerprint", "dataset.test.fingerprint"), "text"),
    **dict.fromkeys(
        ("evaluated_on", "kind", "sweep", "outcome", "reason_kind", "protocol", "data.probe", "log"), "choice"
    ),
    **dict.fromkeys(("started_utc", "finished_utc"), "time"),
    **dict.fromkeys(("train_loss", "wall_seconds"), "number"),
    **dict.fromkeys(("seed", "model.image_height", "model.image_width", "environment.processes"), "integer"),
    **{metric.name: metric.kind for metric in METRICS if metric.kind is not None},
}
NUMBERS = ("_percent", "_seconds", "_per_second")
"""Ends of the names of metrics that are no whole numbers, even if all at hand are."""


@dataclass
class _Values:
    """Columns of an object's plain values and of the objects in it; None where a record has no such value."""

    count: int
    plain: dict[str, list[Any]] = field(default_factory=dict)
    objects: dict[str, _Values] = field(default_factory=dict)

    def put(self, row: int, values: dict[str, Any], whole: bool = False) -> None:
        """The values of a record; whole: objects in it stay as they are."""
        plain, objects = self.plain, self.objects
        for name, value in values.items():
            if type(value) is dict and not whole:
                inner = objects.get(name)
                if inner is None:
                    inner = objects[name] = _Values(self.count)
                inner.put(row, value)
                continue
            column = plain.get(name)
            if column is None:
                column = plain[name] = [None] * self.count
            column[row] = value

    def columns(self, prefix: str = "") -> dict[str, list[Any]]:
        """All of them by their dotted names."""
        found = {f"{prefix}{name}": values for name, values in self.plain.items()}
        for name, inner in self.objects.items():
            found |= inner.columns(f"{prefix}{name}.")
        return found


def frame_of(found: Sequence[tuple[dict[str, Any], str, str]]) -> pd.DataFrame:
    """Records, each with its log and its place (file and line), as a data frame.

    Raises InputError that names the place of a value that has the wrong type.
    """
    places = [place for _, _, place in found]
    columns = _columns([record for record, _, _ in found]) | {"log": [log for _, log, _ in found]}
    return pd.DataFrame({name: _typed(name, values, places) for name, values in columns.items()})


def _columns(records: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    cells, spec, metrics = (_Values(len(records)) for _ in range(3))
    for row, record in enumerate(records):
        cells.put(
            row, {path: scheme_text(path, value) for path, value in (record.get("cell") or {}).items()}, whole=True
        )
        spec.put(row, _with_texts(record["spec"]))
        metrics.put(row, record["metrics"])
    configuration = spec.columns()
    for name in ("kind", "seed", "protocol", "evaluate_on"):  # there already
        configuration.pop(name, None)
    sizes = configuration.pop("model.image_size", [None] * len(records))
    sides = (("model.image_height", 0), ("model.image_width", -1))
    configuration |= {name: [size[side] if isinstance(size, list) else size for size in sizes] for name, side in sides}
    _complete(configuration)
    configuration.setdefault("init_from", [None] * len(records))
    machines = [record["environment"] for record in records]
    return {
        **{name: [record.get(name) for record in records] for name in FIRST},
        "kind": [record.get("kind") or "accuracy" for record in records],  # there was no other once
        **cells.columns("cell."),
        **configuration,
        "init_from_name": [(record.get("init_from") or {}).get("name") for record in records],
        **_tuning(records),
        **metrics.columns(),
        **{
            f"dataset.{half}.{name}": [record["dataset"].get(half, {}).get(name) for record in records]
            for half in ("train", "test", "validation")
            if half != "validation" or any(half in record["dataset"] for record in records)
            for name in SET
        },
        **{f"environment.{name}": [machine.get(name) for machine in machines] for name in ENVIRONMENT},
        **{f"environment.{name}": [machine.get("versions", {}).get(name) for machine in machines] for name in VERSIONS},
        **{name: [record.get(name) for record in records] for name in LAST},
    }


def _complete(configuration: dict[str, list[Any]]) -> None:
    """Set fields of a model that came later to their defaults, where a record of a scheme leaves them out."""
    schemes = configuration.get("model.attention", [])
    for each in fields(TimeSformerConfig):
        values = configuration.get(f"model.{each.name}") if each.metadata.get("later") else None
        if values is None or each.default is None:
            continue
        default = list(each.default) if isinstance(each.default, tuple) else each.default
        configuration[f"model.{each.name}"] = [
            default if value is None and scheme is not None else value
            for value, scheme in zip(values, schemes, strict=True)
        ]


def _with_texts(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a run's description with its scheme and its schedule as text, options and depths among it."""
    model = spec.get("model")
    if not isinstance(model, dict) or not any(isinstance(model.get(name), dict) for name in ("attention", "schedule")):
        return spec
    texts = {"attention": scheme_text("model.attention", model.get("attention"))}
    if "schedule" in model:
        texts["schedule"] = json.dumps(model["schedule"])
    return spec | {"model": model | texts}


def scheme_text(path: str, value: Any) -> Any:
    """Return the text of a scheme with options; other values as they are."""
    if path.rpartition(".")[2] != "attention" or not isinstance(value, dict):
        return value
    options = {name: option for name, option in value.items() if name != "name"}
    return spell(str(value.get("name")), options)


def _tuning(records: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """On which split runs were evaluated and how their recipes were chosen, where that is not the test set for all."""
    found = {"evaluated_on": [record.get("evaluated_on") or "test" for record in records],
             "selection": [record.get("selection") for record in records]}  # fmt: skip
    return {name: values for name, values in found.items() if set(map(str, values)) - {"test", "None"}}


@cache
def _stated() -> dict[str, ColumnType]:
    """Types of the fields of a model and of a recipe, from their declarations."""
    owners = (("model", CnnConfig), ("model", TimeSformerConfig), ("recipe", Recipe))
    hints = {f"{prefix}.{name}": hint for prefix, owner in owners for name, hint in get_type_hints(owner).items()}
    kinds = {name: _declared(hint) for name, hint in hints.items()}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def _declared(hint: Any) -> ColumnType | None:
    """The type of a field that has one, whether it may be missing or not."""
    if get_origin(hint) is Literal:
        return "choice"
    options = [option for option in get_args(hint) if option is not NoneType]
    if options:
        return _declared(options[0]) if len(options) == 1 and get_origin(hint) is not tuple else None
    kinds: dict[Any, ColumnType] = {bool: "truth", int: "integer", float: "number", str: "choice"}
    return kinds.get(hint)


def _typed(name: str, values: list[Any], places: Sequence[str]) -> Any:
    """A column of pandas; a value that does not fit is an error that names its line."""
    kind = TYPES.get(name) or _stated().get(name) or ("number" if name.endswith(NUMBERS) else _guessed(values))
    try:
        if len(values) > 1 and values.count(values[0]) == len(values):  # of most columns there is one value
            return MAKE[kind](values[:1]).take(np.zeros(len(values), dtype=np.intp))
        return MAKE[kind](values)
    except (TypeError, ValueError) as error:
        for value, place in zip(values, places, strict=True):
            try:
                MAKE[kind]([value])
            except (TypeError, ValueError):
                raise InputError(f"{place}: {name}: expected {SAID[kind]}, got {value!r}") from error
        raise


def _guessed(values: Sequence[Any]) -> ColumnType:
    """Type that all values share."""
    found = {type(value) for value in values} - {NoneType}
    if not found:
        return "text"
    if found == {bool}:
        return "truth"
    if found <= {int, float}:
        return "integer" if found == {int} else "number"
    return "choice"


def _integers(values: list[Any]) -> Any:
    if any(type(value) is not int for value in values if value is not None):
        raise ValueError("not a whole number")
    missing = np.array([value is None for value in values], dtype=bool)
    whole = np.array([0 if value is None else value for value in values], dtype=np.int64)
    return pd.arrays.IntegerArray(whole, missing)


def _numbers(values: list[Any]) -> Any:
    if any(type(value) not in (int, float) for value in values if value is not None):
        raise ValueError("not a number")
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _truths(values: list[Any]) -> Any:
    return pd.array(values, dtype="boolean")


def _choices(values: list[Any]) -> Any:
    """Categories in the order in which they occur."""
    texts = _texts(values)
    return pd.Categorical(texts, categories=[text for text in dict.fromkeys(texts) if text is not None])


def _texts(values: list[Any]) -> list[str | None]:
    """Text as it is, anything else as JSON."""
    known: dict[str, str] = {}
    texts: list[str | None] = []
    for value in values:
        if value is None or type(value) is str:
            texts.append(value)
            continue
        key = repr(value)
        if key not in known:
            known[key] = json.dumps(value)
        texts.append(known[key])
    return texts


def _strings(values: list[Any]) -> Any:
    return pd.array(_texts(values), dtype="str")


def _times(values: list[Any]) -> Any:
    return pd.to_datetime(pd.Series(values, dtype=object), format=TIME, utc=True).array


MAKE: dict[ColumnType, Callable[[list[Any]], Any]] = {
    "integer": _integers,
    "number": _numbers,
    "truth": _truths,
    "choice": _choices,
    "text": _strings,
    "time": _times,
}
SAID: dict[ColumnType, str] = {
    "integer": "a whole number",
    "number": "a number",
    "truth": "true or false",
    "choice": "text",
    "text": "text",
    "time": "a time such as 2026-01-31T12:00:00Z",
}
