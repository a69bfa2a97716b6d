"""`timesformer recall`: the share of a model's attention that another scheme's neighbourhoods would keep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from timesformer_experiments.cli.options import (
    Checkpoint,
    Device,
    Json,
    Runs,
    SchemeFile,
    SchemeOptions,
    Trust,
    attention_named,
    chosen_device,
    model_source,
)
from timesformer_experiments.report.terminal import console, print_json


def recall(
    videos: Annotated[list[Path], typer.Argument(help="Videos, or folders of images.", show_default=False)],
    checkpoint: Checkpoint,
    attention: Annotated[str, typer.Option(help="Scheme whose neighbourhoods are looked at.")],
    option: SchemeOptions = None,
    scheme_file: SchemeFile = None,
    trust: Trust = False,
    device: Device = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Measure how much of a trained model's attention a declared neighbourhood would keep, without training.

    For each layer, step and head: the sum of the attention weights on the keys that the scheme declares, as a mean over
    patches and videos. Uses the middle clip of each video, with the checkpoint's preprocessing.
    """
    from timesformer.attention import build, load_file
    from timesformer.checkpoints import load_model
    from timesformer.data import Preprocessing
    from timesformer.maps.recall import attention_recall, mean_recall
    from timesformer.maps.seen import see

    if scheme_file is not None:
        load_file(scheme_file)
    name = attention_named(attention, option)
    scheme = build(name)
    loaded = load_model(model_source(checkpoint, runs), trust=trust)
    record = Preprocessing.from_dict(loaded.preprocessing)
    model = loaded.model.to(chosen_device(device))
    found = mean_recall([attention_recall(model, see(video, record).clip, scheme) for video in videos])
    if as_json:
        values = [each.to_dict() for each in found]
        stated = {"checkpoint": checkpoint, "model_attention": model.config.label, "attention": name}
        print_json({**stated, "videos": [str(video) for video in videos], "recall": values})
        return
    console().print(_table(found, name, model.config.label, len(videos)))


def _table(found: list[Any], name: str, model: str, videos: int) -> Any:
    import pandas as pd

    from timesformer_experiments.report.tables import Column, Table, to_rich

    rows = [
        {**each.to_dict(), "low": min(each.recall_by_head), "high": max(each.recall_by_head), "place": str(each.layer)}
        for each in found
    ]
    columns = (
        Column("place", "Layer", "label"),
        Column("step", "Step", "label"),
        Column("neighbourhood", "Neighbourhood", "label"),
        Column("recall", "Recall [%]", "measured", decimals=1, scale=0.01),
        Column("low", "Lowest head [%]", "measured", decimals=1, scale=0.01),
        Column("high", "Highest head [%]", "measured", decimals=1, scale=0.01),
        Column("density", "Pairs kept [%]", "counted", decimals=1, scale=0.01),
    )
    clips = f"{videos} video{'s' if videos > 1 else ''}"
    caption = f"Share of the attention of {model} that {name} keeps, mean over patches and heads, {clips}"
    return to_rich(Table(pd.DataFrame(rows), columns, caption, measured="measured here"))
