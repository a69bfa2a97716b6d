"""Decoded videos of the probes of who must meet whom, as patches."""

import csv
from pathlib import Path

import av
import numpy as np

from timesformer.data import read_kinetics_csv
from timesformer.data.cache import decode
from timesformer.data.probes import ProbeInfo

Array = np.ndarray


def rows_of(info: ProbeInfo, split: str = "test") -> list[dict[str, str]]:
    with open(info.folder / split / "clips.csv", newline="") as file:
        return list(csv.DictReader(file))


def clips_of(info: ProbeInfo, split: str = "test") -> tuple[list[Array], Array]:
    """Decoded clips (t, 3, H, W) and their labels."""
    samples = read_kinetics_csv(getattr(info, f"{split}_csv"), num_classes=len(info.labels))
    return [decode(sample.path).pixels for sample in samples], np.array([sample.label for sample in samples])


def patches_of(clip: Array) -> Array:
    """(t, rows, columns, 3 · 8 · 8) as signed numbers."""
    t, _, height, width = clip.shape
    cut = clip.reshape(t, 3, height // 8, 8, width // 8, 8).transpose(0, 2, 4, 1, 3, 5)
    return cut.reshape(t, height // 8, width // 8, -1).astype(int)


def brightness_of(path: Path) -> Array:
    """The stored brightness (t, H, W)."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray()[: frame.height] for frame in container.decode(video=0)]).astype(int)


def patterns_of(path: Path) -> Array:
    """The stored brightness of patches (t, rows, columns, 8 · 8)."""
    light = brightness_of(path)
    t, height, width = light.shape
    return light.reshape(t, height // 8, 8, width // 8, 8).transpose(0, 1, 3, 2, 4).reshape(t, height // 8, -1, 64)


def apart(one: Array, other: Array) -> float:
    return float(np.abs(one - other).mean())


def shifted(before: Array, after: Array, down: int, right: int) -> float:
    """How much the second field of patches differs from the first, moved, where they overlap."""
    rows, columns = before.shape[:2]
    places = [(y, x) for y in range(rows) for x in range(columns) if 0 <= y + down < rows and 0 <= x + right < columns]
    return float(np.mean([apart(before[y, x], after[y + down, x + right]) for y, x in places]))


def hues_of(clip: Array) -> Array:
    """Red over blue of each patch (t, rows, columns)."""
    found = patches_of(clip).reshape(*patches_of(clip).shape[:3], 3, 64).mean(axis=-1)
    hue: Array = found[..., 0] - found[..., 2]
    return hue
