"""Flax checkpoints: msgpack files of nested tables of arrays, and the names of the Transformer in them.

Arrays are msgpack extensions: type 1, an array as (shape, name of the type, bytes); type 3, a number in the same way;
type 2, a complex number.  Arrays above 1 GiB are cut into `__msgpack_chunked_array__` tables.  Nothing in such a file
is code.
"""

import math
from pathlib import Path
from typing import Any

import msgpack
import torch
from torch import Tensor

from timesformer.checkpoints.rules import Rule, depth_of, flat, plain, without_batch
from timesformer.checkpoints.source import Raw
from timesformer.errors import InputError

ARRAY, COMPLEX, NUMBER = 1, 2, 3
CHUNKED = "__msgpack_chunked_array__"
TYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint64": torch.uint64,
    "uint32": torch.uint32,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
# Parts of a block: names today, and those of checkpoints from before flax.linen (the ViT authors' .npz).
PARTS = ("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
OLD_PARTS = ("LayerNorm_0", "MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")


def is_flax(path: Path) -> bool:
    """True if a file, or the one file `checkpoint…` or `….msgpack` of a folder, begins as a table of named values."""
    file = _file(path)
    if file is None:
        return False
    with file.open("rb") as opened:
        head = opened.read(512)
    unpacker = msgpack.Unpacker(raw=False)
    unpacker.feed(head)
    try:
        return unpacker.read_map_header() > 0 and str.isidentifier(unpacker.unpack())
    except (ValueError, TypeError, msgpack.UnpackException):
        return False


def read_flax(path: Path) -> Raw:
    """The arrays of a flax checkpoint, by their path in its tables joined by dots; other values as metadata.

    Raises:
        InputError: no such file, or one that is damaged or holds something else.
    """
    file = _file(path)
    if file is None:
        raise InputError(f"{path}: expected a flax checkpoint, a file or a folder with one file named checkpoint…")
    try:
        tree = msgpack.unpackb(file.read_bytes(), ext_hook=_extension, raw=False)
    except (ValueError, TypeError, KeyError, RuntimeError, msgpack.UnpackException) as error:
        raise InputError(f"{file}: not a readable flax checkpoint ({str(error) or type(error).__name__})") from error
    if not isinstance(tree, dict):
        raise InputError(f"{file}: expected a table of named values, got {type(tree).__name__}")
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, Any] = {}
    try:
        _flatten(tree, "", tensors, metadata)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise InputError(f"{file}: damaged array table ({str(error) or type(error).__name__})") from error
    if not tensors:
        raise InputError(f"{file}: no arrays in it")
    return Raw(path, None, tensors, metadata)


def _file(path: Path) -> Path | None:
    if not path.is_dir():
        return path if path.is_file() else None
    found = [file for pattern in ("checkpoint*", "*.msgpack") for file in path.glob(pattern) if file.is_file()]
    return found[0] if len(found) == 1 else None


def _extension(code: int, data: bytes) -> object:
    if code == COMPLEX:
        return complex(*msgpack.unpackb(data))
    if code not in (ARRAY, NUMBER):
        raise ValueError(f"extension type {code}; expected {ARRAY}, {COMPLEX} or {NUMBER}")
    shape, kind, buffer = msgpack.unpackb(data, raw=True)
    name = kind.decode()
    if name not in TYPES:
        raise ValueError(f"an array of {name!r}; expected one of {', '.join(TYPES)}")
    size = math.prod(shape)
    if size * TYPES[name].itemsize != len(buffer):
        raise ValueError(f"an array of shape {tuple(shape)} and type {name} with {len(buffer)} bytes")
    flattened = torch.frombuffer(bytearray(buffer), dtype=TYPES[name]) if size else torch.empty(0, dtype=TYPES[name])
    return flattened.reshape(tuple(shape))


def _flatten(tree: dict[Any, Any], prefix: str, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and CHUNKED in value:
            value = _joined(value)
        if isinstance(value, Tensor) and value.ndim:
            tensors[name] = value
        elif isinstance(value, dict):
            _flatten(value, f"{name}.", tensors, metadata)
        else:
            metadata[name] = value.item() if isinstance(value, Tensor) else value


def _joined(table: dict[str, Any]) -> Tensor:
    """A chunked array; shape and chunks are tables from "0", "1", …"""
    shape, chunks = ([table[part][str(i)] for i in range(len(table[part]))] for part in ("shape", "chunks"))
    return torch.cat(chunks).reshape(shape)


def kernel(value: Tensor) -> Tensor:
    """A dense kernel (in, out) as a weight (out, in)."""
    return value.T


def heads_in(*values: Tensor) -> Tensor:
    """Kernels (d, k, e) of q, k and v as one weight (3 k e, d)."""
    return torch.cat([value.flatten(1).T for value in values])


def head_biases(*values: Tensor) -> Tensor:
    """Biases (k, e) of q, k and v as one (3 k e)."""
    return torch.cat([value.flatten() for value in values])


def heads_out(value: Tensor) -> Tensor:
    """The kernel (k, e, d) after attention as a weight (d, k e)."""
    return value.flatten(0, 1).T


def filters(value: Tensor) -> Tensor:
    """A convolution's kernel ([u,] p, p, c, d) as a weight (d, c u p p)."""
    return value.movedim((-1, -2), (0, 1)).flatten(1)


def encoder_rules(raw: Raw, stored: str, ours: str, step: str, sep: str = ".") -> list[Rule]:
    """Rules of one Transformer, `stored` (its path, with the separator at its end), as our encoder `ours`: positions,
    blocks and last norm."""
    kind = "space" if step == "space" else "table"
    rules = [Rule(f"{ours}.positions.{kind}", (f"{stored}posembed_input{sep}pos_embedding",), without_batch)]
    for number in range(depth_of(raw, f"{stored}encoderblock_", sep)):
        block, mine = f"{stored}encoderblock_{number}{sep}", f"{ours}.blocks.{number}"
        old = any(name.startswith(f"{block}{OLD_PARTS[3]}{sep}") for name in raw.tensors)
        norm1, attention, norm2, mlp = (f"{block}{part}{sep}" for part in (OLD_PARTS if old else PARTS))
        qkv = [f"{attention}{part}{sep}" for part in ("query", "key", "value")]
        rules += [
            *norm_rules(f"{mine}.steps.{step}.norm", norm1),
            Rule(f"{mine}.steps.{step}.qkv.weight", tuple(f"{part}kernel" for part in qkv), heads_in),
            Rule(f"{mine}.steps.{step}.qkv.bias", tuple(f"{part}bias" for part in qkv), head_biases),
            Rule(f"{mine}.steps.{step}.proj.weight", (f"{attention}out{sep}kernel",), heads_out),
            Rule(f"{mine}.steps.{step}.proj.bias", (f"{attention}out{sep}bias",), plain),
            *norm_rules(f"{mine}.mlp.norm", norm2),
            *dense_rules(f"{mine}.mlp.fc1", f"{mlp}Dense_0{sep}"),
            *dense_rules(f"{mine}.mlp.fc2", f"{mlp}Dense_1{sep}"),
        ]
    return [*rules, *norm_rules(f"{ours}.norm", f"{stored}encoder_norm{sep}")]


def norm_rules(ours: str, stored: str) -> tuple[Rule, Rule]:
    return Rule(f"{ours}.weight", (f"{stored}scale",), plain), Rule(f"{ours}.bias", (f"{stored}bias",), plain)


def dense_rules(ours: str, stored: str) -> tuple[Rule, Rule]:
    return Rule(f"{ours}.weight", (f"{stored}kernel",), kernel), Rule(f"{ours}.bias", (f"{stored}bias",), plain)


def embedding_rules(stored: str) -> tuple[Rule, Rule]:
    """Patch or tubelet embedding."""
    return (
        Rule("patch_embed.proj.weight", (f"{stored}kernel",), filters),
        Rule("patch_embed.proj.bias", (f"{stored}bias",), plain),
    )


def class_rule(ours: str, stored: str) -> Rule:
    return Rule(f"{ours}.cls_token", (stored,), flat)


def dimensions(raw: Raw, stored: str, sep: str = ".") -> tuple[int, int, int]:
    """Width, heads and hidden width of the MLP, from the first block of a Transformer.  Raises InputError where its
    tensors have other numbers of axes."""
    found = {}
    for end, axes in ((f"query{sep}kernel", 3), (f"Dense_0{sep}kernel", 2)):
        name = next(
            name for name in raw.tensors if name.startswith(f"{stored}encoderblock_0{sep}") and name.endswith(end)
        )
        shape = tuple(raw.tensors[name].shape)
        if len(shape) != axes:
            raise InputError(f"{raw.path}: {name}: expected {axes} axes, got shape {shape}")
        found[axes] = shape
    return found[3][0], found[3][1], found[2][1]
