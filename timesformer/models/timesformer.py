"""Backbone shared by all attention schemes.

Letters: b clips, t frames, h w patch rows and columns, n = h * w, d channels, k heads, e width of a head.
Patches (b, t, h, w, d) and class token (b, d) are separate tensors throughout; they are never concatenated.  With
registers, the class token and they are one tensor (b, s, d) inside an encoder.
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
from timesformer.config.registry import register
from timesformer.config.transformer import TimeSformerConfig
from timesformer.errors import InputError
from timesformer.models.blocks import Attention, Block, Mlp, backend_of
from timesformer.models.embedding import PatchEmbed, Positions
from timesformer.models.layers import SwiGlu, make_norm
from timesformer.models.on_videos import OnVideos
from timesformer.models.packed import PackedLinear, packable
from timesformer.models.pooling import AttentivePooler


class Tokens(NamedTuple):
    """Tokens after the last norm: patches (b, t, h, w, d), class token (b, d) or None, registers (b, n, d) or None."""

    patches: Tensor
    cls: Tensor | None
    registers: Tensor | None = None


class EncoderStack(nn.Module):
    """Class token, registers, positions, blocks and the last norm of one encoder.

    `normed`: whether the norm is here; with `fc_norm` it follows the pooling.
    """

    def __init__(
        self, encoder: Encoder, config: TimeSformerConfig, depth: int, positions: Positions, normed: bool = True
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.gradient_checkpointing = False
        self.cls_token = None
        if encoder.class_tokens != "none":
            self.cls_token = nn.Parameter(torch.empty(config.embed_dim))
            nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.registers = None
        if config.specials(encoder) > 1:
            self.registers = nn.Parameter(torch.empty(config.registers, config.embed_dim))
            nn.init.trunc_normal_(self.registers, std=0.02)
        self.positions = positions
        self.drop = nn.Dropout(config.drop_rate)
        rates = [config.drop_path_rate * i / max(1, depth - 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(encoder.at(number), config, rate) for number, rate in enumerate(rates))
        self.norm = make_norm(config, config.embed_dim) if normed else nn.Identity()

    def forward(
        self, patches: Tensor, average_frames: bool, class_only: bool = False
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the tokens after the norm: patches (b, t, h, w, d) and class token (b, d) or None.

        With registers, the second is (b, s, d), the class token first.

        Where every frame is a stream of its own, the class tokens are (b, t, d); with `average_frames` the tokens are
        averaged over the frames before the norm, to (b, 1, h, w, d) and (b, d).  `class_only` leaves out the patches,
        and what only they need in the last block.
        """
        b, frames = patches.shape[:2]
        streams = self.encoder.class_tokens == "frame"
        if streams:
            patches = patches.flatten(0, 1).unsqueeze(1)
        cls = None if self.cls_token is None else self.cls_token.expand(patches.shape[0], -1)
        if cls is not None and self.registers is not None:
            cls = torch.cat([cls[:, None], self.registers.expand(len(cls), -1, -1)], 1)
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

    def split(self, cls: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return class token and registers, (…, d) and (…, n, d), None where there are none."""
        return (cls, None) if self.registers is None else (cls[..., 0, :], cls[..., 1:, :])

    def pool(self, patches: Tensor, cls: Tensor | None) -> Tensor:
        """Return a pooled vector for each frame, (b, t, d), which the next encoder reads."""
        if self.encoder.pool == "class":
            assert cls is not None
            return self.split(cls)[0]
        return patches.mean((2, 3))


class TimeSformer(OnVideos):
    """Video transformer with the attention scheme that its configuration names.

    The input is a float clip (b, frames, channels, height, width), normalised as the checkpoint's preprocessing says.
    It may have any number of frames and any size that whole patches cover.  The output is logits (b, num_classes); with
    several heads, (b, sum of their classes).

    Initialisation follows the released code, unless the configuration says otherwise: weights from a truncated normal
    with standard deviation 0.02, and zero biases, temporal positions and extra linears.

    Source: TimeSformer, arXiv 2102.05095, sections 3 and 4.  The released code adds the extra linear of the time
    step, leaves the class token out of time attention, and averages its copies over the frames in space attention;
    these are the defaults here.

    Raises:
        BackendError: the backend of the configuration cannot serve the scheme (an `InputError`).
    """

    def __init__(self, config: TimeSformerConfig) -> None:
        super().__init__()
        self.config = config
        self.scheme = config.scheme
        for step in (step for encoder in self.scheme.encoders for step in encoder.steps):
            for over in step.over:
                choose(backend_of(config), over, None)
        self.patch_embed = PatchEmbed(config.in_channels, config.tubelet_size, config.patch_size, config.embed_dim)
        position = config.resolved_position
        stacks = []
        for number, (encoder, depth, _, grid) in enumerate(encoder_runs(config)):
            kind = position if number == 0 or position in ("none", "sinusoid", "rope") else "table"
            with_class = encoder.class_tokens != "none"
            positions = Positions(
                kind, grid, config.embed_dim, with_class, std=config.position_std, time_std=config.time_std
            )
            normed = number + 1 < len(self.scheme.encoders) or not config.fc_norm
            stacks.append(EncoderStack(encoder, config, depth, positions, normed))
        self.encoders = nn.ModuleList(stacks)
        self.pooler = AttentivePooler(config) if config.resolved_pool == "attentive" else None
        self.fc_norm = make_norm(config, config.embed_dim, config.fc_norm_eps) if config.fc_norm else None
        self.head = nn.Linear(config.head_width, sum(config.heads))
        self.pooled = config.resolved_pool
        self.fused = False
        self.extras = {}
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02 if module is self.head else self.config.init_std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Attention) and module.fc is not None:
                nn.init.zeros_(module.fc.weight)
            if isinstance(module, Attention) and module.gate is not None:
                nn.init.zeros_(module.gate.weight)
            if isinstance(module, Attention) and module.step.zero_start:
                nn.init.zeros_(module.proj.weight)
            if isinstance(module, Attention) and module.qkv is not None and self.config.qk_init == "equal":
                query, key, _ = module.qkv.weight.data.chunk(3)
                query.copy_(key)

    @property
    def gradient_checkpointing(self) -> bool:
        """Recompute each block in the backward pass instead of keeping its activations."""
        return all(stack.gradient_checkpointing for stack in self.stacks())

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, value: bool) -> None:
        for stack in self.stacks():
            stack.gradient_checkpointing = value

    def stacks(self) -> list[EncoderStack]:
        """Encoders of the model, in order."""
        return [stack for stack in self.encoders if isinstance(stack, EncoderStack)]

    def forward_features(self, clip: Float[Tensor, "b frames c height width"]) -> Tokens:
        """Return the last encoder's tokens after its norm; the space scheme averages the frames before the norm."""
        patches, cls = self._encode(clip, class_only=False)
        assert patches is not None
        return Tokens(patches, *((None, None) if cls is None else self.stacks()[-1].split(cls)))

    def _encode(self, clip: Tensor, class_only: bool) -> tuple[Tensor | None, Tensor | None]:
        patches = self.patch_embed(clip)
        *before, final = self.stacks()
        for stack in before:
            patches, cls = stack(patches, average_frames=False)
            patches = stack.pool(patches, cls)[:, :, None, None]
        out: tuple[Tensor | None, Tensor | None] = final(patches, average_frames=True, class_only=class_only)
        return out

    def pool(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Return the vector that the head reads; see `pool` and `fc_norm` of the configuration."""
        if self.pooler is not None:
            pooled: Tensor = self.pooler(tokens.patches)
            return pooled
        if self.pooled == "class":
            assert tokens.cls is not None
            return tokens.cls
        mean = tokens.patches.mean((1, 2, 3))
        if self.pooled == "mean":
            return mean if self.fc_norm is None else self.fc_norm(mean)
        assert tokens.cls is not None
        return torch.cat([tokens.cls, mean], -1)

    def features(self, clip: Float[Tensor, "b frames c height width"]) -> Float[Tensor, "b d"]:
        """Return the pooled vector of each clip, which the head reads."""
        if not self.fused or self.pooled != "class":
            return self.pool(self.forward_features(clip))
        _, cls = self._encode(clip, class_only=True)
        assert cls is not None
        return self.stacks()[-1].split(cls)[0]

    def forward(self, clip: Float[Tensor, "b frames c height width"]) -> Float[Tensor, "b classes"]:
        logits: Tensor = self.head(self.features(clip))
        return logits

    def fuse_for_inference(self) -> "TimeSformer":
        """Return a copy with the same outputs up to rounding and fewer operations; see `fuse_for_inference`."""
        return fuse_for_inference(self)

    def train(self, mode: bool = True) -> "TimeSformer":
        """Switch between training and evaluation mode.

        Raises:
            InputError: training mode for a model that was fused for inference.
        """
        if mode and self.fused:
            raise InputError("model: fused for inference, it cannot be trained; train the model it was made from")
        return super().train(mode)

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> "TimeSformer":
        """Load the model in a folder, a file or a repository on the hub, in any supported format.

        `options` are those of `timesformer.checkpoints.load_model`, including all fields of the configuration.
        """
        from timesformer.checkpoints import load_model

        model: TimeSformer = load_model(source, **options).model
        return model

    def save_pretrained(self, folder: str | Path, **extras: Any) -> Path:
        """Write the model in our format, with `preprocessing`, `labels` and `provenance`, and return the folder.

        An extra that is not given is the one that the model was loaded with; one that the model does not know either is
        left out with a warning (see `timesformer.checkpoints.save_model`).
        """
        from timesformer.checkpoints import save_model

        return save_model(folder, self, **{**self.extras, **extras})

    def push_to_hub(self, name: str, *, private: bool = False, message: str = "Upload model", **extras: Any) -> str:
        """Upload the folder that `save_pretrained` writes to the hub's repository `name`, and return its address.

        Raises:
            InputError: `name` is not the name of a repository, or the hub refuses the upload or cannot be reached.
        """
        from timesformer.checkpoints.hub import upload

        with TemporaryDirectory() as folder:
            return upload(self.save_pretrained(folder, **extras), name, private=private, message=message)


def fuse_for_inference(model: TimeSformer, dtype: torch.dtype | None = None) -> TimeSformer:
    """Return a fused copy of `model` in evaluation mode, with the same outputs up to rounding; `model` is unchanged.

    - An extra linear is folded into the projection before it, since drop path between them is off; so is a layer scale
      into the linear before it.
    - Where the head reads only the class token, the last block computes only the class token.
    - On a CPU in fp32 and bf16 the blocks' linear layers are packed for oneDNN, together with the MLP's activation.

    `dtype`: precision of the blocks' linear layers, the rest staying in the model's own, for use under autocast.

    The copy has no gradients and cannot be trained or saved.  `forward_features` still returns every token.

    Raises:
        InputError: the model is already fused.
    """
    if model.fused:
        raise InputError("model: already fused for inference")
    fused = copy.deepcopy(model).eval().requires_grad_(False)
    fused.fused = True
    for module in list(fused.modules()):
        if isinstance(module, Attention) and module.fc is not None:
            module.proj = _folded(module.proj, module.fc)
            module.fc = None
        if isinstance(module, Attention | Mlp) and module.scale is not None:
            _scale_rows(module.proj if isinstance(module, Attention) else module.fc2, module.scale)
            module.scale = None
    weight = fused.head.weight
    if dtype is not None or packable(weight.device, weight.dtype):
        for module in list(fused.modules()):
            if isinstance(module, Attention):
                if module.qkv is not None:
                    module.register_module("qkv", PackedLinear(module.qkv, dtype=dtype))
                module.register_module("proj", PackedLinear(module.proj, dtype=dtype))
            elif isinstance(module, Mlp):
                activation = _activation(module.act)
                module.register_module("fc1", PackedLinear(module.fc1, activation, dtype))
                if activation != "none":
                    module.register_module("act", nn.Identity())
                module.register_module("fc2", PackedLinear(module.fc2, dtype=dtype))
    return fused


def _folded(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """Merge two linear layers in sequence into one; the product is in float64, so that only the result is rounded."""
    out = copy.deepcopy(first)
    weight, bias = second.weight.double() @ first.weight.double(), second.weight.double() @ first.bias.double()
    out.weight.copy_(weight)
    out.bias.copy_(bias + second.bias.double())
    return out


def _scale_rows(linear: nn.Linear, scale: Tensor) -> None:
    """Multiply the outputs of a linear layer, in place."""
    linear.weight.copy_(linear.weight.double() * scale.double()[:, None])
    linear.bias.copy_(linear.bias.double() * scale.double())


def _activation(module: nn.Module) -> str:
    """Return the activation that a packed layer can compute itself."""
    if isinstance(module, SwiGlu):
        return "none"
    if isinstance(module, nn.GELU):
        return "gelu" if module.approximate == "none" else "gelu_tanh"
    return "relu"


register("attention", TimeSformerConfig, TimeSformer, lambda config, kind: macs_per_view(config, kind=kind))
