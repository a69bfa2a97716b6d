"""Transformer blocks: attention steps and the MLP, each with a residual connection.

Letters: b clips, t frames, h w patch rows and columns, n = h * w, d channels, k heads, e width of a head.
Patches (b, t, h, w, d) and class token (b, d) are separate tensors throughout; they are never concatenated.  With
registers, the class token and they are one tensor (b, s, d), which is treated as the class token is.
"""

import torch
from torch import Tensor, nn

from timesformer.attention import Mixer, Partition, Step, attend
from timesformer.attention.attend import split_heads
from timesformer.attention.backends import Backend, BackendError
from timesformer.attention.scheme import Encoder
from timesformer.config.transformer import TimeSformerConfig
from timesformer.models.layers import Norm, make_activation, make_norm, make_qkv
from timesformer.models.rotary import Rotary
from timesformer.models.steps import Steps
from timesformer_kernels import add_norm, prefers_add_norm


class Attention(nn.Module):
    """One residual attention step: norm, qkv, attention, gate, projection, drop path, extra linear, layer scale.

    The extra linear comes after drop path, which acts per clip and group, as in the released code.  The gate is twice
    the sigmoid of a linear of the step's normed input, which starts at zero, so that the gate starts at 1.

    Raises:
        BackendError: backend `triton` with rotary positions or registers.
    """

    def __init__(self, step: Step, config: TimeSformerConfig, drop_path: float) -> None:
        super().__init__()
        d = config.embed_dim
        self.step, self.heads, self.drop_path = step, config.num_heads, drop_path
        self.backend, self.rotary = backend_of(config), Rotary.of(config)
        self.norm = make_norm(config, d)
        self.qkv = make_qkv(config) if step.qkv_from is None else None
        self.q_norm, self.k_norm = (make_norm(config, d // self.heads) if config.qk_norm else None for _ in "qk")
        self.mixed = nn.Identity()  # the output of the attention passes through it, where maps record it
        self.gate = nn.Linear(d, self.heads if config.gate == "head" else d) if config.gate else None
        self.proj = nn.Linear(d, d)
        self.drop = nn.Dropout(config.drop_rate)
        self.fc = nn.Linear(d, d) if step.extra_linear else None
        self.scale = None if config.layer_scale is None else nn.Parameter(torch.full((d,), config.layer_scale))
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
        """Return the step's contributions to patches (b, t, h, w, d) and class token (b, d).

        A contribution is None where the step adds nothing, and for the patches with `class_only`.  `normed`: the
        patches after the norm, if they are already computed.
        """
        if self.step.cls == "absent":
            cls = None
        weights = self._group_weights(patches)
        out, cls_out, gates = self._attended(patches, cls, qkv, normed, weights, class_only)
        if out is not None:
            out = self.drop(self.proj(self._gated(out, gates[0])))
            if weights is not None:
                out = out * self._per_token(weights, patches)
            out = self._finished(out)
        if cls_out is None:
            return out, None
        cls_out = self._gated(cls_out, gates[1])
        if weights is None:
            cls_out = self.drop(self.proj(cls_out))
        elif self.step.cls == "replicated":  # mean over groups of weight * (projection + bias)
            mean = weights.flatten(1).mean(1).view(-1, *[1] * (cls_out.dim() - 1))
            cls_out = nn.functional.linear(cls_out, self.proj.weight)
            cls_out = self.drop(cls_out + self.proj.bias * mean)
        else:
            mask = _drop_path_mask((cls_out.shape[0], *[1] * (cls_out.dim() - 1)), self.drop_path, cls_out)
            cls_out = self.drop(self.proj(cls_out)) * mask
        return out, self._finished(cls_out)

    def _attended(
        self,
        patches: Tensor,
        cls: Tensor | None,
        qkv: nn.Module,
        normed: Tensor | None,
        weights: Tensor | None,
        class_only: bool,
    ) -> tuple[Tensor | None, Tensor | None, tuple[Tensor | None, Tensor | None]]:
        """Return the outputs of the attention for patches and class token, and their gates.

        What it needs meanwhile is released when it returns.
        """
        normed = self.norm(patches) if normed is None else normed
        cls_normed = None if cls is None else self.norm(cls)
        gates = self._gate_of(normed), None if cls_normed is None else self._gate_of(cls_normed)
        own, token = self.prepared(qkv(normed), None if cls_normed is None else qkv(cls_normed))
        del normed, cls_normed
        out, cls_out = attend(
            self.step,
            own,
            token,
            backend=self.backend,
            group_weights=weights,
            modules=self.mixer,
            class_only=class_only,
        )
        return out, cls_out, gates

    def _gate_of(self, normed: Tensor) -> Tensor | None:
        """Return the gate of normed tokens, (…, k) or (…, d)."""
        return None if self.gate is None else 2 * self.gate(normed).sigmoid()

    def prepared(self, qkv: Tensor, cls_qkv: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return projected q, k and v as attention takes them: (b, t, h, w, 3, k, e) and (b, [s,] 3, k, e) or None.

        They are split into heads, normed and, for the patches, rotated, where the configuration says so.
        """
        qkv = qkv.unflatten(-1, (3, self.heads, -1))
        cls_qkv = None if cls_qkv is None else cls_qkv.unflatten(-1, (3, self.heads, -1))
        if self.q_norm is not None and self.k_norm is not None:
            parts = [None if x is None else self._normed(x) for x in (qkv, cls_qkv)]
            assert parts[0] is not None
            qkv, cls_qkv = parts[0], parts[1]
        if self.rotary is not None:
            qkv = torch.cat([self.rotary(qkv[..., :2, :, :]), qkv[..., 2:, :, :]], -3)
        return qkv, cls_qkv

    def _normed(self, qkv: Tensor) -> Tensor:
        assert self.q_norm is not None
        assert self.k_norm is not None
        q, k, v = qkv.unbind(-3)
        return torch.stack([self.q_norm(q), self.k_norm(k), v], -3)

    def _gated(self, out: Tensor, gate: Tensor | None) -> Tensor:
        """Join the heads of the attention's output, (…, k, e) -> (…, d), times the gate."""
        joined: Tensor = self.mixed(out.flatten(-2))
        if gate is None:
            return joined
        if gate.shape[-1] == self.heads:
            return (joined.unflatten(-1, (self.heads, -1)) * gate[..., None]).flatten(-2)
        return joined * gate

    def _finished(self, out: Tensor) -> Tensor:
        """Apply the extra linear and the layer scale."""
        out = out if self.fc is None else self.fc(out)
        return out if self.scale is None else out * self.scale

    def _group_weights(self, patches: Tensor) -> Tensor | None:
        """Draw the weights of drop path, (b, gt, gh, gw): 0 or 1 / (1 - p)."""
        if not self.training or self.drop_path == 0:
            return None
        over, (b, t, h, w, _) = self.step.over[0], patches.shape
        counts = over.counts((t, h, w)) if isinstance(over, Partition) and len(self.step.over) == 1 else (1, 1, 1)
        return _drop_path_mask((b, *counts), self.drop_path, patches)

    def _per_token(self, weights: Tensor, patches: Tensor) -> Tensor:
        """Expand group weights to the tokens, (b, t, h, w, 1)."""
        over = self.step.over[0]
        if isinstance(over, Partition) and len(self.step.over) == 1:
            for dim, split in enumerate(over.splits, start=1):
                length = patches.shape[dim]
                index = torch.arange(length, device=patches.device)
                weights = weights.index_select(dim, split.part_of(index, length))
        return weights[..., None]


def backend_of(config: TimeSformerConfig) -> Backend:
    """Return the backend of a configuration's steps: with registers or rotary positions `auto` takes sdpa.

    Raises:
        BackendError: backend `triton` with either of them.
    """
    asked = [name for name, on in (("rope", config.position == "rope"), ("registers", config.registers > 0)) if on]
    if asked and config.backend == "triton":
        raise BackendError(f"backend 'triton': does not serve {' and '.join(asked)} yet; use 'sdpa' or 'auto'")
    return "sdpa" if asked and config.backend == "auto" else config.backend


def _drop_path_mask(shape: tuple[int, ...], rate: float, like: Tensor) -> Tensor:
    keep = 1 - rate
    return torch.empty(shape, dtype=like.dtype, device=like.device).bernoulli_(keep) / keep


class Mlp(nn.Module):
    """MLP of a block: norm, linear, activation, linear, layer scale; drop path per clip.

    With `mlp: swiglu` the first linear gives the gate and, below it, the value.
    """

    def __init__(self, config: TimeSformerConfig, drop_path: float) -> None:
        super().__init__()
        d, hidden = config.embed_dim, int(config.embed_dim * config.mlp_ratio)
        self.drop_path = drop_path
        self.norm = make_norm(config, d)
        self.fc1 = nn.Linear(d, hidden * (2 if config.mlp == "swiglu" else 1))
        self.act = make_activation(config)
        self.fc2 = nn.Linear(hidden, d)
        self.drop = nn.Dropout(config.drop_rate)
        self.scale = None if config.layer_scale is None else nn.Parameter(torch.full((d,), config.layer_scale))

    def forward(
        self, patches: Tensor, cls: Tensor | None, normed: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the contributions to patches (b, t, h, w, d) and class token (b, d).

        `normed`: the patches after the norm, if they are already computed.
        """
        out, cls_out = self.one(patches, normed), None if cls is None else self.one(cls)
        if self.training and self.drop_path:
            mask = _drop_path_mask((patches.shape[0],), self.drop_path, patches)
            out = out * mask[:, None, None, None, None]
            cls_out = None if cls_out is None else cls_out * mask.view(-1, *[1] * (cls_out.dim() - 1))
        return out, cls_out

    def one(self, x: Tensor, normed: Tensor | None = None) -> Tensor:
        """Return the contribution to tokens (…, d), before drop path."""
        x = self.drop(self.act(self.fc1(self.norm(x) if normed is None else normed)))
        out: Tensor = self.drop(self.fc2(x))
        return out if self.scale is None else out * self.scale


class Block(nn.Module):
    """A block: the stages of attention steps, then the MLP, each with a residual connection."""

    def __init__(self, encoder: Encoder, config: TimeSformerConfig, drop_path: float) -> None:
        super().__init__()
        self.stages = [[step.name for step in stage] for stage in encoder.block]
        self.steps = Steps({step.name: Attention(step, config, drop_path) for step in encoder.steps})
        self.mlp = Mlp(config, drop_path)
        # None: decided for the tokens at hand
        self.fused_norm = {"triton": True, "auto": None}.get(config.backend, False) if config.norm == "layer" else False

    def forward(self, patches: Tensor, cls: Tensor | None) -> tuple[Tensor, Tensor | None]:
        normed = None
        for number, stage in enumerate(self.stages, start=1):
            following = self.stages[number] if number < len(self.stages) else None
            norm = self.mlp.norm if following is None else self._step(following[0]).norm
            read_once = following is None or len(following) == 1  # parallel steps have a norm each
            patches, cls, normed = self._stage(stage, patches, cls, normed, norm if read_once else None)
        more_patches, more_cls = self.mlp(patches, cls, normed)
        return patches + more_patches, None if cls is None else cls + more_cls

    def class_only(self, patches: Tensor, cls: Tensor) -> Tensor:
        """Return the class token (b, d) after the block, without computing what it does not depend on.

        The last stage in which it takes part, and the MLP, are computed for the class token only.
        """
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
        """Number of stages up to and including the last one in which the class token takes part."""
        return max(
            i for i, stage in enumerate(self.stages, 1) for name in stage if self._step(name).step.cls != "absent"
        )

    def _stage(
        self,
        stage: list[str],
        patches: Tensor,
        cls: Tensor | None,
        normed: Tensor | None = None,
        norm: Norm | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return patches and class token after a stage, and the patches after `norm`, the norm that reads them next."""
        added = [self._attention(name, patches, cls, normed) for name in stage]
        normed = None
        for number, (more_patches, more_cls) in enumerate(added, start=1):
            assert more_patches is not None
            if norm is not None and number == len(added) and self._fuses_norm(patches, more_patches):
                assert isinstance(norm, nn.LayerNorm)
                patches, normed = add_norm(patches, more_patches, norm.weight, norm.bias, norm.eps)
            else:
                patches = patches + more_patches
            cls = cls if cls is None or more_cls is None else cls + more_cls
        return patches, cls, normed

    def _fuses_norm(self, patches: Tensor, more: Tensor) -> bool:
        """Return True if the residual addition and the norm that follows are one kernel."""
        return prefers_add_norm(patches, more) if self.fused_norm is None else self.fused_norm

    def attention_steps(self) -> list[Attention]:
        """Return the attention steps, in order."""
        return [self._step(name) for stage in self.stages for name in stage]

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
