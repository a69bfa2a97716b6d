"""The one backbone that every attention scheme shares.

Letters: b clips, t frames, h w patch rows and columns, n = h * w, d channels, k heads, e width of a head.
Patches (b, t, h, w, d) and class token (b, d) stay apart from the first layer to the last: no concatenation.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from timesformer._typing import Float
from timesformer.attention import Mixer, Partition, Step, attend
from timesformer.attention.attend import split_heads
from timesformer.attention.backends import choose
from timesformer.attention.scheme import Encoder
from timesformer.config.counting import encoder_runs
from timesformer.config.transformer import TimeSformerConfig
from timesformer.errors import InputError
from timesformer.models.embedding import PatchEmbed, Positions
from timesformer_kernels import add_norm


class Tokens(NamedTuple):
    """The tokens after the last norm: patches (b, t, h, w, d), class token (b, d) or None."""

    patches: Tensor
    cls: Tensor | None


class Attention(nn.Module):
    """One residual attention step: norm, qkv, attention, projection, drop path, extra linear.

    As in the released code the extra linear comes after drop path, which acts per clip and group.
    """

    def __init__(self, step: Step, config: TimeSformerConfig, drop_path: float) -> None:
        super().__init__()
        d = config.embed_dim
        self.step, self.heads, self.backend, self.drop_path = step, config.num_heads, config.backend, drop_path
        self.norm = nn.LayerNorm(d, eps=config.norm_eps)
        self.qkv = nn.Linear(d, 3 * d) if step.qkv_from is None else None
        self.proj = nn.Linear(d, d)
        self.drop = nn.Dropout(config.drop_rate)
        self.fc = nn.Linear(d, d) if step.extra_linear else None
        mixers = [
            over.modules(d // len(step.over), part.stop - part.start)
            for over, part in zip(step.over, split_heads(step, self.heads), strict=True)
            if isinstance(over, Mixer)
        ]
        self.mixer = nn.ModuleDict({name: module for modules in mixers for name, module in modules.items()})

    def forward(
        self,
        patches: Tensor,
        cls: Tensor | None,
        qkv: nn.Module,
        normed: Tensor | None = None,
        class_only: bool = False,
    ) -> tuple[Tensor | None, Tensor | None]:
        """What the step adds to patches (b, t, h, w, d) and class token (b, d); None where it adds nothing, and for
        the patches with `class_only`.  `normed`: the patches after the norm, if they are known."""
        if self.step.cls == "absent":
            cls = None
        weights = self._group_weights(patches)
        out, cls_out = attend(
            self.step,
            qkv(self.norm(patches) if normed is None else normed).unflatten(-1, (3, self.heads, -1)),
            None if cls is None else qkv(self.norm(cls)).unflatten(-1, (3, self.heads, -1)),
            backend=self.backend,
            group_weights=weights,
            modules=self.mixer,
            class_only=class_only,
        )
        if out is not None:
            out = self.drop(self.proj(out.flatten(-2)))
            if weights is not None:
                out = out * self._per_token(weights, patches)
            if self.fc is not None:
                out = self.fc(out)
        if cls_out is None:
            return out, None
        cls_out = cls_out.flatten(-2)
        if weights is None:
            cls_out = self.drop(self.proj(cls_out))
        elif self.step.cls == "replicated":  # the mean over groups of weight * (projection + bias)
            cls_out = nn.functional.linear(cls_out, self.proj.weight)
            cls_out = self.drop(cls_out + self.proj.bias * weights.flatten(1).mean(1, keepdim=True))
        else:
            cls_out = self.drop(self.proj(cls_out)) * _drop_path_mask((cls_out.shape[0], 1), self.drop_path, cls_out)
        return out, cls_out if self.fc is None else self.fc(cls_out)

    def _group_weights(self, patches: Tensor) -> Tensor | None:
        """Drop path's weights (b, gt, gh, gw): 0, or 1 / (1 - p)."""
        if not self.training or self.drop_path == 0:
            return None
        over, (b, t, h, w, _) = self.step.over[0], patches.shape
        counts = over.counts((t, h, w)) if isinstance(over, Partition) and len(self.step.over) == 1 else (1, 1, 1)
        return _drop_path_mask((b, *counts), self.drop_path, patches)

    def _per_token(self, weights: Tensor, patches: Tensor) -> Tensor:
        """Group weights laid out over the tokens, (b, t, h, w, 1)."""
        over = self.step.over[0]
        if isinstance(over, Partition) and len(self.step.over) == 1:
            for dim, split in enumerate(over.splits, start=1):
                length = patches.shape[dim]
                index = torch.arange(length, device=patches.device)
                weights = weights.index_select(dim, split.part_of(index, length))
        return weights[..., None]


def _drop_path_mask(shape: tuple[int, ...], rate: float, like: Tensor) -> Tensor:
    keep = 1 - rate
    return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(keep) / keep


class Mlp(nn.Module):
    """norm, linear, activation, linear; drop path per clip."""

    def __init__(self, config: TimeSformerConfig, drop_path: float) -> None:
        super().__init__()
        hidden = int(config.embed_dim * config.mlp_ratio)
        self.drop_path = drop_path
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.fc1 = nn.Linear(config.embed_dim, hidden)
        self.act = (
            nn.ReLU()
            if config.activation == "relu"
            else nn.GELU(approximate="none" if config.activation == "gelu" else "tanh")
        )
        self.fc2 = nn.Linear(hidden, config.embed_dim)
        self.drop = nn.Dropout(config.drop_rate)

    def forward(
        self, patches: Tensor, cls: Tensor | None, normed: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """What it adds to patches and class token; `normed`: the patches after the norm, if they are known."""
        out, cls_out = self.one(patches, normed), None if cls is None else self.one(cls)
        if self.training and self.drop_path:
            mask = _drop_path_mask((patches.shape[0],), self.drop_path, patches)
            out = out * mask[:, None, None, None, None]
            cls_out = None if cls_out is None else cls_out * mask[:, None]
        return out, cls_out

    def one(self, x: Tensor, normed: Tensor | None = None) -> Tensor:
        """What it adds to tokens (…, d), before drop path."""
        x = self.drop(self.act(self.fc1(self.norm(x) if normed is None else normed)))
        out: Tensor = self.drop(self.fc2(x))
        return out


class Block(nn.Module):
    """The stages of attention steps, then the MLP, each around a residual connection."""

    def __init__(self, encoder: Encoder, config: TimeSformerConfig, drop_path: float) -> None:
        super().__init__()
        self.stages = [[step.name for step in stage] for stage in encoder.block]
        self.steps = nn.ModuleDict({step.name: Attention(step, config, drop_path) for step in encoder.steps})
        self.mlp = Mlp(config, drop_path)
        self.fused_norm = config.backend == "triton"

    def forward(self, patches: Tensor, cls: Tensor | None) -> tuple[Tensor, Tensor | None]:
        normed = None
        for number, stage in enumerate(self.stages, start=1):
            following = self.stages[number] if number < len(self.stages) else None
            norm = self.mlp.norm if following is None else self._step(following[0]).norm
            read_once = following is None or len(following) == 1  # steps side by side have a norm each
            patches, cls, normed = self._stage(stage, patches, cls, normed, norm if read_once else None)
        more_patches, more_cls = self.mlp(patches, cls, normed)
        return patches + more_patches, None if cls is None else cls + more_cls

    def class_only(self, patches: Tensor, cls: Tensor) -> Tensor:
        """The class token (b, d) after the block, without what it does not depend on: the last stage that it takes
        part in and the MLP are computed for it alone."""
        *before, last = self.stages[: self._last_with_class()]
        for stage in before:
            patches, found, _ = self._stage(stage, patches, cls)
            assert found is not None
            cls = found
        added = [self._attention(name, patches, cls, class_only=True)[1] for name in last]
        cls = sum((more for more in added if more is not None), start=cls)
        more: Tensor = self.mlp.one(cls)
        return cls + more

    def _last_with_class(self) -> int:
        """Stages up to and with the last one in which the class token takes part."""
        return max(
            i for i, stage in enumerate(self.stages, 1) for name in stage if self._step(name).step.cls != "absent"
        )

    def _stage(
        self,
        stage: list[str],
        patches: Tensor,
        cls: Tensor | None,
        normed: Tensor | None = None,
        norm: nn.LayerNorm | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Patches and class token after a stage, and the patches after the `norm` that reads them next."""
        added = [self._attention(name, patches, cls, normed) for name in stage]
        normed = None
        for number, (more_patches, more_cls) in enumerate(added, start=1):
            assert more_patches is not None
            if norm is not None and number == len(added) and self.fused_norm:
                patches, normed = add_norm(patches, more_patches, norm.weight, norm.bias, norm.eps)
            else:
                patches = patches + more_patches
            cls = cls if cls is None or more_cls is None else cls + more_cls
        return patches, cls, normed

    def _step(self, name: str) -> Attention:
        module = self.steps[name]
        assert isinstance(module, Attention)
        return module

    def _attention(
        self, name: str, patches: Tensor, cls: Tensor | None, normed: Tensor | None = None, class_only: bool = False
    ) -> tuple[Tensor | None, Tensor | None]:
        module = self._step(name)
        source = module if module.step.qkv_from is None else self._step(module.step.qkv_from)
        assert source.qkv is not None
        out: tuple[Tensor | None, Tensor | None] = module(patches, cls, source.qkv, normed, class_only)
        return out


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


class TimeSformer(nn.Module):
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
        self.extras: dict[str, Any] = {}  # what a loaded model came with: preprocessing, labels, provenance
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
        return all(stack.gradient_checkpointing for stack in self._stacks())

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, value: bool) -> None:
        for stack in self._stacks():
            stack.gradient_checkpointing = value

    def _stacks(self) -> list[EncoderStack]:
        return [stack for stack in self.encoders if isinstance(stack, EncoderStack)]

    def forward_features(self, clip: Float[Tensor, "b frames c height width"]) -> Tokens:
        """The last encoder's tokens after its norm (the space scheme averages the frames before it)."""
        patches, cls = self._encode(clip, class_only=False)
        assert patches is not None
        return Tokens(patches, cls)

    def _encode(self, clip: Tensor, class_only: bool) -> tuple[Tensor | None, Tensor | None]:
        patches = self.patch_embed(clip)
        *before, final = self._stacks()
        for stack in before:
            patches, cls = stack(patches, average_frames=False)
            patches = stack.pool(patches, cls, per_frame=True)[:, :, None, None]
        out: tuple[Tensor | None, Tensor | None] = final(patches, average_frames=True, class_only=class_only)
        return out

    def pool(self, tokens: Tokens) -> Float[Tensor, "b d"]:
        """The vector that the head reads: the class token, or the mean of the patches."""
        return self._stacks()[-1].pool(tokens.patches, tokens.cls, per_frame=False)

    def features(self, clip: Float[Tensor, "b frames c height width"]) -> Float[Tensor, "b d"]:
        """The pooled vector of each clip."""
        if not self.fused or self._stacks()[-1].encoder.pool == "mean":
            return self.pool(self.forward_features(clip))
        _, cls = self._encode(clip, class_only=True)
        assert cls is not None
        return cls

    def forward(self, clip: Float[Tensor, "b frames c height width"]) -> Float[Tensor, "b classes"]:
        logits: Tensor = self.head(self.features(clip))
        return logits

    def fuse_for_inference(self) -> "TimeSformer":
        """A copy that gives the same outputs within rounding with fewer operations; see `timesformer.models.packed`."""
        from timesformer.models.packed import fuse_for_inference

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

        return load_model(source, **options).model

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
