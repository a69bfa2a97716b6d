"""Model card: README.md in a model's folder, with scheme, cost, data, licence and how to load it."""

from pathlib import Path
from typing import Any

from timesformer.config.registry import Model, macs_per_view
from timesformer.config.transformer import TimeSformerConfig
from timesformer.files import write_atomic
from timesformer.heads import Labels, are_named

CARD = "README.md"
MARK = "<!-- written by timesformer-ablations: replaced when the model is saved again; remove this line to keep it -->"
MOST_CLASSES = 20
"""Largest number of classes that the card names."""


def write_card(
    folder: Path,
    model: Model,
    preprocessing: dict[str, Any] | None,
    labels: Labels | None,
    provenance: dict[str, Any],
    own_scheme: bool,
) -> None:
    """Write the card; one that a user has written or changed (without `MARK`) is left as it is."""
    path = folder / CARD
    if path.is_file() and MARK not in path.read_text(encoding="utf-8"):
        return
    parts = [
        _front(provenance),
        MARK,
        f"# {_plain(str(provenance.get('name') or 'Model for video classification'))}",
        _architecture(model),
        "## Input",
        _input(model, preprocessing),
        "## Classes",
        _classes(model, labels),
        "## Data and training",
        _training(provenance),
        "## Licence",
        _licence(provenance),
        "## Use",
        _use(isinstance(model.config, TimeSformerConfig), own_scheme),
    ]
    write_atomic(path, "\n\n".join(parts) + "\n")


def _front(provenance: dict[str, Any]) -> str:
    """Fields that the Hugging Face hub reads."""
    lines = ["library_name: timesformer-ablations", "pipeline_tag: video-classification"]
    if "cc-by-nc" in str(provenance.get("licence", "")).lower():
        lines.append("license: cc-by-nc-4.0")
    return "\n".join(["---", *lines, "---"])


def _architecture(model: Model) -> str:
    config = model.config
    params = sum(parameter.numel() for parameter in model.parameters())
    height, width = config.height_width
    if isinstance(config, TimeSformerConfig):
        scheme = config.scheme
        steps = "; then ".join(
            ", ".join(" beside ".join(step.name for step in stage) for stage in encoder.block)
            for encoder in scheme.encoders
        )
        title = f" ({scheme.title})" if scheme.title else ""
        kind = f"Video transformer, attention scheme `{config.attention}`{title}: {steps}"
        if config.schedule is not None:
            kind = f"Video transformer, attention schemes from block to block: `{config.label}`"
        sizes = (
            f"{config.depth} blocks of {config.embed_dim} channels and {config.num_heads} heads, patches of "
            f"{config.patch_size} pixels"
        )
    else:
        kind, sizes = (
            f"Convolutional network `{config.baseline}`",
            f"width {config.width}, blocks {list(config.blocks)}",
        )
    cost = f"{params:,} parameters; {macs_per_view(config) / 1e9:,.3g} G multiply-accumulates for one view"
    clip = f"{config.num_frames} frames of {height} x {width} pixels (height x width)"
    return f"{kind}; {sizes}; clips of {clip}.\n\n{cost} (one clip and crop; matrix products alone)."


def _input(model: Model, preprocessing: dict[str, Any] | None) -> str:
    if preprocessing is None:
        return (
            "Not stated: the folder has no preprocessing.json. `load_model` takes the record of the released "
            "TimeSformer at the model's size, which may not be how this model was trained."
        )
    fields = "".join(f"\n- {name}: {value}" for name, value in preprocessing.items())
    return f"`preprocessing.json`, from a video file to the model's input:\n{fields}"


def _classes(model: Model, labels: Labels | None) -> str:
    total = " + ".join(map(str, model.config.heads))
    if not are_named(labels):
        return f"{total}; their names are not stated."
    assert labels is not None
    parts = labels.items() if isinstance(labels, dict) else [("", labels)]
    said = []
    for head, names in parts:
        shown = ", ".join(_plain(name) for name in names[:MOST_CLASSES])
        more = f", … ({len(names)} in `labels.json`)" if len(names) > MOST_CLASSES else ""
        said.append(f"{f'{head}: ' if head else ''}{shown}{more}")
    return f"{total}: " + "; ".join(said) + "."


def _training(provenance: dict[str, Any]) -> str:
    definition = provenance.get("definition")
    if not isinstance(definition, dict):
        source = provenance.get("source")
        return f"From {_plain(str(source))}; nothing else is stated." if source else "Not stated."
    data, recipe = definition.get("data", {}), definition.get("recipe", {})
    source = (
        f"the synthetic probe `{data['probe']}`" if "probe" in data else f"videos in the format `{data.get('format')}`"
    )
    budget = " and ".join(f"{recipe[name]} {name}" for name in ("epochs", "steps") if recipe.get(name) is not None)
    start = provenance.get("started_from")
    lines = [
        f"- data: {source}",
        f"- recipe: {recipe.get('optimiser')}, learning rate {recipe.get('lr')}, {budget}, batches of "
        f"{recipe.get('batch_size')}, seed {definition.get('seed')}",
        f"- started from: {'random weights' if not start else start.get('init_from') or 'another model'}",
        f"- run: {provenance.get('hash')}; everything that decides it is in `provenance.json`",
    ]
    return "\n".join(lines)


def _licence(provenance: dict[str, Any]) -> str:
    licence = provenance.get("licence")
    return (
        f"{licence} (of the weights that it started from)." if licence else "Not stated: state it before you share it."
    )


def _use(transformer: bool, own_scheme: bool) -> str:
    trust = ", trust=True" if own_scheme else ""
    load = "load_model" if transformer else "load_any_model"
    code = [
        "```python",
        f"from timesformer.checkpoints import {load}",
        "",
        f'loaded = {load}("this/folder"{trust})  # or the name of its repository on the hub',
        "model, preprocessing, labels = loaded.model, loaded.preprocessing, loaded.labels",
        "```",
    ]
    note = (
        [
            "",
            "The attention scheme is code of its own in `scheme.py`, run only where it is trusted: read it first.",
        ]
        if own_scheme
        else []
    )
    return "\n".join([*code, *note])


def _plain(text: str) -> str:
    """A text on one line, in which nothing is markup."""
    return " ".join("".join(f"\\{char}" if char in "\\`*_[]<>#|" else char for char in text).split())
