"""The one backbone that every attention scheme shares.

Letters: b clips, t frames, h w patch rows and columns, n = h * w, d channels, k heads, e width of a head.
Patches (b, t, h, w, d) and class token (b, d) stay apart from the first layer to the last: no concatenation.
"""

import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from timesformer._typing import Float
from timesformer.attention.backends import choose
from timesformer.attention.scheme import Encoder
from timesformer.config.counting import encoder_runs, macs_per_view
from timesformer.config.registry import Model, register
from timesformer.config.transformer import TimeSformerConfig
from timesformer.errors import InputError
from timesformer.models.blocks import Attention, Block, Mlp
from timesformer.models.embedding import PatchEmbed, Positions
from timesformer.models.packed import PackedLinear


class Tokens(NamedTuple):
    """The tokens after the last norm: patches (b, t, h, w, d), class token (b, d) or None."""

    patches: Tensor
    cls: Tensor | None


class EncoderStack(nn.Module):
    """Class token, positions, blocks and the last norm of one encoder."""

    def __init__(self, encoder: Encoder, config: TimeSformerConfig, depth: int, positions: Positions) -> None:
        super().__init__()
        self.encoder = encoder
        self.gradient_checkpointing = False
        self.cls_token = None
        if encoder.class_tokens != "none":
            self.cls_token = nn.Parameter(torch.empty(config.embed_dim))
            nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.positions = positions
        self.drop = nn.Dropout(config.drop_rate)
        rates = [config.drop_path_rate * i / max(1, depth - 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(encoder, config, rate) for rate in rates)
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)

    def forward(
        self, patches: Tensor, average_frames: bool, class_only: bool = False
    ) -> tuple[Tensor | None, Tensor | None]:
        """Tokens after the norm; frame streams come back as patches (b, t, h, w, d) and class tokens (b, t, d),
        or, with `average_frames`, averaged over the frames before the norm: (b, 1, h, w, d) and (b, d).
        `class_only` leaves out the patches, and what they alone need in the last block."""
        b, frames = patches.shape[:2]
        streams = self.encoder.class_tokens == "frame"
        if streams:
            patches = patches.flatten(0, 1).unsqueeze(1)
        cls = None if self.cls_token is None else self.cls_token.expand(patches.shape[0], -1)
        patches, cls = self.positions(patches, cls)
        patches, cls = self.drop(patches), None if cls is None else self.drop(cls)
        blocks = list(self.blocks)
        final = blocks.pop() if class_only else None
        for block in blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                patches, cls = torch.utils.checkpoint.checkpoint(block, patches, cls, use_reentrant=False)
            else:
                patches, cls = block(patches, cls)
        if final is not None:
            assert isinstance(final, Block)
            assert cls is not None
            cls = final.class_only(patches, cls)
            return None, self.norm(cls.unflatten(0, (b, frames)).mean(1) if streams else cls)
        if streams:
            assert cls is not None
            patches, cls = patches.squeeze(1).unflatten(0, (b, frames)), cls.unflatten(0, (b, frames))
            if average_frames:
                patches, cls = patches.mean(1, keepdim=True), cls.mean(1)
        return self.norm(patches), None if cls is None else self.norm(cls)

    def pool(self, patches: Tensor, cls: Tensor | None, per_frame: bool) -> Tensor:
        """The pooled vectors: (b, d), or (b, t, d) with `per_frame`."""
        if self.encoder.pool == "class":
            assert cls is not None
            return cls
        return patches.mean((2, 3)) if per_frame else patches.mean((1, 2, 3))


class TimeSformer(Model):
    """A video transformer with the attention scheme that its configuration names.

    Takes clips (b, frames, channels, height, width) of floats, normalised as the checkpoint's preprocessing says,
    of any number of frames and any size in whole patches; returns logits (b, num_classes),
    with several heads (b, sum of their classes).

    Initialisation as released: truncated normal of 0.02, zero biases, zero time positions, zero extra linears.

    Source: TimeSformer, arXiv 2102.05095, sections 3 and 4.  The released code adds the extra linear of the time
    step, leaves the class token out of time attention, and averages its copies over the frames in space attention;
    these are the defaults here.

    Raises:
        InputError: a configuration that cannot be built (`BackendError` for a backend that cannot serve it).
    """

    def __init__(self, config: TimeSformerConfig) -> None:
        super().__init__()
        self.config = config
        self.scheme = config.scheme
        for step in (step for encoder in self.scheme.encoders for step in encoder.steps):
            for over in step.over:
                choose(config.backend, over, None)
        self.patch_embed = PatchEmbed(config.in_channels, config.tubelet_size, config.patch_size, config.embed_dim)
        position = config.resolved_position
        stacks = []
        for number, (encoder, depth, _, grid) in enumerate(encoder_runs(config)):
            kind = position if number == 0 or position == "none" else "table"
            with_class = encoder.class_tokens != "none"
            positions = Positions(
                kind, grid, config.embed_dim, with_class, std=config.position_std, time_std=config.time_std
            )
            stacks.append(EncoderStack(encoder, config, depth, positions))
        self.encoders = nn.ModuleList(stacks)
        self.head = nn.Linear(config.embed_dim, sum(config.heads))
        self.fused = False
        self.extras = {}
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Attention) and module.fc is not None:
                nn.init.zeros_(module.fc.weight)
            if isinstance(module, Attention) and module.step.zero_start:
                nn.init.zeros_(module.proj.weight)

    @property
    def gradient_checkpointing(self) -> bool:
        """Recompute each block in the backward pass instead of keeping its activations."""
        return all(stack.gradient_checkpointing for stack in self.stacks())

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, value: bool) -> None:
        for stack in self.stacks():
            stack.gradient_checkpointing = value

    def stacks(self) -> list[EncoderStack]:
        """The encoders in order."""
        return [stack for stack in self.encoders if isinstance(stack, EncoderStack)]

    def forward_features(self, clip: Float[Tensor, "b frames c height width"]) -> Tokens:
        """The last encoder's tokens after its norm (the space scheme averages the frames before it)."""
        patches, cls = self._encode(clip, class_only=False)
        assert patches is not None
        return Tokens(patches, cls)

    def _encode(self, clip: Tensor, class_only: bool) -> tuple[Tensor | None, Tensor | None]:
        patches = self.patch_embed(clip)
        *before, final = self.stacks()
        for stack in before:
            patches, cls = stack(patches, average_frames=False)
            patches = stack.pool(patches, cls, per_frame=True)[:, :, None, None]
        out: tuple[Tensor | None, Tensor | None] = final(patches, average_frames=True, class_only=class_only)
        return out

    def pool(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """The vector that the head reads: the class token, or the mean of the patches."""
        return self.stacks()[-1].pool(tokens.patches, tokens.cls, per_frame=False)

    def features(self, clip: Float[Tensor, "b frames c height width"]) -> Float[Tensor, "b d"]:
        """The pooled vector of each clip."""
        if not self.fused or self.stacks()[-1].encoder.pool == "mean":
            return self.pool(self.forward_features(clip))
        _, cls = self._encode(clip, class_only=True)
        assert cls is not None
        return cls

    def forward(self, clip: Float[Tensor, "b frames c height width"]) -> Float[Tensor, "b classes"]:
        logits: Tensor = self.head(self.features(clip))
        return logits

    def fuse_for_inference(self) -> "TimeSformer":
        """A copy that gives the same outputs within rounding with fewer operations; see `fuse_for_inference`."""
        return fuse_for_inference(self)

    def train(self, mode: bool = True) -> "TimeSformer":
        """As any module; raises InputError where a model fused for inference is to be trained."""
        if mode and self.fused:
            raise InputError("this model was fused for inference: train the one that it was made from")
        return super().train(mode)

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> "TimeSformer":
        """The model in a folder, file or repository on the hub, of any known format; `options` as those of
        `timesformer.checkpoints.load_model`, among them all fields of the configuration."""
        from timesformer.checkpoints import load_model

        model: TimeSformer = load_model(source, **options).model
        return model

    def save_pretrained(self, folder: str | Path, **extras: Any) -> Path:
        """Writes the model in our format, with `preprocessing`, `labels` and `provenance`; what is left out is what
        the model was loaded with, or the default of `timesformer.checkpoints.save_model`."""
        from timesformer.checkpoints import save_model

        return save_model(folder, self, **{**self.extras, **extras})

    def push_to_hub(self, name: str, *, private: bool = False, message: str = "Upload model", **extras: Any) -> str:
        """Uploads the folder that `save_pretrained` writes to the hub's repository `name`; returns its address.

        Raises:
            InputError: not a repository's name, or the hub refuses or cannot be reached.
        """
        from timesformer.checkpoints.hub import upload

        with TemporaryDirectory() as folder:
            return upload(self.save_pretrained(folder, **extras), name, private=private, message=message)


def fuse_for_inference(model: TimeSformer) -> TimeSformer:
    """A fused copy of `model` in evaluation mode, with the same outputs within rounding; the model is unchanged.

    - An extra linear is folded into the projection before it: drop path, which stands between them, is off.
    - In the last block only the class token is computed, where the head reads nothing else.
    - On a CPU in fp32 the blocks' linear layers are packed for oneDNN, the MLP's activation with them.

    The copy has no gradients, cannot be trained or saved, and stays on the device and in the precision that it was
    made in.  `forward_features` still gives every token.

    Raises:
        InputError: the model was fused before.
    """
    if model.fused:
        raise InputError("this model was fused for inference before")
    fused = copy.deepcopy(model).eval().requires_grad_(False)
    fused.fused = True
    for module in list(fused.modules()):
        if isinstance(module, Attention) and module.fc is not None:
            module.proj = _folded(module.proj, module.fc)
            module.fc = None
    weight = fused.head.weight
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        for module in list(fused.modules()):
            if isinstance(module, Attention):
                if module.qkv is not None:
                    module.register_module("qkv", PackedLinear(module.qkv))
                module.register_module("proj", PackedLinear(module.proj))
            elif isinstance(module, Mlp):
                module.register_module("fc1", PackedLinear(module.fc1, _activation(module.act)))
                module.register_module("act", nn.Identity())
                module.register_module("fc2", PackedLinear(module.fc2))
    return fused


def _folded(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """One linear layer for two in a row; multiplied in float64, so that only the last rounding is lost."""
    out = copy.deepcopy(first)
    weight, bias = second.weight.double() @ first.weight.double(), second.weight.double() @ first.bias.double()
    out.weight.copy_(weight)
    out.bias.copy_(bias + second.bias.double())
    return out


def _activation(module: nn.Module) -> str:
    if isinstance(module, nn.GELU):
        return "gelu" if module.approximate == "none" else "gelu_tanh"
    return "relu"


register("attention", TimeSformerConfig, TimeSformer, lambda config, kind: macs_per_view(config, kind=kind))
