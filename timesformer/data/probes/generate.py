"""Make a probe: train and test videos, their csv files, the main object's masks, and what each clip shows.

<folder>/<name>-<hash of everything that decides its content>/
    train.csv test.csv       path label
    train/000000.mp4 …       H.264, 16 frames of 40 x 40
    train/masks.npz          names (n,), packed (n, t, H, W / 8): the main object's pixels, one bit each
    train/clips.csv          what each clip shows: motion, shape, looks, which clip it reverses
    info.json                parameters, class names, digest of all files
"""

import csv
import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from timesformer.data.probes.difficulty import DIFFICULTY, Difficulty
from timesformer.data.probes.encode import encode
from timesformer.data.probes.scene import FRAMES, MOTIONS, SIZE, render
from timesformer.data.probes.shapes import FAMILIES
from timesformer.errors import InputError

LABELS: dict[str, tuple[str, ...]] = {"appearance": FAMILIES, "motion": MOTIONS}
_SPLITS = ("train", "test")
_GENERATOR = 4  # raise it when the same parameters give other videos
_CHUNK = 32


@dataclass(frozen=True)
class ProbeInfo:
    """Where a probe lies.  `fingerprint` is a sha256 of the files' contents, `parameters` what they were made from."""

    name: str
    folder: Path
    train_csv: Path
    test_csv: Path
    labels: tuple[str, ...]
    fingerprint: str
    parameters: dict[str, object]


@dataclass(frozen=True)
class _Clip:
    """One file to make; a reversal is drawn from the same source as the clip it reverses."""

    name: str
    split: int
    source: int
    label: int
    reverses: str


def make_probe(
    name: str,
    folder: Path | str,
    *,
    num_train: int,
    num_test: int,
    seed: int = 0,
    difficulty: Difficulty | str = "quick",
    workers: int = 1,
) -> ProbeInfo:
    """Make the probe "appearance" or "motion" inside `folder`, or find it there.

    The same arguments give the same bytes whatever the number of worker processes.  The probe appears complete or not
    at all: it is written to a temporary folder that is renamed at the end.  In `motion` every test clip is followed by
    its reversal, which counts in `num_test` (so that must be even).

    Raises InputError for an unknown name or difficulty and for impossible numbers.
    """
    if name not in LABELS:
        raise InputError(f"unknown probe {name!r}: expected one of {', '.join(LABELS)}")
    if isinstance(difficulty, str):
        if difficulty not in DIFFICULTY:
            raise InputError(f"unknown difficulty {difficulty!r}: expected one of {', '.join(DIFFICULTY)}")
        difficulty = DIFFICULTY[difficulty]
    for field, value in (("num_train", num_train), ("num_test", num_test), ("workers", workers)):
        if value < 1:
            raise InputError(f"probe {name}: {field} must be at least 1, got {value}")
    if seed < 0:
        raise InputError(f"probe {name}: seed must not be negative, got {seed}")
    if name == "motion" and num_test % 2:
        raise InputError(f"probe motion: num_test must be even (each clip and its reversal), got {num_test}")

    parameters: dict[str, object] = {
        "name": name,
        "num_train": num_train,
        "num_test": num_test,
        "seed": seed,
        "difficulty": difficulty.to_dict(),
        "generator": _GENERATOR,
        "frames": FRAMES,
        "size": SIZE,
    }
    key = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(folder).expanduser().resolve()
    target = folder / f"{name}-{key}"
    if not (target / "info.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / f".{name}-{key}.lock"):
            if not (target / "info.json").is_file():
                temporary = folder / f".{name}-{key}.partial"
                shutil.rmtree(temporary, ignore_errors=True)  # left by a generation that was killed; we hold its lock
                _write(temporary, parameters, difficulty, workers)
                os.replace(temporary, target)
    return open_probe(target)


def open_probe(folder: Path | str) -> ProbeInfo:
    """A probe that was made before.  Raises InputError where there is none."""
    folder = Path(folder)
    path = folder / "info.json"
    if not path.is_file():
        raise InputError(f"{folder}: not a probe (no info.json)")
    info = json.loads(path.read_text())
    return ProbeInfo(
        name=info["parameters"]["name"],
        folder=folder,
        train_csv=folder / "train.csv",
        test_csv=folder / "test.csv",
        labels=tuple(info["labels"]),
        fingerprint=info["fingerprint"],
        parameters=info["parameters"],
    )


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock that the operating system releases when the process ends, however it ends."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _clips(name: str, split: int, count: int) -> list[_Clip]:
    """What to make for a split: classes in turn; in the test set of `motion` each clip is followed by its reversal."""
    clips = []
    for index in range(count):
        file = f"{index:06d}.mp4"
        if name == "motion" and split == 1:
            source, reverse = divmod(index, 2)
            label = source % len(MOTIONS)
            # Even and odd motions are each other's reversal.
            clips.append(_Clip(file, split, source, label ^ reverse, f"{index - 1:06d}.mp4" if reverse else ""))
        else:
            clips.append(_Clip(file, split, index, index % len(LABELS[name]), ""))
    return clips


def _make(
    clips: list[_Clip], folder: Path, name: str, seed: int, dial: Difficulty
) -> tuple[list[dict[str, object]], np.ndarray]:
    """Render and encode some clips of one split; returns their facts and packed masks (n, t, H, W / 8)."""
    facts: list[dict[str, object]] = []
    masks = np.empty((len(clips), FRAMES, SIZE, SIZE // 8), np.uint8)
    for row, clip in enumerate(clips):
        rng = np.random.default_rng(np.random.SeedSequence([seed, list(LABELS).index(name), clip.split, clip.source]))
        if name == "motion":
            motion, family, hues = MOTIONS[clip.label], "blob", (0.0, 1.0)
            drawn = MOTIONS[clip.label ^ 1] if clip.reverses else motion
        else:
            drawn = motion = str(rng.choice(MOTIONS))
            family = FAMILIES[clip.label]
            hues = ((clip.label - dial.hue_spread) / len(FAMILIES), (clip.label + dial.hue_spread) / len(FAMILIES))
        scene = render(drawn, family, rng, clip.split, dial, hues)
        order = slice(None, None, -1 if clip.reverses else 1)
        encode(folder / clip.name, scene.luma[order], scene.cb[order], scene.cr[order], dial.quantiser)
        masks[row] = np.packbits(scene.mask[order], axis=-1)
        facts.append(
            {"name": clip.name, "label": clip.label, **scene.facts, "motion": motion, "reverses": clip.reverses}
        )
    return facts, masks


def _write(target: Path, parameters: dict[str, object], dial: Difficulty, workers: int) -> None:
    """Write a whole probe into `target`."""
    name, seed = str(parameters["name"]), int(str(parameters["seed"]))
    for split, split_name in enumerate(_SPLITS):
        folder = target / split_name
        folder.mkdir(parents=True)
        clips = _clips(name, split, int(str(parameters[f"num_{split_name}"])))
        chunks = [clips[start : start + _CHUNK] for start in range(0, len(clips), _CHUNK)]
        shared = ([folder] * len(chunks), [name] * len(chunks), [seed] * len(chunks), [dial] * len(chunks))
        if workers == 1:
            results = list(map(_make, chunks, *shared))
        else:
            with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
                results = list(pool.map(_make, chunks, *shared))
        facts = [row for rows, _ in results for row in rows]
        packed = np.concatenate([masks for _, masks in results])
        np.savez(folder / "masks.npz", names=np.array([clip.name for clip in clips]), packed=packed)
        with open(folder / "clips.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(facts[0]))
            writer.writeheader()
            writer.writerows(facts)
        lines = [f"{split_name}/{clip.name} {clip.label}\n" for clip in clips]
        (target / f"{split_name}.csv").write_text("".join(lines))
    digest = hashlib.sha256()
    for path in sorted(target.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(target).as_posix().encode() + b"\0" + path.read_bytes())
    info = {"parameters": parameters, "labels": LABELS[name], "fingerprint": digest.hexdigest()}
    (target / "info.json").write_text(json.dumps(info, indent=2) + "\n")
