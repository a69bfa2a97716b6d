"""Recording of the inputs and outputs of attention steps during a forward pass, on any backend."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from timesformer.attention import Grid, Step
from timesformer.attention.operator import StepOperator, operator
from timesformer.attention.scheme import Encoder
from timesformer.errors import InputError
from timesformer.models.blocks import Attention, Block
from timesformer.models.timesformer import EncoderStack, TimeSformer


@dataclass(frozen=True)
class Site:
    """One step of one block.

    layer: number of the block, counted from 0 over all encoders; stage: number of the step's stage in the block
    """

    layer: int
    encoder: int
    stage: int
    step: Step
    of: Encoder
    module: Attention = field(repr=False, compare=False)

    @property
    def streams(self) -> bool:
        """True if every frame is a stream of its own, with its own class token."""
        return self.of.class_tokens == "frame"


@dataclass(frozen=True)
class Call:
    """Recorded call of a step.

    patches, cls: inputs, (b, t, h, w, d) and (b, d), with registers (b, s, d), or None
    qkv: qkv projection with its recorded inputs or outputs
    mixed: outputs of the attention before gate and projection, for the patches and, if it takes part, the class token
    added: contributions of the step to patches and class token
    """

    site: Site
    patches: Tensor
    cls: Tensor | None
    qkv: "Recorder"
    mixed: tuple[Tensor, ...]
    added: tuple[Tensor | None, Tensor | None]

    @property
    def grid(self) -> Grid:
        return self.patches.shape[1], self.patches.shape[2], self.patches.shape[3]

    def operator(self) -> StepOperator:
        """Matrix of the step, from the q and k that the model computed."""
        return self.qkv.operator(self.site, self.specials)

    @property
    def specials(self) -> int:
        """Number of class tokens and registers of a stream."""
        return 0 if self.cls is None else self.cls.shape[1] if self.cls.dim() == 3 else 1


class Recorder(nn.Module):
    """qkv projection that records its calls: one for the patches and, if it takes part, one for the class token.

    With `outputs=False` it keeps only the inputs (a third of the memory) and computes the outputs again on demand.
    """

    def __init__(self, projection: nn.Module, outputs: bool = True) -> None:
        super().__init__()
        self.projection, self.keep = projection, outputs
        self.calls: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.projection(x)
        self.calls.append(out if self.keep else x)
        return out

    def operator(self, site: Site, specials: int) -> StepOperator:
        """Return the matrix of the step that called the projection, for so many class tokens and registers."""
        found = [call if self.keep else self.projection(call) for call in self.calls]
        patches, cls = site.module.prepared(found[0], found[1] if len(found) > 1 else None)
        return operator(site.step, patches, cls, specials=specials, modules=site.module.mixer)


def sites(model: TimeSformer) -> list[Site]:
    """Return all steps of all blocks, in the order in which they run."""
    found, layer = [], 0
    for number, stack in enumerate(model.encoders):
        assert isinstance(stack, EncoderStack)
        for block in stack.blocks:
            assert isinstance(block, Block)
            for stage, names in enumerate(block.stages):
                for name in names:
                    module = block.steps[name]
                    assert isinstance(module, Attention)
                    found.append(Site(layer, number, stage, module.step, stack.encoder, module))
            layer += 1
    return found


@contextmanager
def watching(wanted: Sequence[Site], visit: Callable[[Call], None], *, outputs: bool = True) -> Iterator[None]:
    """Call `visit` after each of the steps `wanted` inside this context; `outputs`: see `Recorder`."""
    handles = []

    def hook(site: Site) -> None:
        mixed: list[Tensor] = []

        def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            mixed.append(args[0])

        def before(module: nn.Module, args: tuple[object, ...]) -> tuple[object, ...]:
            patches, cls, qkv, *rest = args
            assert isinstance(qkv, nn.Module)
            mixed.clear()
            return patches, cls, Recorder(qkv, outputs), *rest

        def after(module: nn.Module, args: tuple[object, ...], added: tuple[Tensor | None, Tensor | None]) -> None:
            patches, cls, qkv = args[:3]
            assert isinstance(patches, Tensor)
            assert cls is None or isinstance(cls, Tensor)
            assert isinstance(qkv, Recorder)
            call = Call(site, patches, cls, qkv, tuple(mixed), added)
            mixed.clear()  # frees the memory as early as possible
            visit(call)

        handles.append(site.module.mixed.register_forward_pre_hook(keep))
        handles.append(site.module.register_forward_pre_hook(before))
        handles.append(site.module.register_forward_hook(after))

    try:
        for site in wanted:
            hook(site)
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluating(model: TimeSformer) -> Iterator[None]:
    """Put the model in evaluation mode inside this context, and restore its mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()


def as_input(model: TimeSformer, clip: Tensor) -> Tensor:
    """Return the clips on the model's device and in its precision.

    Raises:
        InputError: the shape is not (clips, frames, channels, height, width), or not a multiple of the patches.
    """
    if clip.dim() != 5 or len(clip) == 0:
        raise InputError(f"clip: expected (clips, frames, channels, height, width), got {tuple(clip.shape)}")
    grid_of(model, clip)
    weight = model.head.weight
    return clip.detach().to(weight.device, weight.dtype)


def grid_of(model: TimeSformer, clip: Tensor) -> Grid:
    """Return the numbers of tokens of a clip in time, rows and columns, in the first encoder.

    Raises:
        InputError: the clip cannot be cut into whole patches.
    """
    u, p = model.patch_embed.tubelet, model.patch_embed.patch
    for name, size, unit in (("frames", clip.shape[1], u), ("height", clip.shape[3], p), ("width", clip.shape[4], p)):
        if size == 0 or size % unit:
            raise InputError(f"clip: {name}: expected a positive multiple of {unit}, got {size}")
    return clip.shape[1] // u, clip.shape[3] // p, clip.shape[4] // p


def run(model: TimeSformer, clip: Tensor) -> None:
    """Run one forward pass without gradients in which every step runs, even in a model fused for inference."""
    with evaluating(model), torch.no_grad():
        model.forward_features(clip)
