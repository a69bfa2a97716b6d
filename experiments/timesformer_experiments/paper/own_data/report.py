"""Report of `reproduce real`: a row for each split and model, what frame order is worth, and the choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from timesformer_experiments.analysis.pairs import Comparison, compare, judged
from timesformer_experiments.cost.training import macs_per_trained_clip
from timesformer_experiments.paper.ablation import interval_said, restrictions_said
from timesformer_experiments.paper.accuracy import Accuracy, Key, accuracy, columns_of, comparisons
from timesformer_experiments.paper.drawing import draw_dots
from timesformer_experiments.paper.own_data.plan import NAME, Study
from timesformer_experiments.paper.own_data.schemes import SCHEMES
from timesformer_experiments.report.report import Part, Report
from timesformer_experiments.report.tables import Column, Table
from timesformer_experiments.specs.choice import Choice

Record = Mapping[str, Any]
COLUMNS = (
    Column("split", "Split", "label"),
    Column("label", "Model", "label"),
    Column("chosen", "Chosen", "label"),
    Column("seeds", "Seeds", "label", decimals=0),
    Column(
        "measured_top1_percent",
        "top-1 [%]",
        "measured",
        bounds=("measured_top1_low_percent", "measured_top1_high_percent"),
    ),
    Column("measured_each_seed_percent", "each seed [%]", "measured"),
    Column("measured_shuffled_top1_percent", "frames shuffled [%]", "measured"),
    Column(
        "measured_order_points",
        "order is worth [points]",
        "measured",
        bounds=("measured_order_low_points", "measured_order_high_points"),
    ),
    Column("measured_validation_percent", "validation, best draw [%]", "measured"),
    Column("trained_params", "trained [M]", "counted", scale=1e6),
    Column("train_macs_per_clip", "training GMACs per clip", "counted", scale=1e9),
    Column("measured_train_seconds", "training [s]", "measured", decimals=0),
)


def report_of(
    study: Study, choices: Mapping[str, Choice], records: Sequence[dict[str, Any]], tuned: Sequence[dict[str, Any]]
) -> Report:
    """Return the report.

    records: of the final runs, with `part` (the split), `scheme` and `shuffled`; tuned: of the draws, with `scheme`.
    """
    plain, mixed = _accuracies(records, shuffled=False), _accuracies(records, shuffled=True)
    best = max(choices, key=lambda scheme: choices[scheme].percents[choices[scheme].draw or 0] or 0.0)
    worth = {
        (each.setting["on"], each.first): each
        for each in judged(
            [
                compare(plain[key].seeds, mixed[key].seeds, names=(key[0], "shuffled"), setting={"on": key[1]})
                for key in plain
            ]
        )
    }
    rows = [_row(study, choices, best, records, plain, mixed, worth, key) for key in sorted(plain, key=_place(study))]
    frame = pd.DataFrame(rows)
    columns = tuple(column for column in COLUMNS if frame[column.key].notna().any())
    splits = tuple(study.lists.splits)
    return Report(
        name=NAME,
        title=f"Which attention for {study.name}",
        table=Table(frame, columns, _caption(study, plain), measured="measured here"),
        figure=draw_dots(_wide(frame, splits), {split: split for split in splits}, "Model"),
        findings=tuple(_findings(study, choices, best, plain, worth)),
        sources=(),
        remarks=(),
        records=(*records, *tuned),
        parts=(_draws(study, choices, tuned),),
    )


def _place(study: Study) -> Any:
    splits, schemes = list(study.lists.splits), list(SCHEMES)
    return lambda key: (splits.index(key[1]), schemes.index(key[0]))


def _accuracies(records: Sequence[Record], shuffled: bool) -> dict[Key, Accuracy]:
    found: dict[Key, dict[int, dict[str, Any]]] = {}
    for record in records:
        of_seeds = found.setdefault((record["scheme"], record["part"]), {})
        of_seeds[record["spec"]["seed"]] = dict(record) | (record["shuffled"] if shuffled else {})
    return {key: accuracy(of_seeds) for key, of_seeds in found.items()}


def _row(
    study: Study,
    choices: Mapping[str, Choice],
    best: str,
    records: Sequence[Record],
    plain: Mapping[Key, Accuracy],
    mixed: Mapping[Key, Accuracy],
    worth: Mapping[tuple[str, str], Comparison],
    key: Key,
) -> dict[str, Any]:
    scheme, split = key
    choice, own = choices[scheme], [r for r in records if (r["scheme"], r["part"]) == key]
    spec = study.finals(scheme, choice)[split, own[0]["spec"]["seed"]]
    metrics, found = own[0]["metrics"], worth[split, scheme]
    measured = {
        name.replace("measured_all_", "measured_"): value
        for name, value in columns_of(plain[key], "measured_all").items()
    }
    return {
        "split": split,
        "scheme": scheme,
        "label": SCHEMES[scheme],
        "chosen": "yes" if scheme == best else "",
        "seeds": len(own),
        **measured,
        "measured_shuffled_top1_percent": mixed[key].mean,
        "measured_order_points": found.difference_points,
        "measured_order_low_points": found.low_points,
        "measured_order_high_points": found.high_points,
        "measured_validation_percent": None if choice.draw is None else choice.percents[choice.draw],
        "trained_params": metrics.get("trained_params", metrics["params"]),
        "train_macs_per_clip": macs_per_trained_clip(spec.model, spec.recipe),
        "measured_train_seconds": sum(r["metrics"]["train_seconds"] for r in own) / len(own),
    }


def _caption(study: Study, plain: Mapping[Key, Accuracy]) -> str:
    setting, seeds = study.setting, max(len(found.seeds.percent) for found in plain.values())
    chance = next(iter(plain.values())).chance
    weights = (
        "all models start from nothing"
        if study.lists.from_nothing
        else f"of the transformers the first {study.depth - study.blocks} of {study.depth} blocks are frozen as in the "
        "checkpoint"
    )
    return (
        f"{study.name}, profile {study.profile}: {seeds} seed{'s' if seeds > 1 else ''}, "
        f"{interval_said({found.over for found in plain.values()})}; {weights}; recipe and model "
        f"chosen on validation videos of {study.lists.first}, {setting.draws} draws a model; chance {chance:.1f} %"
    )


def _findings(
    study: Study,
    choices: Mapping[str, Choice],
    best: str,
    plain: Mapping[Key, Accuracy],
    worth: Mapping[tuple[str, str], Comparison],
) -> list[str]:
    choice = choices[best]
    assert choice.draw is not None
    found = [
        f"Chosen on validation videos of {study.lists.first}: {SCHEMES[best]}, {choice.percents[choice.draw]:.1f} % "
        f"there ({', '.join(f'{path} {value}' for path, value in study.tune.draws()[choice.draw].items())})."
    ]
    for split in study.lists.splits:
        if (best, split) in plain:
            each = plain[best, split]
            said = "" if each.low is None else f" ({each.low:.1f} to {each.high:.1f})"
            found.append(f"{SCHEMES[best]} on the test videos of {split}: {each.mean:.1f} %{said}.")
    pairs = [(best, other) for other in choices if other != best]
    found += [f"{each.sentence()}." for each in comparisons(plain, pairs, SCHEMES)]
    for (split, scheme), gain in worth.items():
        known = "" if gain.low_points is None else f" ({gain.low_points:.1f} to {gain.high_points:.1f})"
        found.append(
            f"Frame order on {split}, {SCHEMES[scheme]}: {gain.difference_points:.1f} points{known} from shuffled to "
            "normal."
        )
    lost = [scheme for scheme in study.schemes if scheme not in choices]
    found += [f"{SCHEMES[scheme]}: no draw has an accuracy, so it has no final run." for scheme in lost]
    found += restrictions_said({(SCHEMES[scheme], split): each for (scheme, split), each in plain.items()})
    return found


def _wide(frame: pd.DataFrame, splits: Sequence[str]) -> pd.DataFrame:
    """Return a row for each model, with the columns that the figure reads."""
    rows: dict[str, dict[str, Any]] = {}
    for row in frame.to_dict(orient="records"):
        wide = rows.setdefault(str(row["scheme"]), {"label": row["label"]})
        for name in ("top1_percent", "top1_low_percent", "top1_high_percent", "interval_over", "two_humps"):
            wide[f"measured_{row['split']}_{name}"] = row.get(f"measured_{name}")
        wide[f"published_{row['split']}_top1_percent"] = None
    return pd.DataFrame(list(rows.values()))


def _draws(study: Study, choices: Mapping[str, Choice], tuned: Sequence[Record]) -> Part:
    """Return the table of all draws with their accuracy on validation."""
    rows = []
    for scheme, choice in choices.items():
        own = [record for record in tuned if record["scheme"] == scheme]
        for number, (values, percent, record) in enumerate(zip(study.tune.draws(), choice.percents, own, strict=True)):
            rows.append(
                {
                    "label": SCHEMES[scheme],
                    "draw": number,
                    **values,
                    "measured_validation_percent": percent,
                    "measured_train_percent": record["metrics"].get("train_top1_percent")
                    if percent is not None
                    else None,
                    "chosen": "yes" if number == choice.draw else "",
                }
            )
    columns = (
        Column("label", "Model", "label"),
        Column("draw", "Draw", "label", decimals=0),
        *(Column(path, path, "label", decimals=None) for path in study.tune.over),
        Column("measured_validation_percent", "validation [%]", "measured"),
        Column("measured_train_percent", "training [%]", "measured"),
        Column("chosen", "Chosen", "label"),
    )
    caption = f"Draws of a recipe, the same for every model, on validation videos of {study.lists.first}"
    return Part(
        "draws", "How recipes were chosen", Table(pd.DataFrame(rows), columns, caption, measured="measured here")
    )
