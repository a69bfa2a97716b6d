"""scenic's released ViViT checkpoints (google-research/scenic, projects/vivit): flax, unfactorised and factorised
encoder, for Kinetics-400, Kinetics-600 and Epic-Kitchens.

The state of training is one table; the weights lie under `optimizer.target` (flax.optim) or `params` (optax).  In the
factorised encoder both Transformers have a last norm, a table of positions and a class token of their own, as here.
flax.linen.LayerNorm has eps 1e-6, flax.linen.gelu is the approximation with tanh.
"""

from timesformer.checkpoints.formats.flax import (
    class_rule,
    dense_rules,
    dimensions,
    embedding_rules,
    encoder_rules,
)
from timesformer.checkpoints.rules import (
    Rule,
    convert,
    depth_of,
    explain,
    mlp_ratio,
    square_side,
    stored_shape,
)
from timesformer.checkpoints.source import Format, Raw, Source
from timesformer.config.transformer import TimeSformerConfig
from timesformer.errors import InputError

ROOTS = ("optimizer.target.params.", "optimizer.target.", "params.params.", "params.", "target.", "")
TRAINING_STATE = (
    "optimizer.state.",
    "opt_state.",
    "model_state.",
    "rng",
    "metadata.",
    "accum_train_time",
    "global_step",
)
FRAMES, SIZE = 32, 224  # of all released models; the unfactorised one's table of positions does not tell t from h and w
NOUNS, VERBS = 300, 97  # Epic-Kitchens: one projection, nouns first


def weights_root(raw: Raw) -> str | None:
    """Where in the tables the weights lie; None where no Transformer is there."""
    return next((root for root in ROOTS if f"{root}embedding.kernel" in raw.tensors), None)


def training_state(raw: Raw, root: str) -> dict[str, str]:
    """Tensors beside the weights that belong to training, with the reason to leave them out."""
    names = [name for name in raw.tensors if name.startswith(TRAINING_STATE) and not (root and name.startswith(root))]
    return dict.fromkeys(names, "state of the optimiser and of training")


def _matches(raw: Raw) -> bool:
    root = weights_root(raw)
    if raw.config is not None or root is None:
        return False
    factorised = any(name.startswith(f"{root}SpatialTransformer.") for name in raw.tensors)
    return factorised or raw.tensors[f"{root}embedding.kernel"].ndim == 5


def _read(raw: Raw) -> Source:
    root = weights_root(raw)
    assert root is not None
    factorised = any(name.startswith(f"{root}SpatialTransformer.") for name in raw.tensors)
    unused = training_state(raw, root)
    body = f"{root}SpatialTransformer." if factorised else f"{root}Transformer."
    temporal = f"{root}TemporalTransformer."
    rules: list[Rule] = [*embedding_rules(f"{root}embedding.")]
    if factorised:
        rules += [class_rule("encoders.0", f"{root}cls_SpatialTransformer")]
        rules += encoder_rules(raw, body, "encoders.0", "space")
        rules += [class_rule("encoders.1", f"{root}cls_TemporalTransformer")]
        rules += encoder_rules(raw, temporal, "encoders.1", "time")
    else:
        rules += [class_rule("encoders.0", f"{root}cls"), *encoder_rules(raw, body, "encoders.0", "joint")]
    head = f"{root}output_projection."
    if f"{head}kernel" in raw.tensors:
        rules += dense_rules("head", head)
    explain(raw, rules, unused, FORMAT.name)
    if depth_of(raw, f"{body}encoderblock_") == 0:
        raise InputError(f"{raw.path}: {body}encoderblock_0 missing; a {FORMAT.name} checkpoint needs it")
    config, assumed, notes = _config(raw, root, body, temporal if factorised else None)
    tensors = convert(raw, rules, config)
    if config.num_classes == (VERBS, NOUNS):
        for name in ("head.weight", "head.bias"):
            tensors[name] = tensors[name].roll(VERBS, 0)  # verbs before nouns, as in our annotations
        notes.append(f"{NOUNS + VERBS} outputs: taken for Epic-Kitchens, nouns first; here the verbs come first")
    return Source(
        format=FORMAT.name,
        config=config,
        tensors=tensors,
        preprocessing=released_preprocessing(config),
        unused=unused,
        assumed=tuple(assumed),
        notes=tuple(notes),
        provenance={"licence": "Apache-2.0"},
        where=str(raw.path),
    )


def _config(raw: Raw, root: str, body: str, temporal: str | None) -> tuple[TimeSformerConfig, list[str], list[str]]:
    name = f"{root}embedding.kernel"
    u, height, patch, channels, _ = stored_shape(raw, name, 5)
    if height != patch:
        raise InputError(f"{raw.path}: {name}: expected square patches, got {height} x {patch}")
    width, heads, hidden = dimensions(raw, body)
    table = f"{body}posembed_input.pos_embedding"
    rows = stored_shape(raw, table, 3)[1] - 1
    assumed, notes = [], []
    if temporal is not None:
        t = stored_shape(raw, f"{temporal}posembed_input.pos_embedding", 3)[1] - 1
        side = square_side(raw, table, rows)
    else:
        t = _frames(rows, u, patch)
        side = square_side(raw, table, rows // t if rows % t == 0 else rows)
        assumed.append("num_frames")
        notes.append(f"num_frames not in the file: {t * u} of {side * patch} pixels fit its {rows} positions")
    kernel = f"{root}output_projection.kernel"
    classes: int | tuple[int, ...] = stored_shape(raw, kernel, 2)[1] if kernel in raw.tensors else 400
    if kernel not in raw.tensors:
        assumed.append("num_classes")
    if classes == NOUNS + VERBS:
        classes = (VERBS, NOUNS)
    config = TimeSformerConfig(
        attention="joint" if temporal is None else "factorised_encoder",
        position="table",
        num_frames=t * u,
        image_size=side * patch,
        patch_size=patch,
        tubelet_size=u,
        in_channels=channels,
        num_classes=classes,
        embed_dim=width,
        depth=depth_of(raw, f"{body}encoderblock_"),
        temporal_depth=4 if temporal is None else depth_of(raw, f"{temporal}encoderblock_"),
        num_heads=heads,
        mlp_ratio=mlp_ratio(hidden, width),
        activation="gelu_tanh",
        norm_eps=1e-6,
    )
    return config, assumed, notes


def _frames(rows: int, tubelet: int, patch: int) -> int:
    """Tokens in time of a table of `rows` positions: those of the released 32 frames, or else what 224 pixels leave."""
    frames, square = FRAMES // tubelet, (SIZE // patch) ** 2
    fits = rows % frames == 0 and round((rows // frames) ** 0.5) ** 2 == rows // frames
    return frames if fits or rows % square else rows // square


def released_preprocessing(config: TimeSformerConfig) -> dict[str, object]:
    """Preprocessing of the released configurations: pixels from -1 to 1, short side 256 for crops of 224, every second
    frame of Kinetics and every frame of Epic-Kitchens."""
    size = config.height_width[0]
    return {
        "num_frames": config.num_frames,
        "short_side": round(size * 256 / SIZE),
        "crop": size,
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        "value_range": [-1.0, 1.0],
        "colour_order": "RGB",
        "interpolation": "bilinear",
        "antialias": False,
        "sampling": "dense",
        "target_fps": 25.0,
        "frame_rate": 1 if isinstance(config.num_classes, tuple) else 2,
    }


FORMAT = Format("scenic ViViT", _matches, _read)
