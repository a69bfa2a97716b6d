"""Weights of convolutional baselines: image ResNets of torchvision and timm, and how one baseline starts another."""

import re

from torch import Tensor

from timesformer._typing import Float
from timesformer.checkpoints.head_rows import HeadRows
from timesformer.checkpoints.report import TransferReport
from timesformer.checkpoints.source import Format, Raw, Source, UnexplainedTensors
from timesformer.config.cnn import CnnConfig
from timesformer.config.registry import Model
from timesformer.errors import InputError

SHARED_FIELDS = ("width", "blocks", "in_channels")
BLOCK = re.compile(r"layer(\d)\.(\d+)\.(?:(conv|bn)([123])|downsample\.([01]))\.(\w+)")
TOP = {"conv1": "path.stem.conv", "bn1": "path.stem.norm", "fc": "head"}


def transfer_cnn(model: Model, source: Source, rows: HeadRows) -> TransferReport:
    """Start a baseline from another one, in place; see `timesformer.checkpoints.transfer`.

    A kernel of one frame is inflated over the frames of its counterpart (`inflate`).  SlowFast's
    slow pathway starts from a single path; where the lateral connections bring in more channels than the source has,
    those keep what the new model began with, as do the fast pathway and the connections themselves.  The head is kept
    where it has the same classes (`rows`) and width.

    Raises:
        InputError: the source is no baseline, differs in width, blocks or channels, or a weight does not fit.
    """
    theirs, ours = source.config, model.config
    if not isinstance(theirs, CnnConfig):
        raise InputError(f"{source.where}: a {theirs.attention} transformer cannot start the baseline {ours.baseline}")
    for name in SHARED_FIELDS:
        if getattr(theirs, name) != getattr(ours, name):
            raise InputError(f"{source.where}: {name} is {getattr(theirs, name)} there and {getattr(ours, name)} here")
    report, state, used = TransferReport(notes=list(source.notes), licence=source.provenance.get("licence")), {}, set()
    same_head = rows.order is not None and _width(source.tensors) == model.head.in_features
    if "head.weight" in source.tensors:
        other_width = rows.order is not None and not same_head
        note = "head: starts from random weights: another width" if other_width else rows.note
        report.notes += [note] if note else []
    for name, value in model.state_dict().items():
        origin = name if name in source.tensors else re.sub(r"^slow\.", "path.", name)
        found = source.tensors.get(origin)
        is_head = name.startswith("head.")
        if found is None or (is_head and not same_head):
            report.initialised.append(name)
            own = "the source has no such part"
            report.reasons[name] = (rows.said if rows.order is None else "another width") if is_head else own
            continue
        used.add(origin)
        state[name], kind = _fitted(name, rows.reordered(found) if is_head else found, value, source.where)
        getattr(report, kind).append(name)
    report.left_out = sorted(set(source.tensors) - used) + list(source.unused)
    report.reasons |= dict.fromkeys(report.left_out, "the new model has no such part") | source.unused
    model.load_state_dict(model.state_dict() | state)
    return report


def inflate(weight: Float[Tensor, "out c h w"], frames: int) -> Float[Tensor, "out c {frames} h w"]:
    """An image network's kernel repeated in time and divided by the number of frames: on a clip of one image, over and
    over, it gives what it gave on the image (Carreira and Zisserman, arXiv 1705.07750, section 2.4.1).

    Raises InputError for anything but a kernel of four dimensions.
    """
    if weight.dim() != 4 or frames < 1:
        raise InputError(f"inflate: expected a kernel (out, in, h, w) and 1 frame or more, got {tuple(weight.shape)}")
    return (weight / frames).unsqueeze(2).repeat(1, 1, frames, 1, 1)


def _width(tensors: dict[str, Tensor]) -> int | None:
    """Number of channels that the head reads; None without a head."""
    return tensors["head.weight"].shape[1] if "head.weight" in tensors else None


def _fitted(name: str, found: Tensor, value: Tensor, where: str) -> tuple[Tensor, str]:
    """The source's weight in our shape, and what was done to it."""
    if found.shape == value.shape:
        return found.to(value.dtype), "copied"
    if found.dim() == value.dim() == 5 and found.shape[2] in (1, value.shape[2]) and found.shape[1] <= value.shape[1]:
        kernel = inflate(found[:, :, 0], value.shape[2]) if found.shape[2] == 1 else found
        whole = value.clone()
        if whole[:, : kernel.shape[1]].shape == kernel.shape:
            whole[:, : kernel.shape[1]] = kernel
            return whole, "inflated"
    raise InputError(f"{where}: {name} has shape {tuple(found.shape)}, expected {tuple(value.shape)}")


def _matches(raw: Raw) -> bool:
    return "layer1.0.conv3.weight" in raw.tensors and "conv1.weight" in raw.tensors


def _read(raw: Raw) -> Source:
    """An image ResNet with bottlenecks as C2D of one frame."""
    tensors, unknown = {}, []
    for name, value in raw.tensors.items():
        ours = _renamed(name)
        if ours is None:
            unknown.append(name)
        else:
            tensors[ours] = value.unsqueeze(2) if value.dim() == 4 else value
    if unknown:
        raise UnexplainedTensors(raw.path, FORMAT.name, unknown)
    found = [BLOCK.fullmatch(name) for name in raw.tensors]
    blocks = tuple(1 + max((int(m[2]) for m in found if m and m[1] == str(stage)), default=-1) for stage in range(1, 5))
    stem = raw.tensors["conv1.weight"]
    config = CnnConfig(
        baseline="c2d",
        num_frames=1,
        in_channels=stem.shape[1],
        num_classes=raw.tensors["fc.weight"].shape[0] if "fc.weight" in raw.tensors else 1000,
        width=stem.shape[0],
        blocks=blocks,
    )
    return Source(FORMAT.name, config, tensors)


def _renamed(name: str) -> str | None:
    """Our name for a stored one; None for what a ResNet with bottlenecks does not have."""
    block = BLOCK.fullmatch(name)
    if block is None:
        module, _, kind = name.rpartition(".")
        return f"{TOP[module]}.{kind}" if module in TOP else None
    stage, number, part, place, shortcut, kind = block.groups()
    if part is None:
        inside = f"shortcut.{('conv', 'norm')[int(shortcut)]}"
    else:
        inside = f"{'abc'[int(place) - 1]}.{'conv' if part == 'conv' else 'norm'}"
    return f"path.stages.{int(stage) - 1}.blocks.{number}.{inside}.{kind}"


FORMAT = Format("image ResNet (torchvision, timm)", _matches, _read)
