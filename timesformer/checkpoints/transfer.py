"""Starting a model from another one: image model -> video model -> next dataset."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from timesformer.backbone import TimeSformer
from timesformer.checkpoints.files import read_source
from timesformer.config import TimeSformerConfig
from timesformer.embedding import resize_space, resize_table, resize_time
from timesformer.errors import InputError


@dataclass
class TransferReport:
    """What became of every weight: names in the target, except `left_out`, which are names in the source.

    `copied`: same name and shape.  `inflated`: an attention step that the source lacks, started from the source's
    step.  `resized`: position embeddings and tubelets of another size.  `initialised`: kept as the new model made
    them.
    """

    copied: list[str] = field(default_factory=list)
    inflated: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    initialised: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = ", ".join(f"{len(names)} {kind.replace('_', ' ')}" for kind, names in vars(self).items())
        rest = "".join(f"\n  {kind}: {', '.join(vars(self)[kind])}" for kind in ("resized", "initialised", "left_out"))
        return f"weights: {counts}{rest}"


def transfer(model: TimeSformer, source: str | Path) -> TransferReport:
    """Starts `model` from the model in the folder `source`, in place.

    Every attention step of a block starts from the source's step of the same name, or else from the source's first
    step (appendix A of the paper: temporal and spatial attention start from the same image weights); extra linears
    that the source lacks stay zero; the head is kept only where the number of classes agrees; positions are resized
    (bicubic in space, linear in time; a full table starts from spatial positions repeated in time), and time positions
    that the source lacks stay zero.

    Raises:
        InputError: width, depth, heads or patch size differ, or a weight of the source has no explained use.
    """
    theirs, weights = read_source(source)
    ours = model.config
    for name in ("embed_dim", "depth", "num_heads", "patch_size", "in_channels", "mlp_ratio"):
        if getattr(theirs, name) != getattr(ours, name):
            raise InputError(
                f"init_from {source}: {name} is {getattr(theirs, name)} there and {getattr(ours, name)} here"
            )
    report, used, state = TransferReport(), set(), {}
    for name, value in model.state_dict().items():
        origin = _origin(name, theirs)
        if name == "encoders.0.positions.table" and origin not in weights:
            origin = "encoders.0.positions.space"  # the image model's positions, repeated in time (ViViT, section 3.4)
        if origin in weights and name.startswith("head.") and weights[origin].shape != value.shape:
            origin = ""  # another number of classes
        if origin not in weights:
            report.initialised.append(name)
            continue
        used.add(origin)
        found = weights[origin]
        if found.shape != value.shape or (name.startswith("encoders.0.positions.") and name != origin):
            found = _resized(name, found, theirs, ours, model)
            report.resized.append(name)
        elif origin == name:
            report.copied.append(name)
        else:
            report.inflated.append(name)
        if found.shape != value.shape:
            raise InputError(
                f"init_from {source}: {name} has shape {tuple(found.shape)}, expected {tuple(value.shape)}"
            )
        state[name] = found
    report.left_out = sorted(set(weights) - used)
    allowed = ("head.", "encoders.1.", "encoders.0.positions.")
    steps = {step.name for step in model.scheme.encoders[0].steps}
    for name in report.left_out:
        other_step = ".steps." in name and name.split(".steps.")[1].split(".")[0] not in steps
        if not (name.startswith(allowed) or other_step or name.endswith((".cls_token", ".fc.weight", ".fc.bias"))):
            raise InputError(f"init_from {source}: {name} has no place in the new model")
    model.load_state_dict(model.state_dict() | state)
    return report


def _origin(name: str, theirs: TimeSformerConfig) -> str:
    """The source's name for one of our weights."""
    if not name.startswith("encoders.0.") or ".steps." not in name:
        return name
    head, tail = name.split(".steps.")
    step, part = tail.split(".", 1)
    source = theirs.scheme.encoders[0]
    known = {s.name for s in source.steps}
    if step not in known:
        if part.startswith("fc."):
            return ""  # an extra linear belongs to its own step alone
        step = source.steps[0].name
    shared = source.step(step).qkv_from
    return f"{head}.steps.{shared if part.startswith('qkv.') and shared else step}.{part}"


def _resized(
    name: str, value: Tensor, theirs: TimeSformerConfig, ours: TimeSformerConfig, model: TimeSformer
) -> Tensor:
    if name == "patch_embed.proj.weight" and theirs.tubelet_size == 1:
        return _inflate_tubelet(value, ours)
    rows = model.get_submodule(name.rsplit(".", 1)[0]).class_rows if ".positions." in name else 0
    assert isinstance(rows, int)
    had = int(theirs.scheme.encoders[0].class_tokens != "none")
    cls, patches = value[:had], value[had:]
    if name == "encoders.0.positions.space":
        patches = resize_space(patches, theirs.grid[1:], ours.grid[1:]).flatten(0, 1)
    elif name == "encoders.0.positions.time":
        return resize_time(value, ours.grid[0])
    elif name == "encoders.0.positions.table":
        if theirs.resolved_position == "table":
            patches = resize_table(patches, theirs.grid, ours.grid).flatten(0, 2)
        else:
            patches = resize_space(patches, theirs.grid[1:], ours.grid[1:]).flatten(0, 1).repeat(ours.grid[0], 1)
    else:
        return value
    if rows > had:
        cls = torch.zeros(1, value.shape[1])
    return torch.cat([cls[:rows], patches])


def _inflate_tubelet(weight: Tensor, ours: TimeSformerConfig) -> Tensor:
    """Image filters as tubelets (ViViT, section 3.4): spread evenly over the frames, or in the central frame alone."""
    u, p = ours.tubelet_size, ours.patch_size
    image = weight.view(-1, ours.in_channels, 1, p * p)
    if ours.tubelet_init == "filter_inflation":
        return (image / u).expand(-1, -1, u, -1).flatten(1)
    tubelet = image.new_zeros(image.shape[0], ours.in_channels, u, p * p)
    tubelet[:, :, u // 2] = image[:, :, 0]
    return tubelet.flatten(1)
