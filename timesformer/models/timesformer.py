"""Backbone shared by all attention schemes.

Letters: b clips, t frames, h w patch rows and columns, n = h * w, d channels, k heads, e width of a head.
Patches (b, t, h, w, d) and class token (b, d) are separate tensors throughout; they are never concatenated.  With
registers, the class token and they are one tensor (b, s, d) inside an encoder.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from timesformer._typing import Float
from timesformer.attention.backends import choose
from timesformer.config.counting import encoder_runs, macs_per_view, stem_macs
from timesformer.config.registry import register
from timesformer.config.transformer import TimeSformerConfig
from timesformer.errors import InputError
from timesformer.models.blocks import Attention, Mlp, backend_of
from timesformer.models.depth import transformer_layers
from timesformer.models.embedding import PatchEmbed, Positions
from timesformer.models.encoder import EncoderStack
from timesformer.models.layers import Standardise, SwiGlu, make_norm
from timesformer.models.on_videos import OnVideos
from timesformer.models.packed import PackedLinear, packable
from timesformer.models.pooling import AttentivePooler

Input = Float[Tensor, "b frames c height width"] | Float[Tensor, "b t rows d"]
"""A clip, or after some blocks (`TimeSformer.after_stem`) its tokens."""


class Tokens(NamedTuple):
    """Tokens after the last norm: patches (b, t, h, w, d), class token (b, d) or None, registers (b, n, d) or None."""

    patches: Tensor
    cls: Tensor | None
    registers: Tensor | None = None


class TimeSformer(OnVideos):
    """Video transformer with the attention scheme that its configuration names.

    The input is a float clip (b, frames, channels, height, width), normalised as the checkpoint's preprocessing says.
    It may have any number of frames and any size that whole patches cover.  The output is logits (b, num_classes); with
    several heads, (b, sum of their classes).

    Initialisation follows the released code, unless the configuration says otherwise: weights from a truncated normal
    with standard deviation 0.02, and zero biases, temporal positions and extra linears.

    `blocks_done`: number of blocks that the input has been through already (see `after_stem`), None for clips.

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
                kind,
                grid,
                config.embed_dim,
                with_class,
                std=config.position_std,
                time_std=config.time_std,
                time_from=config.time_from if number == 0 else 0,
            )
            normed = number + 1 < len(self.scheme.encoders) or not config.fc_norm
            stacks.append(EncoderStack(encoder, config, depth, positions, normed))
        self.encoders = nn.ModuleList(stacks)
        self.pooler = AttentivePooler(config) if config.resolved_pool == "attentive" else None
        self.fc_norm = make_norm(config, config.embed_dim, config.fc_norm_eps) if config.fc_norm else None
        self.standardise = Standardise(config.head_width) if config.standardise else None
        self.head = nn.Linear(config.head_width, sum(config.heads))
        self.pooled = config.resolved_pool
        self.fused = False
        self.blocks_done: int | None = None
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

    @property
    def embedding_dropout(self) -> nn.Dropout:
        """Dropout of the tokens after the embedding."""
        return self.stacks()[0].drop

    def stacks(self) -> list[EncoderStack]:
        """Encoders of the model, in order."""
        return [stack for stack in self.encoders if isinstance(stack, EncoderStack)]

    def forward_features(self, clip: Input) -> Tokens:
        """Return the last encoder's tokens after its norm; the space scheme averages the frames before the norm."""
        patches, cls = self._encode(clip, class_only=False)
        assert patches is not None
        return Tokens(patches, *((None, None) if cls is None else self.stacks()[-1].split(cls)))

    def _encode(self, clip: Tensor, class_only: bool) -> tuple[Tensor | None, Tensor | None]:
        patches, after = self._begun(clip)
        *before, final = self.stacks()
        for stack in before:
            patches, cls = stack(patches, average_frames=False, after=after)
            patches, after = stack.pool(patches, cls)[:, :, None, None], None
        out: tuple[Tensor | None, Tensor | None] = final(
            patches, average_frames=True, class_only=class_only, after=after
        )
        return out

    def _begun(self, clip: Tensor) -> tuple[Tensor, tuple[Tensor | None, int, int] | None]:
        """Return the patches of a clip, or of tokens the patches and what the first encoder needs besides."""
        if self.blocks_done is None:
            return self.patch_embed(clip), None
        self._check_tokens(clip)
        patches, cls = self.stacks()[0].unpack(clip, *self.config.grid[1:])
        return patches, (cls, self.blocks_done, clip.shape[1])

    def stem(self, clip: Float[Tensor, "b frames c height width"], blocks: int) -> Float[Tensor, "b t rows d"]:
        """Return the tokens of the first encoder after so many of its blocks, in one tensor.

        Each frame has its patches, row by row, then class token and registers.
        """
        stack = self.stacks()[0]
        patches, cls = stack.through(*stack.begin(self.patch_embed(clip)), 0, blocks)
        return stack.pack(patches, cls, clip.shape[1] // self.config.tubelet_size)

    @contextmanager
    def after_stem(self, blocks: int) -> Iterator[None]:
        """Let the model take what `stem` returns in the place of clips, inside the context."""
        self.blocks_done = blocks
        try:
            yield
        finally:
            self.blocks_done = None

    def _check_tokens(self, tokens: Tensor) -> None:
        _, height, width = self.config.grid
        rows = height * width + self.config.specials(self.stacks()[0].encoder)
        if tokens.dim() != 4 or tokens.shape[2:] != (rows, self.config.embed_dim):
            raise InputError(
                f"tokens: expected (clips, frames, {rows}, {self.config.embed_dim}), those of {height} x {width} "
                f"patches after {self.blocks_done} blocks, got {tuple(tokens.shape)}"
            )

    def layers(self) -> list[list[str]]:
        """Return the names of the parameters by depth: embedding, each block, and last what follows the blocks.

        What stands between two encoders belongs to the first block of the second one.
        """
        return transformer_layers(self.config, [name for name, _ in self.named_parameters()])

    def pool(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """Return the vector that the head reads; see `pool`, `fc_norm` and `standardise` of the configuration."""
        pooled = self._pooled(tokens)
        return pooled if self.standardise is None else self.standardise(pooled)

    def _pooled(self, tokens: Tokens) -> Tensor:
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

    def features(self, clip: Input) -> Float[Tensor, "b d"]:
        """Return the pooled vector of each clip, which the head reads."""
        if not self.fused or self.pooled != "class" or self.blocks_done is not None:
            return self.pool(self.forward_features(clip))
        _, cls = self._encode(clip, class_only=True)
        assert cls is not None
        pooled = self.stacks()[-1].split(cls)[0]
        return pooled if self.standardise is None else self.standardise(pooled)

    def forward(self, clip: Input) -> Float[Tensor, "b classes"]:
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


register("attention", TimeSformerConfig, TimeSformer, lambda config, kind: macs_per_view(config, kind=kind), stem_macs)
