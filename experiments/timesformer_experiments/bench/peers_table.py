"""Tables of the comparison with peers on a CPU: every side's seconds, and the goals."""

from __future__ import annotations

import statistics
from typing import Any

import pandas as pd

from timesformer_experiments.bench.peers import LIMIT, OURS, SIDES, Case
from timesformer_experiments.report.tables import Column, Table

NOT_MEASURED = "not measured"
NAMES = {
    "ours": "ours",
    "fused": "ours, fused",
    "transformers": "transformers",
    "transformers_compiled": "transformers, torch.compile",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
}


def table(record: dict[str, Any]) -> Table:
    """Return a row for every side of every case, and one for the matrix products alone."""
    rows = []
    for result in record["results"]:
        case = Case(**result["case"])
        ours = _side(result, OURS[case.direction])
        limit = {"side": LIMIT, "status": "ok", "note": "", **(result["limit"] or {})}
        for side in (*result["sides"], *([limit] if result["limit"] else [])):
            seconds, ratios = side.get("seconds"), _ratios(side, ours)
            rows.append(
                {
                    "case": result["label"],
                    "direction": case.direction,
                    "precision": case.precision,
                    "side": NAMES.get(side["side"], side["side"]),
                    "measured_seconds": side.get("median_seconds"),
                    "measured_seconds_low": min(seconds) if seconds else None,
                    "measured_seconds_high": max(seconds) if seconds else None,
                    "measured_ratio": statistics.median(ratios) if ratios else None,
                    "measured_largest_difference": _scientific(side.get("largest_difference")),
                    "rounds": result["rounds"],
                    "status": f"{side['status']}: {side['note']}" if side["note"] else side["status"],
                }
            )
    columns = (
        Column("case", "ViT-B, one clip", "label"),
        Column("direction", "Direction", "label"),
        Column("precision", "Precision", "label"),
        Column("side", "Side", "label"),
        Column("measured_seconds", "Seconds, median", "measured", decimals=3),
        Column("measured_seconds_low", "lowest", "measured", decimals=3),
        Column("measured_seconds_high", "highest", "measured", decimals=3),
        Column("measured_ratio", "Ratio to ours", "measured", decimals=2),
        Column("measured_largest_difference", "Largest difference", "measured"),
        Column("rounds", "Rounds", "label", decimals=0),
        Column("status", "Status", "label"),
    )
    return Table(
        pd.DataFrame(rows, columns=_keys(columns)), columns, _caption(record), measured="measured on this machine"
    )


def goals(record: dict[str, Any]) -> Table:
    """Return a row for every case that has a goal: how many times as fast ours is as its best peer."""
    rows = [row for result in record["results"] if (row := _goal(result)) is not None]
    columns = (
        Column("case", "ViT-B, one clip", "label"),
        Column("direction", "Direction", "label"),
        Column("precision", "Precision", "label"),
        Column("ours", "Ours", "label"),
        Column("peer", "Fastest peer", "label"),
        Column("wanted_ratio", "Wanted, at least", "label", decimals=2),
        Column("measured_ratio", "Times as fast, median", "measured", decimals=2),
        Column("measured_ratio_low", "lowest", "measured", decimals=2),
        Column("measured_ratio_high", "highest", "measured", decimals=2),
        Column("measured_limit_ratio", "Of products alone", "measured", decimals=2),
        Column("met", "Goal", "label"),
    )
    caption = "Goals: seconds of the fastest peer divided by ours, and by those of the matrix products alone"
    return Table(pd.DataFrame(rows, columns=_keys(columns)), columns, caption, measured="measured on this machine")


def _goal(result: dict[str, Any]) -> dict[str, Any] | None:
    case = Case(**result["case"])
    if case.goal is None:
        return None
    wanted, against = case.goal
    ours, sides = OURS[case.direction], [_side(result, side) for side in against]
    measured = [side for side in sides if side is not None and "seconds" in side]
    missing = [NAMES[side] for side in against if side not in [found["side"] for found in measured]]
    row: dict[str, Any] = {
        "case": result["label"],
        "direction": case.direction,
        "precision": case.precision,
        "ours": NAMES[ours],
        "wanted_ratio": wanted,
    }
    found = _side(result, ours)
    if found is None or "seconds" not in found or not measured:
        return {**row, "peer": NOT_MEASURED, "met": NOT_MEASURED}
    best = min(measured, key=lambda side: side["median_seconds"])
    ratios = _ratios(best, found)
    ratio, limit = statistics.median(ratios), statistics.median(_ratios(best, result["limit"]))
    return {
        **row,
        "peer": NAMES[best["side"]] + (f" ({NOT_MEASURED}: {', '.join(missing)})" if missing else ""),
        "measured_ratio": ratio,
        "measured_ratio_low": min(ratios),
        "measured_ratio_high": max(ratios),
        "measured_limit_ratio": limit,
        "met": "met" if ratio >= wanted else f"missed by {100 * (1 - ratio / wanted):.0f} %",
    }


def _side(result: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((side for side in result["sides"] if side["side"] == name), None)


def _ratios(side: dict[str, Any] | None, other: dict[str, Any] | None) -> list[float]:
    """Return the seconds of a side divided by the other's, by round; empty if one of them was not measured."""
    if side is None or other is None or "seconds" not in side or "seconds" not in other:
        return []
    return [one / two for one, two in zip(side["seconds"], other["seconds"], strict=True)]


def _scientific(value: float | None) -> str | None:
    return None if value is None else f"{value:.1e}"


def _keys(columns: tuple[Column, ...]) -> list[str]:
    return [column.key for column in columns]


def _caption(record: dict[str, Any]) -> str:
    identity = record["identity"]
    versions = ", ".join(f"{name} {number or 'not installed'}" for name, number in identity["versions"].items())
    sides = ", ".join(NAMES[side] for side in SIDES["inference"][2:])
    threads = f"{identity['threads']} thread{'s' if identity['threads'] > 1 else ''}"
    return f"CPU against its peers ({sides}): {identity['cpu_model']}, {threads}, {versions}"
