"""Efficient path of one step: views of the qkv buffer, and one attention call for each shape of group."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from timesformer._typing import Float
from timesformer.attention.backends import Backend, BackendError, choose, flex_attention, softmax_attention
from timesformer.attention.gather import gathered_attention
from timesformer.attention.mixer import Mixer, MixerInputs
from timesformer.attention.partition import Grid, Partition, grid_of
from timesformer.attention.predicate import Predicate
from timesformer.attention.scheme import ClassPolicy, Step
from timesformer.errors import InputError
from timesformer_kernels import AxisTile, KernelsUnavailable, Tile, grouped_attention

Output = tuple[Tensor | None, Tensor | None]


def attend(
    step: Step,
    qkv: Float[Tensor, "b t h w 3 k e"],
    cls_qkv: Float[Tensor, "b *s 3 k e"] | None,
    *,
    backend: Backend = "auto",
    group_weights: Float[Tensor, "b gt gh gw"] | None = None,
    modules: nn.ModuleDict | None = None,
    class_only: bool = False,
) -> tuple[Float[Tensor, "b t h w k e"] | None, Float[Tensor, "b *s k e"] | None]:
    """Compute one attention step over a (t, h, w) grid of patches and, unless the step leaves it out, the class token.

    With registers, `cls_qkv` is (b, s, 3, k, e): the class token and the registers, which the step treats alike.

    `group_weights` scales each group's output of a replicated class token before the mean over the groups (drop path
    acts per group).  `modules` holds the weights of the step's mixer.  With `class_only` the outputs of the patches are
    not computed.

    Return the patches' outputs (None with `class_only`) and the class token's (None where it takes no part).

    Raises:
        BackendError: the backend cannot serve the step.
        InputError: the heads cannot be divided evenly between the parts of the step.
    """
    heads = split_heads(step, qkv.shape[5])
    if step.cls == "absent":
        cls_qkv = None
    alone = cls_qkv is not None and cls_qkv.dim() == 4
    if cls_qkv is not None and alone:
        cls_qkv = cls_qkv.unsqueeze(1)
    outputs = [
        _attend_part(
            over,
            step.cls,
            qkv[..., part, :],
            None if cls_qkv is None else cls_qkv[..., part, :],
            backend,
            group_weights,
            modules if modules is not None else nn.ModuleDict(),
            class_only,
        )
        for over, part in zip(step.over, heads, strict=True)
    ]
    if len(outputs) == 1:
        found, token = outputs[0]
    else:
        patches = [patches for patches, _ in outputs if patches is not None]
        cls = [cls for _, cls in outputs if cls is not None]
        found = torch.cat(patches, dim=4) if patches else None
        token = torch.cat(cls, dim=2) if cls else None
    return found, token.squeeze(1) if token is not None and alone else token


def split_heads(step: Step, heads: int) -> list[slice]:
    """Return the heads of each part of the step as a slice.

    Raises:
        InputError: the number of heads is not a multiple of the number of parts.
    """
    parts = len(step.over)
    if heads % parts:
        raise InputError(f"num_heads: expected a multiple of {parts}, the parts of step {step.name!r}, got {heads}")
    each = heads // parts
    return [slice(i * each, (i + 1) * each) for i in range(parts)]


def _attend_part(
    over: Partition | Predicate | Mixer,
    policy: ClassPolicy,
    qkv: Tensor,
    cls_qkv: Tensor | None,
    backend: Backend,
    group_weights: Tensor | None,
    modules: nn.ModuleDict,
    class_only: bool,
) -> Output:
    grid = grid_of(qkv)
    chosen = choose(backend, over, qkv.device, qkv, cls_qkv)
    if chosen == "triton":
        assert isinstance(over, Partition)
        return _attend_triton(over, policy, qkv, cls_qkv, grid, group_weights, class_only)
    q, k, v = qkv.unbind(4)  # b t h w k e
    if isinstance(over, Partition):
        return _attend_partition(over, policy, q, k, v, cls_qkv, grid, chosen, group_weights, class_only)
    if isinstance(over, Predicate) and chosen == "sdpa":
        inputs = over, q, k, v, cls_qkv, grid, class_only
        if torch.compiler.is_dynamo_compiling():  # chunks of keys make graphs that take minutes to compile
            from timesformer.attention.eager import outside_graphs

            found: Output = outside_graphs(_attend_gathered, *inputs)
            return found
        return _attend_gathered(*inputs)
    q, k, v = (x.flatten(1, 3).transpose(1, 2) for x in (q, k, v))  # b k p e
    cls = None if cls_qkv is None else _global_class(k, v, cls_qkv, backend)
    if class_only:
        return None, cls
    if isinstance(over, Mixer):
        patches = over.forward(MixerInputs(q, k, v, grid, modules))
    else:
        patches = _attend_predicate(over, q, k, v, cls_qkv, grid, chosen)
    return patches.transpose(1, 2).unflatten(1, grid), cls


def _attend_triton(
    over: Partition,
    policy: ClassPolicy,
    qkv: Tensor,
    cls_qkv: Tensor | None,
    grid: Grid,
    group_weights: Tensor | None,
    class_only: bool,
) -> Output:
    """Attend with the kernels, which read qkv in place."""
    tiles = over.tiles(grid)
    weights = None if group_weights is None else torch.cat([_weights_of(group_weights, tile) for tile in tiles], 1)
    token = None if cls_qkv is None else cls_qkv.squeeze(1)
    try:
        patches, cls = grouped_attention(
            qkv, token, tiles, "absent" if token is None else policy, group_weights=weights, class_only=class_only
        )
        return patches, None if cls is None else cls.unsqueeze(1)
    except (ValueError, KernelsUnavailable) as error:
        raise BackendError(f"backend 'triton': {error}") from error


def _attend_gathered(
    over: Predicate, q: Tensor, k: Tensor, v: Tensor, cls_qkv: Tensor | None, grid: Grid, class_only: bool
) -> Output:
    """Attend to the keys of each query alone, without a dense mask."""
    q, k, v = (x.flatten(1, 3) for x in (q, k, v))  # b p k e
    cls = None
    if cls_qkv is not None:
        cls = _global_class(k.transpose(1, 2), v.transpose(1, 2), cls_qkv, "sdpa")
    if class_only:
        return None, cls
    if cls_qkv is not None:
        k, v = torch.cat([k, cls_qkv[:, :, 1]], 1), torch.cat([v, cls_qkv[:, :, 2]], 1)
    return gathered_attention(q, k, v, over.plan(grid, q.device)).unflatten(1, grid), cls


def _attend_predicate(
    over: Predicate, q: Tensor, k: Tensor, v: Tensor, cls_qkv: Tensor | None, grid: Grid, backend: str
) -> Tensor:
    if cls_qkv is not None:
        _, cls_k, cls_v = _by_head(cls_qkv).unbind(1)  # b k s e
        k, v = torch.cat([k, cls_k], 2), torch.cat([v, cls_v], 2)
    if backend == "flex":
        return flex_attention(q, k, v, over, grid)
    mask = over.mask(grid, q.device)
    if cls_qkv is not None:
        mask = torch.nn.functional.pad(mask, (0, cls_qkv.shape[1]), value=True)
    return softmax_attention(q, k, v, mask, backend)


def _global_class(k: Tensor, v: Tensor, cls_qkv: Tensor, backend: str) -> Tensor:
    """Outputs of the class token's and registers' queries over themselves and every patch: (b, s, k, e)."""
    cls_q, cls_k, cls_v = _by_head(cls_qkv).unbind(1)
    dense = "reference" if backend == "reference" else "sdpa"
    out = softmax_attention(cls_q, torch.cat([k, cls_k], 2), torch.cat([v, cls_v], 2), None, dense)
    return out.transpose(1, 2)


def _attend_partition(
    over: Partition,
    policy: ClassPolicy,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cls_qkv: Tensor | None,
    grid: Grid,
    backend: str,
    group_weights: Tensor | None,
    class_only: bool,
) -> Output:
    tiles = over.tiles(grid) if not class_only or policy == "replicated" else []
    patches, cls_sum, cls = None, None, None
    several, out = len(tiles) > 1 and not class_only, None
    # `list[Tensor]()` stops torch.compile, which goes on after it: one graph of parts of any size takes many minutes.
    parts = [] if {over.t.word, over.h.word, over.w.word} <= {"all", "each"} else list[Tensor]()
    if several and type(q.shape[0]) is int:
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
    for tile in tiles:
        tq, tk, tv = (_groups(x, tile) for x in (q, k, v))  # b g k s e
        if cls_qkv is not None:
            cls_q, cls_k, cls_v = _expand(cls_qkv, tile.num_groups)
            tk, tv = torch.cat([tk, cls_k], 3), torch.cat([tv, cls_v], 3)
        tk, tv = tk.flatten(0, 1), tv.flatten(0, 1)
        if cls_qkv is not None and policy == "replicated":  # a separate call is cheaper than copying all queries
            cls_groups = softmax_attention(cls_q.flatten(0, 1), tk, tv, None, backend)
            cls_groups = cls_groups.unflatten(0, (-1, tile.num_groups))  # b g k s e
            if group_weights is not None:
                cls_groups = cls_groups * _weights_of(group_weights, tile)[:, :, None, None, None]
            part = cls_groups.sum(1).transpose(1, 2)
            cls_sum = part if cls_sum is None else cls_sum + part
        if class_only:
            continue
        result = softmax_attention(tq.flatten(0, 1), tk, tv, None, backend).unflatten(0, (-1, tile.num_groups))
        if out is None and several:
            parts.append(result.transpose(2, 3).flatten(1, 2))  # b gs k e
        elif out is None:
            patches = _ungroup(result, tile)
        else:
            view = _tile_view(out, tile)
            view.copy_(_split_groups(result, tile))
            patches = out
    if parts:  # where torch exports, writing into views would fix the number of clips
        token = torch.arange(grid[0] * grid[1] * grid[2], device=q.device).view(1, *grid, 1, 1)
        order = torch.cat([_groups(token, tile).flatten() for tile in tiles]).argsort()
        patches = torch.cat(parts, 1).index_select(1, order).unflatten(1, grid)
    if cls_qkv is not None and policy == "replicated":
        assert cls_sum is not None
        counts = over.counts(grid)
        cls = cls_sum / (counts[0] * counts[1] * counts[2])
    elif cls_qkv is not None:
        k, v = (x.flatten(1, 3).transpose(1, 2) for x in (k, v))
        cls = _global_class(k, v, cls_qkv, backend)
    return patches, cls


def _by_head(cls_qkv: Tensor) -> Tensor:
    """(b, s, 3, k, e) -> (b, 3, k, s, e)."""
    return cls_qkv.permute(0, 2, 3, 1, 4)


def _expand(cls_qkv: Tensor, groups: int) -> Iterator[Tensor]:
    """q, k and v of class token and registers, repeated for each group: three tensors (b, g, k, s, e)."""
    return iter(_by_head(cls_qkv)[:, :, None].expand(-1, -1, groups, -1, -1, -1).unbind(1))


def _weights_of(weights: Tensor, tile: Tile) -> Tensor:
    """Weights of a tile's groups, (b, g)."""
    ranges = [slice(axis.first, axis.first + axis.count) for axis in tile.axes]
    return weights[:, ranges[0], ranges[1], ranges[2]].flatten(1)


def _tile_view(x: Tensor, tile: Tile) -> Tensor:
    """View of the tile's tokens in (b, t, h, w, k, e), with shape (b, gt, st, gh, sh, gw, sw, k, e)."""
    for dim, axis in ((1, tile.t), (3, tile.h), (5, tile.w)):
        x = _axis_view(x, dim, axis)
    return x


def _axis_view(x: Tensor, dim: int, axis: AxisTile) -> Tensor:
    """View of x with dimension `dim` split into (part, element)."""
    if axis.stride == 1:
        return x.narrow(dim, axis.start, axis.count * axis.size).unflatten(dim, (axis.count, axis.size))
    if axis.count == axis.stride:  # the parts interleave without a gap
        return (
            x.narrow(dim, axis.start, axis.size * axis.stride).unflatten(dim, (axis.size, -1)).transpose(dim, dim + 1)
        )
    span = (axis.size - 1) * axis.stride + axis.count
    return x.narrow(dim, axis.start, span).unfold(dim, axis.count, axis.stride).movedim(-1, dim)


def _groups(x: Tensor, tile: Tile) -> Tensor:
    """Gather the tile's groups: (b, t, h, w, k, e) -> (b, g, k, s, e)."""
    return _tile_view(x, tile).permute(0, 1, 3, 5, 7, 2, 4, 6, 8).flatten(5, 7).flatten(1, 3)


def _split_groups(x: Tensor, tile: Tile) -> Tensor:
    """Split groups and their tokens by axis: (b, g, k, s, e) -> (b, gt, st, gh, sh, gw, sw, k, e)."""
    x = x.unflatten(3, (tile.t.size, tile.h.size, tile.w.size)).unflatten(1, (tile.t.count, tile.h.count, tile.w.count))
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4, 8)


def _ungroup(x: Tensor, tile: Tile) -> Tensor:
    """Inverse of `_groups` for a tile that covers the whole grid."""
    x = _split_groups(x, tile)
    for dim, axis in ((5, tile.w), (3, tile.h), (1, tile.t)):
        x = (x.transpose(dim, dim + 1) if axis.stride > 1 else x).flatten(dim, dim + 1)
    return x
