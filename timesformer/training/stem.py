"""Tokens after frozen blocks, computed once for each clip and kept in a file, so that a step costs what is trained.

The file is a numpy array (clips, views, t, rows, d) in float32, which is mapped and not read as a whole.  Beside it
lies what it was made of: the stem's blocks and weights, the videos and how clips are made of them.  A training clip has
as many views as the dataset has copies.
"""

import hashlib
import inspect
import json
import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.utils.data import BatchSampler, SequentialSampler

from timesformer.attention.partition import EACH, Partition
from timesformer.config.schedule import by_depth
from timesformer.config.transformer import TimeSformerConfig
from timesformer.data import Unreadable, VideoDataset, collate
from timesformer.data.dataset import Key
from timesformer.data.loading import batches
from timesformer.errors import InputError
from timesformer.files import write_atomic
from timesformer.progress import OnStep, step_bar
from timesformer.training.freezing import frozen_names, stem_blocks
from timesformer.training.recipe import Recipe

AFTER_THE_STEM = (
    "attention", "schedule", "num_classes", "depth", "temporal_depth", "pool", "pooler_depth", "fc_norm", "fc_norm_eps",
    "drop_rate", "drop_path_rate", "temporal_fc", "cls_policy", "position", "position_std", "time_std", "time_from",
    "init_std", "qk_init", "tubelet_init", "backend",
)  # fmt: skip
"""Fields of a configuration that a stem does not have, or that its blocks and weights say."""


class StemTokens(VideoDataset):
    """Dataset of tokens after the stem of a model, in the place of the clips of another dataset.

    Samples are those of `dataset` with clip (t, rows, d), or (views, t, rows, d) at test time.
    """

    def __init__(self, dataset: VideoDataset, tokens: np.ndarray, kept: dict[str, Any]) -> None:
        self.__dict__.update(dataset.__dict__)
        self.tokens = tokens
        self.missing, self.wide = kept["unreadable"], set(kept["enlarged"])

    def __getitem__(self, key: Key) -> dict[str, Any] | Unreadable:
        epoch, index = (0, key) if isinstance(key, int) else key
        view = epoch % self.copies if self.copies is not None else 0
        path = self.samples[index].place
        if path in self.missing:
            reason = self.unreadable[path] = self.missing[path]
            return Unreadable(path, reason, index)
        found = self.tokens[index, view] if self.train else self.tokens[index]
        item = {"clip": torch.from_numpy(np.array(found)), "label": self.samples[index].label, "index": index}
        return item | ({"enlarged": True} if index in self.wide else {})

    def __getitems__(self, keys: Sequence[Key]) -> dict[str, Any]:
        return collate([self[key] for key in keys])


def blocks_of_stem(model: nn.Module, recipe: Recipe) -> int:
    """Return the number of blocks that every clip goes through unchanged while a recipe trains the model.

    Raises:
        InputError: it freezes no whole blocks from the first on, or the model has no tokens.
    """
    config = getattr(model, "config", None)
    if not isinstance(config, TimeSformerConfig):
        raise InputError(f"cache_stem: expected a video transformer, got {type(model).__name__}")
    layers: Any = model
    found = stem_blocks(layers.layers(), frozen_names(model, recipe.freeze))
    if not found:
        raise InputError("cache_stem: expected freeze to hold the embedding and the first block or more")
    return min(found, config.depth)


def sees_frames_apart(config: TimeSformerConfig, blocks: int) -> bool:
    """Return True if the stem treats every frame alike, wherever it stands, so that frames can be rearranged after it.

    A class token of the whole clip, a mean over the frames, does not depend on their order.
    """
    if config.tubelet_size > 1 or not (config.resolved_position in ("none", "space") or config.time_from >= blocks):
        return False
    encoder = config.scheme.encoders[0]
    if encoder.class_tokens == "frame":
        return True
    steps = [step for number in range(blocks) for step in encoder.at(number).steps]
    return all(isinstance(over, Partition) and over.t == EACH for step in steps for over in step.over)


def tokens_of(
    model: nn.Module,
    dataset: VideoDataset,
    blocks: int,
    folder: Path,
    *,
    videos: str,
    batch_size: int = 16,
    precision: str = "fp32",
    workers: int = 0,
    progress: bool | OnStep = False,
) -> StemTokens:
    """Return the dataset with the tokens after the first blocks in the place of clips, from `folder` if they are there.

    videos: fingerprint of the dataset's files.  Two processes that need the same tokens compute them once.

    Raises:
        InputError: a training set without a number of copies, or a test set whose number of views depends on the video.
    """
    if dataset.train and dataset.copies is None:
        raise InputError("cache_stem: expected data.copies, the number of random clips that are made of each video")
    if not dataset.train and dataset.views.per_video is None:
        raise InputError("cache_stem: expected a protocol with a number of views, not clips that cover the video")
    made_of = _made_of(model, dataset, blocks, videos, precision)
    name = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:24]
    array, kept = folder / f"{name}.npy", folder / f"{name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        if not kept.is_file():
            found: dict[str, Any] = {}
            write_atomic(
                array,
                lambda path: found.update(
                    _compute(model, dataset, blocks, path, batch_size, precision, workers, progress)
                ),
            )
            write_atomic(kept, json.dumps({"made_of": made_of, **found}) + "\n")
    return StemTokens(dataset, np.load(array, mmap_mode="r"), json.loads(kept.read_text()))


@torch.inference_mode()
def _compute(
    model: nn.Module,
    dataset: VideoDataset,
    blocks: int,
    path: Path,
    batch_size: int,
    precision: str,
    workers: int,
    progress: bool | OnStep,
) -> dict[str, Any]:
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    was_training, transformer = model.training, _on(model, place)
    rounds = dataset.copies or 1 if dataset.train else 1
    out: np.memmap | None = None
    unreadable: dict[str, str] = {}
    enlarged: set[int] = set()
    each = max(1, batch_size // (1 if dataset.train else dataset.views.per_video or 1))
    with step_bar("tokens of the frozen blocks", progress) as on_step:
        for copy in range(rounds):
            keys = _Keys(len(dataset), each, copy)
            for number, batch in enumerate(batches(dataset, keys, collate, workers), start=1):
                unreadable |= dict(batch["unreadable"])
                enlarged |= set(batch.get("enlarged", ()))
                if len(batch["label"]):
                    clip = batch["clip"] if dataset.train else batch["clip"].flatten(0, 1)
                    found = _tokens(transformer, clip.to(place), blocks, precision)
                    found = found if dataset.train else found.unflatten(0, (len(batch["label"]), -1))
                    if out is None:
                        views = rounds if dataset.train else found.shape[1]
                        shape = (len(dataset), views, *found.shape[1 if dataset.train else 2 :])
                        out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
                    rows = batch["index"].numpy()
                    if dataset.train:
                        out[rows, copy] = found.numpy()
                    else:
                        out[rows] = found.numpy()
                on_step(copy * len(keys) + number, rounds * len(keys), math.nan)
    model.train(was_training)
    if out is None:
        raise InputError(f"dataset: none of its {len(dataset)} videos can be read")
    out.flush()
    return {"unreadable": unreadable, "enlarged": sorted(enlarged)}


class _Keys(BatchSampler):
    """Keys of the samples of one copy, in their order."""

    def __init__(self, samples: int, together: int, copy: int) -> None:
        super().__init__(SequentialSampler(range(samples)), together, drop_last=False)
        self.copy = copy

    def __iter__(self) -> Any:
        return ([(self.copy, index) for index in batch] for batch in super().__iter__())


def _on(model: nn.Module, place: torch.device) -> Any:
    return model.to(place).eval()


def _tokens(model: Any, clip: Tensor, blocks: int, precision: str) -> Tensor:
    with torch.autocast(clip.device.type, torch.bfloat16, enabled=precision == "bf16"):
        found: Tensor = model.stem(clip, blocks)
    return found.float().cpu()


def _made_of(model: nn.Module, dataset: VideoDataset, blocks: int, videos: str, precision: str) -> dict[str, Any]:
    """Return what decides the tokens, as plain data."""
    config: Any = model.config
    encoder, whole = config.scheme.encoders[0], config.to_dict()
    time = config.resolved_position == "space_time" and config.time_from < blocks
    # The positions in time count where the stem has them.
    frozen = {name for layer in _layers(model)[: blocks + 1] for name in layer if time or ".positions.time" not in name}
    weights = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if name in frozen:
            weights.update(name.encode() + parameter.detach().cpu().contiguous().numpy().tobytes())
    clips: dict[str, Any] = {"copies": dataset.copies, "jitter": dataset.jitter, "flip": dataset.flip}
    if dataset.augment is not None:
        clips["augment"] = dataset.augment.to_dict()
    views = dataset.views
    return {
        "blocks": [_described(config, number) for number in range(blocks)],
        "class_tokens": encoder.class_tokens,
        "position": "space" if config.resolved_position == "space_time" and not time else config.resolved_position,
        "model": {name: value for name, value in whole.items() if name not in AFTER_THE_STEM},
        "weights": weights.hexdigest(),
        "videos": videos,
        "samples": [[sample.name, sample.start_frame, sample.end_frame] for sample in dataset.samples],
        "preprocessing": dataset.preprocessing.to_dict(),
        "stills": dataset.stills,
        "clips": clips if dataset.train else [views.clips, views.crops, views.start, views.rule],
        "precision": precision,
    }


def _layers(model: nn.Module) -> list[list[str]]:
    told: Any = model
    found: list[list[str]] = told.layers()
    return found


def _described(config: TimeSformerConfig, number: int) -> list[str]:
    """Return a block as text: its steps if they are over partitions, whatever the scheme, else with the scheme's name.

    Other steps hold rules and functions; of functions the files stand for what they compute.
    """
    block = config.scheme.encoders[0].at(number).block
    steps = [step for stage in block for step in stage]
    others = [over for step in steps for over in step.over if not isinstance(over, Partition)]
    if not others:
        return [repr(block)]
    name = config.attention
    if config.schedule is not None:
        name = by_depth(config.schedule, config.attention, config.depth)[number]
    plain = [[(step.name, step.cls, step.extra_linear, step.qkv_from) for step in stage] for stage in block]
    return [name, repr(plain), *(_code(over) for over in others)]


def _code(over: Any) -> str:
    """Return a digest of what a step is over: its values, and the files of its classes and functions."""
    return hashlib.sha256(repr(_parts(over)).encode()).hexdigest()


def _parts(value: Any) -> Any:
    """Return a value as text and lists, the same in every process: rules inside rules, functions inside both."""
    if isinstance(value, list | tuple):
        return [_parts(each) for each in value]
    if inspect.isfunction(value):
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        return [value.__qualname__, _digest_of(value), *(_parts(each) for each in held)]
    if is_dataclass(value) and not isinstance(value, type):
        own = {each.name: getattr(value, each.name) for each in fields(value) if each.compare}
    elif isinstance(value, bool | int | float | str | None):
        return repr(value)
    else:
        own = vars(value) if hasattr(value, "__dict__") else {}
    name = getattr(value, "__qualname__", "")
    return [type(value).__qualname__, name, _digest_of(type(value)), *([key, _parts(own[key])] for key in sorted(own))]


def _digest_of(code: Any) -> str:
    """Return the digest of the file in which a class or function is written; empty for what is written in none."""
    parts = [code, *(part for part in vars(code).values() if inspect.isfunction(part))]
    file = None
    for part in parts:  # the class of a file of one's own is found by its functions alone
        try:
            file = file or inspect.getsourcefile(part)
        except TypeError:
            continue
    return "" if file is None or not Path(file).is_file() else hashlib.sha256(Path(file).read_bytes()).hexdigest()
