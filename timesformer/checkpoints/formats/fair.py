"""The released code's checkpoints (facebookresearch/TimeSformer, .pyth): `{epoch, model_state, optimizer_state, cfg}`.

Scheme, size, frames and classes come from the tensors; `cfg` (the text of a YAML file) adds what they do not show.
"""

from typing import Any

import yaml
from torch import Tensor

from timesformer.checkpoints.layout import Layout
from timesformer.checkpoints.rules import mlp_ratio, square_side
from timesformer.checkpoints.source import Format, Raw, Source
from timesformer.config.transformer import TimeSformerConfig
from timesformer.config.yaml_text import parse_yaml
from timesformer.errors import InputError

LICENCE = "CC-BY-NC-4.0"
HEAD_WIDTH = 64
NORM_EPS = 1e-6
DROP_PATH = 0.1
SCHEMES = {"space_only": "space", "joint_space_time": "joint", "divided_space_time": "divided"}

LAYOUT = Layout(
    blocks="blocks",
    top={
        "patch_embed.proj": "patch_embed.proj",
        "cls_token": "cls_token",
        "positions.space": "pos_embed",
        "positions.time": "time_embed",
        "norm": "norm",
        "head": "head",
    },
    block={
        "attention.norm": "norm1",
        "attention.qkv": "attn.qkv",
        "attention.proj": "attn.proj",
        "time.norm": "temporal_norm1",
        "time.qkv": "temporal_attn.qkv",
        "time.proj": "temporal_attn.proj",
        "time.fc": "temporal_fc",
        "mlp.norm": "norm2",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    },
)


def bare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefixes `module.` (of parallel training) and `model.` that all of them have."""
    for prefix in ("module.", "model."):
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _matches(raw: Raw) -> bool:
    """Key names of the released code; an image model has the same ones without its nesting and time embeddings."""
    tensors = bare(raw.tensors)
    needed = {"patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight"}
    if raw.config is not None or not needed <= set(tensors):
        return False
    video = any("temporal_" in name or name == "time_embed" for name in tensors)
    return (
        video
        or raw.metadata.get("container") == "model_state"
        or any(name.endswith("model.pos_embed") for name in raw.tensors)
    )


def _read(raw: Raw) -> Source:
    tensors, cfg = bare(raw.tensors), _cfg(raw)
    projection, positions = tensors["patch_embed.proj.weight"], tensors["pos_embed"]
    if projection.ndim != 4 or positions.ndim != 3:
        raise InputError(
            f"{raw.path}: patch_embed.proj.weight and pos_embed: expected 4 and 3 axes, "
            f"got {tuple(projection.shape)} and {tuple(positions.shape)}"
        )
    width, channels, patch = projection.shape[0], projection.shape[1], projection.shape[2]
    side = square_side(raw, "pos_embed", positions.shape[1] - 1)
    heads, whence = raw.heads_of(width, HEAD_WIDTH)
    scheme = _scheme(raw, tensors, cfg)
    assumed = ["num_heads"]
    if scheme != "space" and "time_embed" in tensors:
        frames = tensors["time_embed"].shape[1]
    else:
        frames = _section(cfg, "DATA").get("NUM_FRAMES", 8)
        assumed += [] if "NUM_FRAMES" in _section(cfg, "DATA") else ["num_frames"]
    notes = [f"num_heads {whence}"]
    if "num_frames" in assumed:
        notes.append(f"num_frames not in the file: {frames}, as the published models have")
    if scheme == "divided" and "blocks.0.temporal_attn.qkv.weight" not in tensors:
        notes.append("no temporal attention in the file: it starts from the spatial one, its extra linear from zero")
    classes = tensors["head.weight"].shape[0] if "head.weight" in tensors else None
    config = TimeSformerConfig(
        attention=scheme,
        num_frames=frames,
        image_size=side * patch,
        patch_size=patch,
        in_channels=channels,
        num_classes=classes or _section(cfg, "MODEL").get("NUM_CLASSES", 400),
        embed_dim=width,
        depth=1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")),
        num_heads=heads,
        mlp_ratio=mlp_ratio(tensors["blocks.0.mlp.fc1.weight"].shape[0], width),
        norm_eps=NORM_EPS,
        drop_path_rate=DROP_PATH,
    )
    unused = {}
    if scheme == "space" and "time_embed" in tensors:
        unused["time_embed"] = "space-only attention adds no positions in time"
    return Source(
        format=FORMAT.name,
        config=config,
        tensors=LAYOUT.read(raw, {key: value for key, value in tensors.items() if key not in unused}, config, "FAIR"),
        preprocessing=_preprocessing(cfg, config),
        provenance={key: value for key, value in raw.metadata.items() if key == "epoch"} | {"licence": LICENCE},
        unused=unused,
        assumed=tuple(assumed),
        notes=tuple(notes),
    )


def _scheme(raw: Raw, tensors: dict[str, Tensor], cfg: dict[str, Any]) -> str:
    """From the tensors; where they hold no temporal attention, from `cfg` if there is one."""
    stated = _section(cfg, "TIMESFORMER").get("ATTENTION_TYPE")
    if stated is not None and stated not in SCHEMES:
        raise InputError(
            f"{raw.path}: cfg: TIMESFORMER.ATTENTION_TYPE: expected one of {tuple(SCHEMES)}, got {stated!r}"
        )
    if any(".temporal_" in name for name in tensors):
        if stated not in (None, "divided_space_time"):
            raise InputError(f"{raw.path}: cfg says {stated}, but there are weights of temporal attention")
        return "divided"
    return SCHEMES[stated] if stated is not None else "joint" if "time_embed" in tensors else "space"


def _cfg(raw: Raw) -> dict[str, Any]:
    text = raw.metadata.get("cfg")
    if text is None:
        return {}
    try:
        values = parse_yaml(text, f"{raw.path}: cfg")
    except yaml.YAMLError as error:
        raise InputError(f"{raw.path}: cfg: not valid YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(values, dict):
        raise InputError(f"{raw.path}: cfg: expected sections of fields, got {type(values).__name__}")
    return values


def _section(cfg: dict[str, Any], name: str) -> dict[str, Any]:
    section = cfg.get(name)
    return section if isinstance(section, dict) else {}


def _preprocessing(cfg: dict[str, Any], config: TimeSformerConfig) -> dict[str, Any] | None:
    """Preprocessing of the released code for this cfg: Something-Something by segments and in BGR (it reads those
    frames with OpenCV), other datasets by strides and in RGB."""
    data, dataset = _section(cfg, "DATA"), str(_section(cfg, "TRAIN").get("DATASET", "")).lower()
    if not dataset or "SAMPLING_RATE" not in data:
        return None
    segments = dataset.startswith(("ssv2", "something"))
    record: dict[str, Any] = {
        "mean": list(data.get("MEAN", [0.45] * 3)),
        "std": list(data.get("STD", [0.225] * 3)),
        "colour_order": "BGR" if segments else "RGB",
        "interpolation": "bilinear",
        "num_frames": config.num_frames,
        "short_side": data.get("TEST_CROP_SIZE", config.height_width[0]),
        "crop": config.height_width[0],
        "sampling": "uniform" if segments else "dense",
    }
    return record if segments else record | {"frame_rate": data["SAMPLING_RATE"]}


FORMAT = Format("FAIR TimeSformer", _matches, _read)
