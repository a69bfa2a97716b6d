"""`timesformer cost`: parameters, multiply-accumulates and memory of a model."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timesformer_experiments.cli.options import (
    Json,
    ScheduleText,
    SchemeFile,
    SchemeOptions,
    attention_named,
    bad_input,
    schedule_of,
)
from timesformer_experiments.report.terminal import console, print_json, progress

if TYPE_CHECKING:
    from timesformer_experiments.cost.count import Cost
    from timesformer_experiments.report.tables import Table


def cost(
    attention: Annotated[str | None, typer.Option(help="Attention scheme, or `all`.")] = None,
    option: SchemeOptions = None,
    schedule: ScheduleText = None,
    baseline: Annotated[str | None, typer.Option(help="CNN instead of a scheme: i3d, slowfast or c2d.")] = None,
    num_frames: Annotated[int | None, typer.Option(help="Frames per clip.")] = None,
    image_size: Annotated[
        str | None, typer.Option(help="Frame size in pixels: 224, or height x width: 224x320.")
    ] = None,
    num_classes: Annotated[int | None, typer.Option(help="Number of classes.")] = None,
    patch_size: Annotated[int | None, typer.Option(help="Side of a patch in pixels.")] = None,
    tubelet_size: Annotated[int | None, typer.Option(help="Frames per tubelet.")] = None,
    embed_dim: Annotated[int | None, typer.Option(help="Channels of a token.")] = None,
    depth: Annotated[int | None, typer.Option(help="Number of blocks.")] = None,
    temporal_depth: Annotated[int | None, typer.Option(help="Blocks of the temporal encoder, if there is one.")] = None,
    num_heads: Annotated[int | None, typer.Option(help="Number of attention heads.")] = None,
    mlp_ratio: Annotated[float | None, typer.Option(help="Hidden width of the MLP divided by embed_dim.")] = None,
    cls_policy: Annotated[
        str | None, typer.Option(help="Class token in every step: absent, replicated or global.")
    ] = None,
    temporal_fc: Annotated[bool | None, typer.Option(help="Extra linear layer after temporal attention.")] = None,
    share_qkv: Annotated[
        bool | None, typer.Option(help="Share one qkv projection between the steps of a block.")
    ] = None,
    position: Annotated[
        str | None, typer.Option(help="Positions: none, space, space_time, table, sinusoid or rope.")
    ] = None,
    other: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other field of the model, as in YAML: --set registers=4; repeatable."),
    ] = None,
    views: Annotated[int, typer.Option(min=1, help="Views per video (clips x crops) counted in tflops_total.")] = 1,
    batch: Annotated[int | None, typer.Option(min=1, help="Also predict peak memory for a batch of this size.")] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Also predict the memory of a training step; batch 1 without --batch.")
    ] = False,
    precision: Annotated[str, typer.Option(help="Precision for the memory: fp32, or bf16 (autocast).")] = "fp32",
    optimiser: Annotated[str, typer.Option(help="Optimiser for the memory: sgd (with momentum) or adamw.")] = "sgd",
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Predict memory with gradient checkpointing.")
    ] = False,
    backend: Annotated[
        str | None, typer.Option(help="Attention backend: auto, sdpa (fused), reference (not fused), flex or triton.")
    ] = None,
    device: Annotated[str, typer.Option(help="Device whose memory is predicted: cuda or cpu.")] = "cuda",
    card_gib: Annotated[
        list[float] | None,
        typer.Option(
            help="GPU memory in GiB for which to find the largest batch; repeatable. Default: 16, 24, 40, 80."
        ),
    ] = None,
    break_even: Annotated[
        bool,
        typer.Option("--break-even", help="Also: from which frames and resolution it needs less than joint, divided."),
    ] = False,
    gpu: Annotated[str | None, typer.Option(help="Also estimate GPU-hours of training on: a100, h100, h200.")] = None,
    mfu: Annotated[float, typer.Option(help="With --gpu: assumed share of the card's peak (model FLOPs use).")] = 0.4,
    epochs: Annotated[float, typer.Option(help="With --gpu: passes over the training videos.")] = 15,
    videos: Annotated[int | None, typer.Option(min=1, help="With --gpu: number of training videos.")] = None,
    price: Annotated[float | None, typer.Option(help="With --gpu: price of one GPU-hour, in any currency.")] = None,
    out: Annotated[
        list[Path] | None, typer.Option(help="File for the table of costs: .csv, .tex or .md; repeatable.")
    ] = None,
    scheme_file: SchemeFile = None,
    as_json: Json = False,
) -> None:
    """Count parameters, multiply-accumulates and comparisons of a model.

    Nothing is run and no weights are needed. Defaults are those of the paper: ViT-B/16, 8 frames of 224 pixels, 400
    classes. One multiply-accumulate counts as one FLOP.

    With --batch or --train, peak memory is predicted too, and the largest batch that fits on a GPU. With --gpu and
    --videos, the GPU-hours of training are estimated from the counted MACs and a stated utilisation.

    With --break-even, executed MACs and the memory of a training step are compared with those of joint and divided
    attention over frames and resolutions.
    """
    from timesformer import TimeSformerConfig
    from timesformer.attention import load_file, names
    from timesformer.config.registry import read_config
    from timesformer_experiments.cost.count import cost as count
    from timesformer_experiments.cost.memory import CARDS_GIB, forecast

    budget = None
    if gpu is not None:
        from timesformer_experiments.cost.gpu_hours import Budget

        if videos is None:
            raise bad_input("--gpu: expected --videos too, the number of training videos")
        budget = Budget(gpu, mfu, precision, price)  # type: ignore[arg-type]  # checked there
    for path in out or []:
        if path.suffix not in WRITERS:
            raise bad_input(f"--out {path}: expected a name that ends in {', '.join(WRITERS)}")
    if baseline is not None and (attention is not None or scheme_file is not None):
        raise bad_input("--baseline: a CNN has no attention scheme; remove --attention and --scheme-file")
    own = tuple(scheme.name for scheme in load_file(scheme_file)) if scheme_file is not None else ()
    fields: dict[str, Any] = {
        "num_frames": num_frames,
        "image_size": None if image_size is None else _image_size(image_size),
        "num_classes": num_classes,
        "patch_size": patch_size,
        "tubelet_size": tubelet_size,
        "embed_dim": embed_dim,
        "depth": depth,
        "temporal_depth": temporal_depth,
        "num_heads": num_heads,
        "mlp_ratio": mlp_ratio,
        "cls_policy": cls_policy,
        "temporal_fc": temporal_fc,
        "share_qkv": share_qkv,
        "position": position,
        "backend": backend,
        "schedule": schedule_of(schedule),
    }
    given = {name: value for name, value in fields.items() if value is not None} | _others(other or [])
    if option and (attention is None or attention == "all"):
        raise bad_input("--option: expected with --attention and the name of one scheme")
    chosen = names() if attention == "all" else (attention_named(attention, option),) if attention is not None else own
    if baseline is not None:
        chosen = (baseline,)
    if not chosen:
        raise bad_input(f"--attention: expected `all` or one of {', '.join(names())}; or use --baseline")
    if break_even and baseline is not None:
        raise bad_input("--break-even: expected with --attention; a CNN has no attention")
    costs, memories, evens = [], [], []
    for name in chosen:
        if len(chosen) > 1:
            progress(f"counting {name}")
        config = read_config({"attention" if baseline is None else "baseline": name, **given})
        traced = config
        if isinstance(config, TimeSformerConfig) and backend == "triton":
            # the kernels compute the same pairs as sdpa, but cannot be traced for the second count
            traced = replace(config, backend="sdpa")
        costs.append(count(traced, views=views))
        if batch is not None or train:
            settings = {
                "batch": batch or 1,
                "precision": precision,
                "optimiser": optimiser,
                "gradient_checkpointing": gradient_checkpointing,
                "device": device,
            }
            memories.append(forecast(config, train, card_gib or CARDS_GIB, settings))
        if break_even and isinstance(config, TimeSformerConfig):
            from timesformer_experiments.cost import break_even as even

            compared = [each.to_dict() for each in even.break_even(config, progress=progress)]
            evens.append({"sizes": compared, **asdict(even.waste(config))})
    hours: list[dict[str, Any]] = []
    if budget is not None:
        from timesformer_experiments.cost.gpu_hours import training_macs

        assert videos is not None
        hours = [budget.to_dict(training_macs(each.macs_per_view, epochs, videos)) for each in costs]
    table = _cost_table(costs, hours)
    for path in out or []:
        _write(path, table)
    if as_json:
        found = [each.to_dict() for each in costs]
        for each, memory in zip(found, memories, strict=False):
            each["memory"] = memory
        for each, even_with in zip(found, evens, strict=False):
            each["break_even"] = even_with
        for each, spent in zip(found, hours, strict=False):
            each["gpu_hours"] = spent
        print_json(found[0] if len(found) == 1 and attention != "all" else {"costs": found})
        return
    console().print(_to_rich(table))
    if hours:
        console().print(f"{hours[0]['how']}.", markup=False, highlight=False)
    if any(found.reach_grid for found in costs):
        console().print(_reach_table(costs))
    if evens:
        console().print(_even_table(evens))
    if memories:
        console().print(_memory_table(costs, memories))
        console().print(memories[0]["how"], markup=False, highlight=False)


def _others(texts: list[str]) -> dict[str, Any]:
    """Fields of the model that are given as FIELD=VALUE."""
    from timesformer.config.yaml_text import parse_yaml

    found = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name.isidentifier():
            raise bad_input(f"--set {text}: expected FIELD=VALUE, such as registers=4")
        found[name] = parse_yaml(value, f"--set {name}")
    return found


WRITERS = (".csv", ".tex", ".md")


def _write(path: Path, table: Table) -> None:
    from timesformer.files import write_atomic
    from timesformer_experiments.report import tables

    if path.suffix == ".tex":
        text = tables.to_latex(table, path.stem)
    else:
        text = tables.to_csv(table) if path.suffix == ".csv" else tables.to_markdown(table)
    write_atomic(path, text)


def _to_rich(table: Table) -> Any:
    from timesformer_experiments.report.tables import to_rich

    return to_rich(table)


def _cost_table(costs: list[Cost], hours: list[dict[str, Any]]) -> Table:
    import pandas as pd

    from timesformer_experiments.report.tables import Column, Table

    first = costs[0]
    spent = [{"predicted_gpu_hours": each["gpu_hours"], "predicted_price": each["price"]} for each in hours]
    frame = pd.DataFrame(
        [found.to_dict() | more for found, more in zip(costs, spent or [{}] * len(costs), strict=True)]
    )
    columns = (
        Column("attention", "Attention", "label"),
        Column("params", "Parameters", "counted", decimals=0),
        Column("macs_per_view", "GMACs per view", "counted", decimals=2, scale=1e9),
        Column("macs_needed", "GMACs needed", "counted", decimals=2, scale=1e9),
        Column("macs_fvcore", "GMACs, fvcore", "counted", decimals=2, scale=1e9),
        Column("comparisons_per_patch", "Comparisons per patch", "counted", decimals=1),
        Column("tflops_total", f"TFLOPs, {first.views} view{'s' if first.views > 1 else ''}", "counted", decimals=3),
        *([Column("predicted_gpu_hours", f"GPU-hours, {hours[0]['gpu'].upper()}", "predicted", 1)] if hours else []),
        *([Column("predicted_price", "Price", "predicted", 0)] if hours and hours[0]["price"] is not None else []),
    )
    size = f"{first.num_frames} x {first.image_height} x {first.image_width}, {first.num_classes} classes"
    return Table(frame, columns, f"Cost at {size}; one multiply-accumulate counts as one FLOP")


def _reach_table(costs: list[Cost]) -> Any:
    import pandas as pd

    from timesformer_experiments.report.tables import Column, Table, to_rich

    frame = pd.DataFrame([{**found.to_dict(), "on": _by(found.reach_grid)} for found in costs])
    columns = (
        Column("attention", "Attention", "label"),
        Column("steps_to_meet", "Steps to meet another position and frame", "counted", decimals=0),
        Column("steps_to_reach_all", "Steps to reach all", "counted", decimals=0),
        Column("steps_to_reach_all_without_class_token", "Without the class token", "counted", decimals=0),
        Column("on", "Patches", "label"),
    )
    caption = (
        "Attention steps until every patch has attended directly to a patch at another position in another frame, and "
        "until every patch can depend on every other; counted on a smaller grid where the model's is large; –: never, "
        "or the model outputs no patches"
    )
    return to_rich(Table(frame, columns, caption))


def _even_table(evens: list[dict[str, Any]]) -> Any:
    import pandas as pd

    from timesformer_experiments.report.tables import Column, Table, to_rich

    rows = [{**each, "added_percent": even["added_percent"]} for even in evens for each in even["sizes"]]
    columns = (
        Column("attention", "Attention", "label"),
        Column("reference", "Compared with", "label"),
        Column("along", "Along", "label"),
        Column("fewer_macs_from", "Fewer MACs from", "counted", decimals=0),
        Column("fewer_macs_tokens", "Patches", "counted", decimals=0),
        Column("less_memory_from", "Less memory from", "predicted", decimals=0),
        Column("less_memory_tokens", "Patches", "predicted", decimals=0),
        Column("added_percent", "MACs added by tiles [%]", "counted", decimals=1),
    )
    caption = (
        "Sizes from which on a scheme executes fewer MACs, and a training step of one clip needs less memory; –: at "
        "none of those tried; last column at the size of the first table"
    )
    return to_rich(Table(pd.DataFrame(rows), columns, caption))


def _by(grid: tuple[int, int, int] | None) -> str | None:
    return None if grid is None else " x ".join(map(str, grid))


PARTS = ("params", "gradients", "optimiser", "activations", "attention")


def _memory_table(costs: list[Cost], memories: list[dict[str, Any]]) -> Any:
    import pandas as pd

    from timesformer_experiments.report.tables import Column, Table, to_rich

    rows = []
    for counted, memory in zip(costs, memories, strict=True):
        for step in ("inference", "train"):
            if step in memory:
                batches = {f"predicted_batch_{card}": most for card, most in memory["largest_batch"][step].items()}
                rows.append({"attention": counted.attention, "step": step, **memory[step], **batches})
    first = memories[0]
    columns = (
        Column("attention", "Attention", "label"),
        Column("step", "Step", "label"),
        Column("peak_bytes", "Peak [GiB]", "predicted", decimals=2, scale=2**30),
        *(Column(f"{part}_bytes", part.capitalize(), "predicted", decimals=2, scale=2**30) for part in PARTS),
        *(
            Column(f"predicted_batch_{card}", f"Clips, {card} GiB", "predicted", decimals=0)
            for card in next(iter(first["largest_batch"].values()))
        ),
    )
    extra = ", gradient checkpointing" * first["gradient_checkpointing"]
    caption = (
        f"Peak memory of {first['batch']} clips on {first['device']}, {first['precision']}, {first['optimiser']}{extra}"
        f", backend {first['backend']}, and its parts at the peak, in GiB; largest batch for each GPU memory"
    )
    return to_rich(Table(pd.DataFrame(rows), columns, caption))


def _image_size(text: str) -> int | tuple[int, int]:
    """Return the sides from `224`, or height and width from `224x320`."""
    try:
        sides = [int(side) for side in text.split("x")]
    except ValueError:
        sides = []
    if len(sides) == 1:
        return sides[0]
    if len(sides) == 2:
        return sides[0], sides[1]
    raise bad_input(f"--image-size {text}: expected pixels, such as 224, or height x width, such as 224x320")
