"""Starting a model from a checkpoint: image model -> video model -> next dataset, and every load from a file."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from timesformer.attention import Grid
from timesformer.checkpoints.detect import read_source
from timesformer.checkpoints.formats.cnn import transfer_cnn
from timesformer.checkpoints.head_rows import InitHead, head_rows
from timesformer.checkpoints.layout import shapes
from timesformer.checkpoints.report import TransferReport
from timesformer.checkpoints.source import Source
from timesformer.checkpoints.switching import require_same_kind, switched
from timesformer.config.cnn import CnnConfig
from timesformer.config.registry import Model
from timesformer.config.transformer import TimeSformerConfig
from timesformer.errors import InputError
from timesformer.heads import Labels
from timesformer.positions import Resize, resize_space, resize_table, resize_time

HEAD = ("head", "fc_norm.", "pooler.", "standardise.")
"""Beginnings of the names after the last encoder; a checkpoint may lack all that begin with one of them."""
SHARED_FIELDS = ("embed_dim", "depth", "num_heads", "patch_size", "in_channels", "mlp_ratio")


def transfer(
    model: Model,
    source: str | Path | Source,
    *,
    position_resize: Resize = "bicubic",
    strict: bool = True,
    labels: Labels | None = None,
    init_head: InitHead | None = None,
) -> TransferReport:
    """Start `model` from a checkpoint of any format (a folder, a file, a hub name), in place.

    Every attention step of a block starts from the source's step of the same name, or else from the source's first
    step (appendix A of the paper: temporal and spatial attention start from the same image weights); extra linears
    that the source lacks stay zero; the head is kept only where the classes agree; positions are resized
    (bicubic in space, linear in time, or by a rule of the released code: see `timesformer.positions`; a full
    table starts from spatial positions repeated in time), and time positions that the source lacks stay zero.

    A model with fewer blocks than the source, which has one encoder, takes the first ones.

    `strict=False` initialises weights that are missing or of a wrong shape, and leaves out what has no use, where they
    are an error otherwise; the report lists them.

    labels: class names of the model.  init_head: how the classes are compared with the source's: by "names" (the
    default where there are labels), which reorders the head's rows where the order differs; by "number" of classes
    alone (the default without labels); or not at all, "fresh", which drops the head.  The report's notes say what was
    done and why.

    A convolutional baseline starts from another one, or from an image ResNet (`timesformer.checkpoints.formats.cnn`).

    Raises:
        InputError: width, depth, heads or patch size differ, a weight of the source has no explained use, or one is
            missing.
    """
    if position_resize not in get_args(Resize):
        raise InputError(f"position_resize: expected one of {get_args(Resize)}, got {position_resize!r}")
    if not isinstance(source, Source):
        source = read_source(source, strict=strict, num_heads=getattr(model.config, "num_heads", None))
    rule: InitHead = init_head or ("number" if labels is None else "names")
    if rule not in get_args(InitHead):
        raise InputError(f"init_head: expected one of {', '.join(get_args(InitHead))}, got {rule!r}")
    rows = head_rows(rule, source, model.config.heads, labels)
    if isinstance(model.config, CnnConfig):
        return transfer_cnn(model, source, rows)
    ours, where = model.config, source.where
    assert isinstance(ours, TimeSformerConfig)
    if not isinstance(source.config, TimeSformerConfig):
        raise InputError(f"{where}: a convolutional network ({source.config.baseline}) cannot start a transformer")
    assumed = {name: getattr(ours, name) for name in SHARED_FIELDS if name in source.assumed}
    theirs = replace(source.config, **assumed)
    for name in SHARED_FIELDS:
        fewer = name == "depth" and theirs.depth > ours.depth and len(theirs.scheme.encoders) == 1
        if getattr(theirs, name) != getattr(ours, name) and not fewer:
            raise InputError(f"{where}: {name} is {getattr(theirs, name)} there and {getattr(ours, name)} here")
    require_same_kind(where, theirs, ours)
    report = TransferReport(notes=list(source.notes), licence=source.provenance.get("licence"))
    weights, notes = switched(_checked(source, source.config, report, strict), theirs, ours)
    report.notes += notes
    not_read = _head_not_read(theirs, ours)
    dropped = sorted(name for name in set(source.tensors) - set(weights) if name in report.reasons)
    used, state = set(), {}
    for name, value in model.state_dict().items():
        origin = _origin(name, model, theirs, weights)
        if name == "encoders.0.positions.table" and origin not in weights:
            origin = "encoders.0.positions.space"  # the image model's positions, repeated in time (ViViT, section 3.4)
        if origin in weights and name.startswith("head") and (rows.order is None or not_read):
            report.reasons[name] = not_read or rows.said
            origin = ""
        if origin.endswith(".registers") and origin in weights and weights[origin].shape != value.shape:
            used.add(origin)
            report.reasons[name] = f"{theirs.registers} registers there, {ours.registers} here"
            origin = ""
        if origin == "patch_embed.proj.weight" and _embeds_anew(theirs, ours):
            used.add(origin)
            report.reasons[name] = "tubelets start from random weights (tubelet_init)"
            origin = ""
        if origin not in weights:
            report.initialised.append(name)
            report.reasons.setdefault(name, _why_new(name))
            continue
        used.add(origin)
        found = rows.reordered(weights[origin]) if name.startswith("head") else weights[origin]
        if found.shape != value.shape or (name.startswith("encoders.0.positions.") and name != origin):
            found = _resized(name, found, theirs, ours, model, position_resize)
            report.resized.append(name)
            report.reasons[name] = f"{_times(theirs.grid)} -> {_times(ours.grid)} tokens, {position_resize}"
        elif origin == name:
            report.copied.append(name)
        else:
            report.inflated.append(name)
        if found.shape != value.shape:
            raise InputError(f"{where}: {name} has shape {tuple(found.shape)}, expected {tuple(value.shape)}")
        state[name] = found
    if rows.note and any(name.startswith("head") for name in weights):
        report.notes.append(rows.note)
    _leave_out(source, model, report, sorted(set(weights) - used), strict, not_read or rows.said)
    report.left_out += [*dropped, *source.unused]
    report.reasons |= source.unused
    model.load_state_dict(model.state_dict() | state)
    return report


def _times(grid: Grid) -> str:
    return "x".join(map(str, grid))


def _checked(source: Source, config: TimeSformerConfig, report: TransferReport, strict: bool) -> dict[str, Tensor]:
    """The source's weights as float32, after a look at whether they are those of its configuration."""
    expected = shapes(config)
    weights, wrong = dict[str, Tensor](), dict[str, str]()
    for name, value in source.tensors.items():
        if name not in expected:
            wrong[name] = "has no place in its own configuration"
        elif tuple(value.shape) != expected[name]:
            wrong[name] = f"has shape {tuple(value.shape)}, expected {expected[name]}"
        elif not value.is_floating_point():
            wrong[name] = f"holds {value.dtype}, expected floating-point numbers"
        else:
            weights[name] = value.float()
    held = {_step(name) for name in weights if ".steps." in name}
    lacking = ("head", *(start for start in HEAD if not any(name.startswith(start) for name in weights)))
    for name in expected:
        whole_step = ".steps." in name and _step(name) not in held and _step(name)[0] in {stack for stack, _ in held}
        if name not in weights and name not in wrong and not name.startswith(lacking) and not whole_step:
            wrong[name] = "is missing"
    if wrong and strict:
        first = [f"{name} {reason}" for name, reason in wrong.items()]
        raise InputError(
            f"{source.where}: {'; '.join(first[:5])}{f'; and {len(first) - 5} more' if len(first) > 5 else ''} "
            f"(read as {source.format}, attention {config.attention}; strict=False goes on without them)"
        )
    report.reasons |= wrong
    return weights


def _step(name: str) -> tuple[str, str]:
    """(encoder, step) of a weight in a block."""
    return name.split(".blocks.")[0], name.split(".steps.")[1].split(".")[0]


def _origin(name: str, model: Model, theirs: TimeSformerConfig, weights: dict[str, Tensor]) -> str:
    """The source's name for one of our weights; empty where none of its weights is meant."""
    if not name.startswith("encoders.0.") or ".steps." not in name:
        return name
    head, tail = name.split(".steps.")
    step, part = tail.split(".", 1)
    number = int(head.rpartition(".")[2])
    source = theirs.scheme.encoders[0].at(number)
    present = [s.name for s in source.steps if f"{head}.steps.{s.name}.proj.weight" in weights]
    if step not in present:
        starts_at_zero = part.startswith("proj.") and model.config.scheme.encoders[0].at(number).step(step).zero_start
        if part.startswith("fc.") or starts_at_zero or not present:
            return ""  # an extra linear belongs to its own step alone
        step = "space" if "space" in present else present[0]
    shared = source.step(step).qkv_from
    return f"{head}.steps.{shared if part.startswith('qkv.') and shared else step}.{part}"


def _head_not_read(theirs: TimeSformerConfig, ours: TimeSformerConfig) -> str:
    """Why the source's head cannot be ours, whatever its classes are; empty where it can."""
    attentive = "attentive" in (theirs.resolved_pool, ours.resolved_pool)
    if theirs.head_width == ours.head_width and (not attentive or theirs.resolved_pool == ours.resolved_pool):
        return ""
    return f"it reads {theirs.resolved_pool} there and {ours.resolved_pool} here (pool)"


def _why_new(name: str) -> str:
    if name.startswith("head"):
        return "the checkpoint has no classifier"
    if name.startswith(HEAD):
        return "the checkpoint pools otherwise"
    if name.endswith(".registers"):
        return "the source has no registers"
    if name.endswith(".scale"):
        return "the source has no layer scale"
    if ".gate." in name:
        return "a gate that the source lacks; open"
    if name.startswith("encoders.1."):
        return "the source has no second encoder"
    if name.endswith(".positions.time"):
        return "the source has no positions in time"
    if ".mixer." in name:
        return "a projection of the mixer's own"
    if ".fc." in name:
        return "an extra linear that the source lacks; zero"
    return "starts at zero" if ".proj." in name else "the source has none"


def _leave_out(source: Source, model: Model, report: TransferReport, names: list[str], strict: bool, head: str) -> None:
    encoder = model.config.scheme.encoders[0]
    for name in names:
        other_step = False
        if ".steps." in name:
            block, step = name.split(".steps.")
            here = encoder.at(int(block.rpartition(".")[2])).steps
            other_step = step.split(".")[0] not in {each.name for each in here}
        if name.startswith("head"):
            reason = head
        elif _block(name) >= model.config.depth:
            reason = f"the new model has {model.config.depth} blocks"
        elif name.startswith(HEAD) or name.startswith("encoders.0.norm."):
            reason = "the new model pools otherwise"
        elif other_step or name.endswith((".fc.weight", ".fc.bias")) or name.startswith("encoders.1."):
            reason = "the new scheme has no such step"
        elif name.startswith("encoders.0.positions.") or name.endswith(".cls_token"):
            reason = "the new model has no such positions or class token"
        elif name.endswith(".registers"):
            reason = "the new model has no registers"
        elif strict:
            raise InputError(f"{source.where}: {name} has no place in the new model")
        else:
            reason = "no place in the new model"
        report.left_out.append(name)
        report.reasons.setdefault(name, reason)


def _block(name: str) -> int:
    """Number of the first encoder's block that a weight belongs to; -1 for another one."""
    start = "encoders.0.blocks."
    return int(name.removeprefix(start).split(".")[0]) if name.startswith(start) else -1


def _resized(
    name: str, value: Tensor, theirs: TimeSformerConfig, ours: TimeSformerConfig, model: Model, rule: Resize
) -> Tensor:
    if name == "patch_embed.proj.weight" and theirs.tubelet_size == 1:
        return _inflate_tubelet(value, ours)
    rows = model.get_submodule(name.rsplit(".", 1)[0]).class_rows if ".positions." in name else 0
    assert isinstance(rows, int)
    had = int(theirs.scheme.encoders[0].class_tokens != "none")
    cls, patches = value[:had], value[had:]
    if name == "encoders.0.positions.space":
        patches = resize_space(patches, theirs.grid[1:], ours.grid[1:], rule).flatten(0, 1)
    elif name == "encoders.0.positions.time":
        return resize_time(value, ours.grid[0], rule)
    elif name == "encoders.1.positions.table":  # the temporal encoder's: one row for each frame
        had = int(theirs.scheme.encoders[1].class_tokens != "none")
        return torch.cat([value[:had], resize_time(value[had:], ours.grid[0], rule)])
    elif name == "encoders.0.positions.table":
        if theirs.resolved_position == "table":
            patches = resize_table(patches, theirs.grid, ours.grid, rule).flatten(0, 2)
        else:
            patches = resize_space(patches, theirs.grid[1:], ours.grid[1:], rule).flatten(0, 1).repeat(ours.grid[0], 1)
    else:
        return value
    if rows > had:
        cls = torch.zeros(1, value.shape[1])
    return torch.cat([cls[:rows], patches])


def _embeds_anew(theirs: TimeSformerConfig, ours: TimeSformerConfig) -> bool:
    """True if the tubelet embedding is to start from random weights rather than from image filters."""
    return theirs.tubelet_size == 1 and ours.tubelet_size > 1 and ours.tubelet_init == "random"


def _inflate_tubelet(weight: Tensor, ours: TimeSformerConfig) -> Tensor:
    """Image filters as tubelets (ViViT, section 3.4): spread evenly over the frames, or in the central frame alone."""
    u, p = ours.tubelet_size, ours.patch_size
    image = weight.view(-1, ours.in_channels, 1, p * p)
    if ours.tubelet_init == "filter_inflation":
        return (image / u).expand(-1, -1, u, -1).flatten(1)
    tubelet = image.new_zeros(image.shape[0], ours.in_channels, u, p * p)
    tubelet[:, :, u // 2] = image[:, :, 0]
    return tubelet.flatten(1)
