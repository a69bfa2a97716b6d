"""The backbone written out with all its switches: one formula after the other, attention by the dense oracle.

It shares with the package only the patch embedding, learned positions and the weights.
"""

import math

import torch
from torch import Tensor, nn

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.attention import oracle
from timesformer.models.blocks import Attention, Block, Mlp
from timesformer.models.pooling import AttentivePooler
from timesformer.models.timesformer import EncoderStack


def dense_logits(model: TimeSformer, clip: Tensor) -> Tensor:
    config, patches = model.config, model.patch_embed(clip)
    *before, last = model.stacks()
    for stack in before:
        patches, cls = encode(stack, config, patches)
        patches, cls = norm(stack.norm, patches), None if cls is None else norm(stack.norm, cls)
        pooled = patches.mean((2, 3)) if stack.encoder.pool == "mean" or cls is None else first(cls)
        patches = pooled[:, :, None, None]
    patches, cls = encode(last, config, patches)
    if last.encoder.class_tokens == "frame":
        patches = patches.mean(1, keepdim=True)
        cls = None if cls is None else cls.mean(1)
    if not config.fc_norm:
        patches, cls = norm(last.norm, patches), None if cls is None else norm(last.norm, cls)
    mean = patches.flatten(1, 3).mean(1)
    if config.resolved_pool == "attentive":
        assert model.pooler is not None
        pooled = attentive(model.pooler, config, patches)
    elif config.resolved_pool == "mean":
        pooled = mean if model.fc_norm is None else norm(model.fc_norm, mean)
    else:
        assert cls is not None
        pooled = first(cls) if config.resolved_pool == "class" else torch.cat([first(cls), mean], -1)
    return linear(model.head, pooled)


def first(cls: Tensor) -> Tensor:
    """The class token, with or without registers after it: (…, s, d) -> (…, d)."""
    return cls[..., 0, :]


def encode(stack: EncoderStack, config: TimeSformerConfig, patches: Tensor) -> tuple[Tensor, Tensor | None]:
    """Patches (b, t, h, w, d) and class token and registers (b, s, d), or with frame streams (b, t, s, d)."""
    b, t = patches.shape[:2]
    streams = stack.encoder.class_tokens == "frame"
    if streams:
        patches = patches.reshape(b * t, 1, *patches.shape[2:])
    cls = None
    if stack.cls_token is not None:
        rows = [stack.cls_token[None]] + ([] if stack.registers is None else [stack.registers])
        cls = torch.cat(rows).expand(len(patches), -1, -1)
    if config.position == "sinusoid":
        patches = patches + sinusoids(patches)
    elif cls is None:
        patches, _ = stack.positions(patches, None)
    else:
        patches, token = stack.positions(patches, cls[:, 0])
        cls = torch.cat([token[:, None], cls[:, 1:]], 1)
    for block in stack.blocks:
        assert isinstance(block, Block)
        patches, cls = run_block(block, config, patches, cls)
    if not streams:
        return patches, cls
    return patches.reshape(b, t, *patches.shape[2:]), None if cls is None else cls.reshape(b, t, *cls.shape[1:])


def run_block(
    block: Block, config: TimeSformerConfig, patches: Tensor, cls: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    for stage in block.stages:
        added = [attention(block, name, config, patches, cls) for name in stage]
        for more, more_cls in added:
            patches = patches + more
            cls = cls if cls is None or more_cls is None else cls + more_cls
    return patches + mlp(block.mlp, config, patches), None if cls is None else cls + mlp(block.mlp, config, cls)


def attention(
    block: Block, name: str, config: TimeSformerConfig, patches: Tensor, cls: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    module = block.steps[name]
    assert isinstance(module, Attention)
    source = module if module.step.qkv_from is None else block.steps[module.step.qkv_from]
    k = config.num_heads
    cls = None if module.step.cls == "absent" else cls
    every, normed = [], []
    for x in (patches, cls):
        if x is None:
            every.append(None)
            continue
        normed.append(norm(module.norm, x))
        q, key, v = project(source.qkv, config.qkv_bias, normed[-1]).chunk(3, -1)  # type: ignore[union-attr, arg-type]
        q, key, v = (part.unflatten(-1, (k, -1)) for part in (q, key, v))
        if config.qk_norm:
            q, key = norm(module.q_norm, q), norm(module.k_norm, key)  # type: ignore[arg-type]
        if config.position == "rope" and x is patches:
            q, key = turned(q, config), turned(key, config)
        every.append(torch.stack([q, key, v], -3))
    assert every[0] is not None
    out = oracle(module.step, every[0], every[1], modules=module.mixer)
    results = []
    for mixed, given in zip(out, [*normed, None], strict=False):
        if mixed is None or given is None:
            results.append(None)
            continue
        if config.gate is not None:
            assert module.gate is not None
            gate = 2 / (1 + torch.exp(-linear(module.gate, given)))
            mixed = mixed * (gate[..., None] if config.gate == "head" else gate.unflatten(-1, (k, -1)))
        result = linear(module.proj, mixed.flatten(-2))
        if module.fc is not None:
            result = linear(module.fc, result)
        results.append(result if config.layer_scale is None else result * module.scale)
    assert results[0] is not None
    return results[0], results[1] if len(results) > 1 else None


def mlp(module: Mlp, config: TimeSformerConfig, x: Tensor, plain: bool = False) -> Tensor:
    x = linear(module.fc1, norm(module.norm, x))
    if config.mlp == "swiglu" and not plain:
        half = x.shape[-1] // 2
        gate, value = x[..., :half], x[..., half:]
        x = gate / (1 + torch.exp(-gate)) * value
    else:
        x = 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    x = linear(module.fc2, x)
    return x if config.layer_scale is None or plain else x * module.scale


def attentive(pooler: AttentivePooler, config: TimeSformerConfig, patches: Tensor) -> Tensor:
    tokens = patches.flatten(1, 3)
    k = config.num_heads
    for block in pooler.blocks:
        module = block.steps["joint"]  # type: ignore[union-attr, index]
        qkv = linear(module.qkv, norm(module.norm, tokens)).unflatten(-1, (3, k, -1))
        tokens = tokens + linear(module.proj, softmax_over(*qkv.unbind(-3)).flatten(-2))
        tokens = tokens + mlp(block.mlp, config, tokens, plain=True)  # type: ignore[arg-type, union-attr]
    key, value = linear(pooler.kv, norm(pooler.norm, tokens)).unflatten(-1, (2, k, -1)).unbind(-3)
    query = linear(pooler.q, pooler.query).unflatten(-1, (k, -1)).expand(len(tokens), 1, -1, -1)
    read = pooler.query + softmax_over(query, key, value).flatten(-2)[:, 0]
    return read + mlp(pooler.mlp, config, read, plain=True)


def softmax_over(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(b, p, heads, e) each."""
    scores = torch.einsum("bqke,bske->bkqs", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("bkqs,bske->bqke", scores.softmax(-1), v)


def norm(module: nn.Module, x: Tensor) -> Tensor:
    if isinstance(module, nn.RMSNorm):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + module.eps) * module.weight
    assert isinstance(module, nn.LayerNorm)
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + module.eps) * module.weight + module.bias


def linear(module: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(module, nn.Linear)
    return x @ module.weight.T + module.bias


def project(module: nn.Linear, parts: str, x: Tensor) -> Tensor:
    out, d, at = list((x @ module.weight.T).chunk(3, -1)), x.shape[-1], 0
    for number, part in enumerate("qkv"):
        if part in parts:
            out[number] = out[number] + module.bias[at : at + d]
            at += d
    assert at == (0 if module.bias is None else len(module.bias))
    return torch.cat(out, -1)


def sinusoids(patches: Tensor) -> Tensor:
    grid, d = patches.shape[1:4], patches.shape[-1]
    rows = [
        [(math.cos if j % 2 else math.sin)(p / 10000 ** (2 * (j // 2) / d)) for j in range(d)]
        for p in range(math.prod(grid))
    ]
    table = torch.tensor(rows, dtype=torch.float64).float()  # kept in single precision
    return table.to(patches.dtype).view(*grid, d)


def turned(x: Tensor, config: TimeSformerConfig) -> Tensor:
    """Queries or keys (b, t, h, w, k, e), turned token by token with a matrix."""
    width = x.shape[-1]
    axes = config.rope_axes or (2 * (width // 3 // 2),) * 3
    out = torch.empty_like(x)
    for t in range(x.shape[1]):
        for h in range(x.shape[2]):
            for w in range(x.shape[3]):
                matrix = turning(config, axes, (t, h, w), tuple(x.shape[1:4]), width)
                out[:, t, h, w] = x[:, t, h, w] @ matrix.to(x.dtype).T
    return out


def turning(
    config: TimeSformerConfig, axes: tuple[int, ...], at: tuple[int, ...], grid: tuple[int, ...], width: int
) -> Tensor:
    """The matrix (e, e) of a token."""
    pairs: list[tuple[int, int, float, float]] = []  # two channels and the angle of each
    offset, every = 0, []
    for axis, channels in enumerate(axes):
        place = float(at[axis])
        if config.rope_coordinates == "unit":
            place = 2 * math.pi * (2 * (at[axis] + 0.5) / grid[axis] - 1)
        place *= config.rope_scale[axis]
        angles = [place / config.rope_base ** (2 * i / channels) for i in range(channels // 2)]
        every += angles
        for i in range(channels // 2):
            if config.rope_pairing == "neighbour":
                pairs.append((offset + 2 * i, offset + 2 * i + 1, angles[i], angles[i]))
            elif config.rope_pairing == "vjepa2":
                one, other = angles[2 * i % len(angles)], angles[(2 * i + 1) % len(angles)]
                pairs.append((offset + 2 * i, offset + 2 * i + 1, one, other))
        offset += channels
    if config.rope_pairing == "half":
        pairs = [(i, i + len(every), angle, angle) for i, angle in enumerate(every)]
    matrix = torch.eye(width, dtype=torch.float64)
    for i, j, angle, other in pairs:
        matrix[i, i], matrix[i, j] = math.cos(angle), -math.sin(angle)
        matrix[j, j], matrix[j, i] = math.cos(other), math.sin(other)
    return matrix
