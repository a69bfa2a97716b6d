"""Flax checkpoints as scenic and the ViT's authors store them, and what such models compute, written out in numpy.

Nothing here uses the package: names, nesting and encoding are those of the files, the arithmetic is that of the paper.
"""

import math
from typing import Any

import msgpack
import numpy as np

Tree = dict[str, Any]
Array = np.ndarray


def pack(tree: Tree) -> bytes:
    """flax.serialization: arrays are msgpack extensions of type 1, numpy's numbers of type 3."""

    def default(value: object) -> msgpack.ExtType:
        assert isinstance(value, np.ndarray | np.generic)
        array = np.asarray(value)
        body = msgpack.packb((array.shape, array.dtype.name, array.tobytes("C")), use_bin_type=True)
        return msgpack.ExtType(1 if isinstance(value, np.ndarray) else 3, body)

    return msgpack.packb(tree, default=default, strict_types=True)


def chunked(array: Array, size: int) -> Tree:
    """How flax cuts an array that is too large for msgpack."""
    flat = array.reshape(-1)
    pieces = [flat[i : i + size] for i in range(0, flat.size, size)]
    return {
        "__msgpack_chunked_array__": True,
        "shape": {str(i): n for i, n in enumerate(array.shape)},
        "chunks": {str(i): piece for i, piece in enumerate(pieces)},
    }


class Maker:
    """Random parameters of a ViT of width d with k heads."""

    def __init__(self, d: int = 16, k: int = 2, hidden: int = 24, old_names: bool = False) -> None:
        self.d, self.k, self.hidden, self.old = d, k, hidden, old_names
        self.rng = np.random.default_rng(0)

    def random(self, *shape: int, scale: float = 0.3) -> Array:
        return self.rng.normal(scale=scale, size=shape).astype(np.float32)

    def norm(self) -> Tree:
        return {"scale": 1 + self.random(self.d), "bias": self.random(self.d)}

    def dense(self, n: int, m: int) -> Tree:
        return {"kernel": self.random(n, m), "bias": self.random(m)}

    def block(self) -> Tree:
        d, k, e = self.d, self.k, self.d // self.k
        projections = {
            n: {"kernel": self.random(d, k, e), "bias": self.random(k, e)} for n in ("query", "key", "value")
        }
        attention = {**projections, "out": {"kernel": self.random(k, e, d), "bias": self.random(d)}}
        parts = [self.norm(), attention, self.norm()]
        parts.append({"Dense_0": self.dense(d, self.hidden), "Dense_1": self.dense(self.hidden, d)})
        numbers = (0, 1, 2, 3) if self.old else (0, 0, 1, 0)
        kinds = ("LayerNorm", "MultiHeadDotProductAttention", "LayerNorm", "MlpBlock")
        return {f"{kind}_{number}": part for kind, number, part in zip(kinds, numbers, parts, strict=True)}

    def transformer(self, tokens: int, depth: int) -> Tree:
        blocks = {f"encoderblock_{i}": self.block() for i in range(depth)}
        table = {"posembed_input": {"pos_embedding": self.random(1, tokens, self.d)}}
        return {**blocks, **table, "encoder_norm": self.norm()}

    def cls(self) -> Array:
        return self.random(1, 1, self.d)

    def embedding(self, *sizes: int) -> Tree:
        return {"kernel": self.random(*sizes, self.d), "bias": self.random(self.d)}


def unfactorised(classes: int = 5, frames: int = 32) -> Tree:
    """ViViT's model 1 for frames of 16 px in tubelets of 2 x 8 x 8."""
    make = Maker()
    return {
        "embedding": make.embedding(2, 8, 8, 3),
        "cls": make.cls(),
        "Transformer": make.transformer(frames // 2 * 4 + 1, depth=2),
        "output_projection": make.dense(make.d, classes),
    }


def factorised(classes: int = 5, frames: int = 6) -> Tree:
    """ViViT's model 2, with two blocks over space and one over time."""
    make = Maker()
    return {
        "embedding": make.embedding(2, 8, 8, 3),
        "cls_SpatialTransformer": make.cls(),
        "SpatialTransformer": make.transformer(5, depth=2),
        "cls_TemporalTransformer": make.cls(),
        "TemporalTransformer": make.transformer(frames // 2 + 1, depth=1),
        "output_projection": make.dense(make.d, classes),
    }


def image_model(head: str = "head", **options: Any) -> Tree:
    """A ViT for images of 16 px in patches of 8."""
    make = Maker(**options)
    return {
        "embedding": make.embedding(8, 8, 3),
        "cls": make.cls(),
        "Transformer": make.transformer(5, depth=2),
        head: make.dense(make.d, 5),
    }


def train_state(params: Tree) -> Tree:
    """scenic's state of training with flax.optim."""
    return {
        "global_step": np.int32(7),
        "optimizer": {
            "target": params,
            "state": {"step": np.int32(7), "param_states": {"cls": {"momentum": np.ones(3)}}},
        },
        "model_state": {},
        "rng": np.array([1, 2], dtype=np.uint32),
        "accum_train_time": 3.5,
    }


def flattened(tree: Tree, sep: str = "/", prefix: str = "") -> dict[str, Array]:
    found: dict[str, Array] = {}
    for key, value in tree.items():
        found |= flattened(value, sep, f"{prefix}{key}{sep}") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _norm(x: Array, p: Tree) -> Array:
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _attention(x: Array, p: Tree) -> Array:
    out = np.zeros_like(x)
    for head in range(p["query"]["kernel"].shape[1]):
        q, k, v = (x @ p[n]["kernel"][:, head] + p[n]["bias"][head] for n in ("query", "key", "value"))
        scores = np.exp(q @ k.T / math.sqrt(q.shape[1]))
        out += scores / scores.sum(1, keepdims=True) @ v @ p["out"]["kernel"][head]
    return out + p["out"]["bias"]


def _transformer(x: Array, p: Tree) -> Array:
    x = x + p["posembed_input"]["pos_embedding"][0]
    for number in range(sum(name.startswith("encoderblock") for name in p)):
        norm1, norm2, attention, mlp = (part for _, part in sorted(p[f"encoderblock_{number}"].items(), key=_order))
        x = x + _attention(_norm(x, norm1), attention)
        hidden = _gelu(_norm(x, norm2) @ mlp["Dense_0"]["kernel"] + mlp["Dense_0"]["bias"])
        x = x + hidden @ mlp["Dense_1"]["kernel"] + mlp["Dense_1"]["bias"]
    return _norm(x, p["encoder_norm"])


def _order(item: tuple[str, Tree]) -> tuple[int, str]:
    return ("LayerNorm", "MultiHeadDotProductAttention", "MlpBlock").index(item[0].split("_")[0]), item[0]


def _embed(clip: Array, p: Tree) -> Array:
    """(frames, height, width, 3) -> (t, h * w, d)."""
    kernel = p["kernel"] if p["kernel"].ndim == 5 else p["kernel"][None]
    u, s = kernel.shape[:2]
    t, h, w = clip.shape[0] // u, clip.shape[1] // s, clip.shape[2] // s
    cut = clip.reshape(t, u, h, s, w, s, 3).transpose(0, 2, 4, 1, 3, 5, 6)
    return np.einsum("thwuijc,uijcd->thwd", cut, kernel).reshape(t, h * w, -1) + p["bias"]


def _with(cls: Array, tokens: Array) -> Array:
    return np.concatenate([cls.reshape(1, -1), tokens])


def logits(params: Tree, clip: Array) -> Array:
    """What any of the models above computes from a clip (frames, height, width, 3), in float64."""
    p = _double(params)
    tokens = _embed(clip.astype(np.float64), p["embedding"])
    if "cls" in p:
        x = _transformer(_with(p["cls"], tokens.reshape(-1, tokens.shape[-1])), p["Transformer"])[0]
    else:
        frames = [_transformer(_with(p["cls_SpatialTransformer"], x), p["SpatialTransformer"])[0] for x in tokens]
        x = _transformer(_with(p["cls_TemporalTransformer"], np.stack(frames)), p["TemporalTransformer"])[0]
    head = p["output_projection"] if "output_projection" in p else p["head"]
    return x @ head["kernel"] + head["bias"]


def _double(tree: Tree) -> Tree:
    return {key: _double(value) if isinstance(value, dict) else value.astype(np.float64) for key, value in tree.items()}
