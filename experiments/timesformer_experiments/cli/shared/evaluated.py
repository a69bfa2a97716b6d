"""Tables of `timesformer evaluate` beside accuracies: orders of frames next to one another, and classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timesformer_experiments.cli.options import bad_input

if TYPE_CHECKING:
    from pathlib import Path

    from timesformer.data import Annotations
    from timesformer.evaluation.confusion import Confusion
    from timesformer.evaluation.evaluate import EvalResult
    from timesformer.evaluation.frame_order import FrameOrder
    from timesformer_experiments.report.tables import Table


def orders_named(name: str) -> tuple[FrameOrder, ...]:
    """The orders that `--frame-order` names: one, or `all`."""
    from timesformer.errors import InputError
    from timesformer.evaluation.frame_order import FRAME_ORDERS, order_named

    if name == "all":
        return FRAME_ORDERS
    try:
        return (order_named(name),)
    except InputError as error:
        raise bad_input(f"--frame-order {name}: expected one of {', '.join(FRAME_ORDERS)}, all") from error


def with_groups(found: Annotations, data: Path, group: str) -> Annotations:
    """The samples of an annotation file, with the groups that `--group` names.

    Raises InputError for a video without a group.
    """
    from timesformer.data.splits import Grouping
    from timesformer.errors import InputError

    kind, equals, value = group.partition("=")
    if not equals or kind not in ("column", "pattern"):
        kind, value = "column" if group in _columns(data) else "pattern", group
    try:
        return Grouping(**{kind: value}).of(found, data)
    except InputError as error:
        raise bad_input(f"--group {group}: {error}") from error


def _columns(data: Path) -> list[str]:
    """The columns of an annotation file that names them."""
    import csv

    if data.suffix.lower() == ".json" and data.is_file():
        entries = json.loads(data.read_bytes())
        first = entries[0] if isinstance(entries, list) and entries else None
        return list(first) if isinstance(first, dict) else []
    if data.suffix.lower() != ".csv" or not data.is_file():
        return []
    with data.open(encoding="utf-8-sig", newline="") as file:
        return next(csv.reader(file), [])


def counted(result: EvalResult, model: Any, labels: Any) -> list[Confusion]:
    """The confusion of each head of a model."""
    from timesformer.evaluation.confusion import confusions
    from timesformer.heads import heads_of

    heads = heads_of(model)
    return confusions(result.per_video, labels, heads, 0 if heads else len(labels))


def tables_of(
    name: str, results: Mapping[FrameOrder, EvalResult], model: Any, labels: Any, per_class: bool
) -> list[Table]:
    """Tables of one model on one data set: of all orders where there are several, else of its classes if wanted."""
    from timesformer.heads import heads_of
    from timesformer_experiments.analysis.classes import class_table
    from timesformer_experiments.analysis.orders import order_rows, order_table

    if len(results) > 1:
        heads = heads_of(model)
        rows = order_rows(results, labels, heads, 0 if heads else len(labels))
        return [order_table(rows if per_class else rows[:1], name)]
    if not per_class:
        return []
    return [class_table(counted(result, model, labels), name, result.per_video) for result in results.values()]


def compared(measured: Sequence[Mapping[str, Any]], tables: Sequence[Table], orders: Sequence[str]) -> dict[str, Any]:
    """Values beside the evaluations in JSON: `top1_percent` of a single one; `frame_orders`, the rows of all orders."""
    if len(measured) == 1:
        return {"top1_percent": measured[0]["top1_percent"]}
    if len(orders) == 1:
        return {}
    names = [each["name"] for each in measured[:: len(orders)]]
    return {
        "frame_orders": [
            {"name": name, "rows": json.loads(table.frame.to_json(orient="records", double_precision=15))}
            for name, table in zip(names, tables, strict=True)
        ]
    }


def loaded_with(source: str | Path, overrides: dict[str, Any]) -> Any:
    """Return a checkpoint's model with these fields; with another scheme, all of its weights must have a place in it.

    Raises InputError that names a weight that the other scheme lacks or would begin anew.
    """
    from timesformer.checkpoints import load_any_model

    loaded = load_any_model(source, **overrides)
    report = loaded.report
    changed = [*report.initialised, *report.left_out] if "attention" in overrides else []
    if changed:
        raise bad_input(
            f"--attention {overrides['attention']}: expected a scheme with the projections of {source}; "
            f"{len(changed)} weights differ, the first {changed[0]} ({report.reasons.get(changed[0], 'new')})"
        )
    return loaded
