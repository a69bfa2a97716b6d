"""Description of a probe, written beside the results: contact sheet and accuracy of classifiers without attention."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from timesformer import TimeSformerConfig
from timesformer.attention.partition import ALL, EACH, Partition
from timesformer.config.registry import ModelConfig
from timesformer.data.cache import FrameCache
from timesformer.data.probes import ProbeInfo
from timesformer.data.probes.diagnostics import (
    CHEAP,
    GATE_MARGIN_POINTS,
    cheap_best_percent,
    cheap_classifiers,
    contact_sheet,
)
from timesformer.errors import InputError
from timesformer.evaluation.protocols import protocol_named
from timesformer.files import write_atomic
from timesformer_experiments.report.style import png
from timesformer_experiments.report.tables import Column, Table, to_csv, to_markdown
from timesformer_experiments.specs.run import ProbeData, RunSpec

COLUMNS = (
    Column("classifier", "Classifier", "label"),
    Column("measured_top1_percent", "top-1 [%]", "measured", bounds=("measured_low_percent", "measured_high_percent")),
    Column("limit_percent", "Limit [%]", "label"),
    Column("within_limit", "Within the limit", "label"),
)

SEEN = "brightness and colour"
"""Input of the classifiers of the gate; in older descriptions it was brightness alone."""


def ceiling_percent(spec: RunSpec, order_blind: bool = False) -> float | None:
    """Return the highest accuracy in percent of any model on the probe of a run, with its reading and protocol.

    None means that no bound is known.  order_blind: the bound of a model that sees the frames of a clip as a set, as
    `space` does.  Raises InputError for a run on other data.
    """
    if not isinstance(spec.data, ProbeData):
        raise InputError(f"ceiling: expected a run on a probe, but {spec.name!r} has other data")
    return spec.data.kind.ceiling_percent(spec.preprocessing, protocol_named(spec.protocol).views, order_blind)


def blind_to_order(model: ModelConfig) -> bool:
    """True if the model sees the frames of a clip as a set: their order cannot change its answer.

    So it is where frames are streams of their own that are averaged, and where no position says which frame a token is
    of and no group of tokens is made by the frame's number.  False where this is not certain.
    """
    if not isinstance(model, TimeSformerConfig) or model.tubelet_size > 1:
        return False
    encoder, *later = model.scheme.encoders
    parts = [part for step in encoder.steps for part in step.over]
    as_sets = all(isinstance(part, Partition) and part.t in (ALL, EACH) for part in parts)
    return as_sets and not later and model.resolved_position in ("none", "space")


def describe(info: ProbeInfo, folder: Path, name: str, cache: FrameCache | None = None) -> list[Path]:
    """Write `<name>.png` (contact sheet), `.csv`, `.md` and `.json` of a probe, unless they exist.

    The json holds the probe's fingerprint and parameters and the names of the classifiers: a probe that has changed is
    described anew, and so is one that was described with fewer classifiers or by what saw brightness alone.
    """
    files = [folder / f"{name}.{suffix}" for suffix in ("png", "csv", "md", "json")]
    if all(path.exists() for path in files) and _describes(json.loads(files[-1].read_text()), info):
        return files
    results = cheap_classifiers(info, cache)
    rows = [
        {
            "classifier": classifier.replace("_", " "),
            "measured_top1_percent": result.top1_percent,
            "measured_low_percent": result.low_percent,
            "measured_high_percent": result.high_percent,
            "limit_percent": result.limit_percent,
            "within_limit": "" if result.limit_percent is None else "yes" if result.within_limit else "NO",
        }
        for classifier, result in results.items()
    ]
    chance = 100 / len(info.labels)
    caption = f"Probe {info.name}: {len(info.labels)} classes, chance {chance:.1f} %, 95 % intervals over test videos"
    table = Table(pd.DataFrame(rows), COLUMNS, caption)
    best = cheap_best_percent(results)
    ranks = (
        f"Classifiers without attention reach {best:.1f} %. This probe may rank attention schemes only where the best "
        f"scheme is more than {GATE_MARGIN_POINTS:.0f} points above that."
    )
    text = f"# Probe `{info.name}`\n\n{caption}\n\n{to_markdown(table)}\n{ranks}\n\n![contact sheet]({name}.png)\n"
    facts = {
        "probe": info.name,
        "labels": list(info.labels),
        "fingerprint": info.fingerprint,
        "parameters": info.parameters,
        "cheap_sees": SEEN,
        "cheap_best_percent": best,
        "gate_margin_points": GATE_MARGIN_POINTS,
        "cheap_classifiers": {classifier: asdict(result) for classifier, result in results.items()},
    }
    contents = [
        png(contact_sheet(info), dots_per_inch=80),
        to_csv(table).encode(),
        text.encode(),
        (json.dumps(facts, indent=2) + "\n").encode(),
    ]
    for path, content in zip(files, contents, strict=True):
        write_atomic(path, content)
    return files


def _describes(stored: dict[str, Any], info: ProbeInfo) -> bool:
    """True if a description is of this probe, with all classifiers."""
    known = stored["fingerprint"] == info.fingerprint and set(stored["cheap_classifiers"]) == set(CHEAP)
    return known and stored.get("cheap_sees") == SEEN
