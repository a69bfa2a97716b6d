"""Generation of a probe: train, test and validation videos, their csv files, object masks and facts of the clips.

<folder>/<name>-<hash of everything that determines its content>/
    train.csv test.csv       path label; val.csv if validation videos were asked for
    train/000000.mp4 …       H.264; 16 frames of 40 x 40 pixels unless the kind of probe sets others
    train/masks.npz          names (n,), packed (n, t, H, W / 8): the main object's mask, one bit per pixel
    train/clips.csv          content of each clip: motion, shape, looks, the clip that it reverses or belongs to
    info.json                parameters, class names, digest of all files and of each
"""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from filelock import FileLock

from timesformer.data.annotations import Annotations
from timesformer.data.annotations.kinetics import read_kinetics
from timesformer.data.fingerprint import Digests
from timesformer.data.probes.difficulty import DIFFICULTY, Difficulty
from timesformer.data.probes.encode import encode
from timesformer.data.probes.kind import Clip, Kind
from timesformer.data.probes.registry import make_kind
from timesformer.errors import InputError
from timesformer.files import write_json
from timesformer.parallel import side_by_side

Split = Literal["train", "test", "val"]
_SPLITS: tuple[Split, ...] = get_args(Split)
_GENERATOR = 4  # increase it when the same parameters give different videos
_CHUNK = 32


@dataclass(frozen=True)
class ProbeInfo:
    """Files of a generated probe.

    fingerprint: sha256 of the files' names and contents; parameters: everything that determines them
    """

    name: str
    folder: Path
    train_csv: Path
    test_csv: Path
    labels: tuple[str, ...]
    fingerprint: str
    parameters: dict[str, object]
    val_csv: Path | None = None

    @property
    def kind(self) -> Kind:
        """Kind of the probe, with its dials."""
        dials = self.parameters.get("dials", {})
        assert isinstance(dials, dict)
        return make_kind(self.name, dials)

    def annotations(self, split: Split) -> Annotations:
        """The videos of "train", "test" or "val"; those that are drawn from one source are a group.

        Raises InputError for "val" where the probe was made without.
        """
        if split == "val" and self.val_csv is None:
            raise InputError(f"{self.folder}: this probe has no validation videos; num_val makes some")
        found = read_kinetics(self.folder / f"{split}.csv", None, len(self.labels), list(self.labels))
        number = _SPLITS.index(split)
        names = sorted(clip.name for clip in self.kind.clips(number, len(found)))
        members = zip(names, self.kind.groups(number, len(found)), strict=True)
        groups = {f"{split}/{name}": f"{split}/{group}" for name, group in members}
        return replace(found, samples=tuple(replace(sample, group=groups[sample.name]) for sample in found))


def make_probe(
    name: str,
    folder: Path | str,
    *,
    num_train: int,
    num_test: int,
    num_val: int = 0,
    seed: int = 0,
    difficulty: Difficulty | str = "quick",
    dials: Mapping[str, object] | None = None,
    workers: int = 1,
) -> ProbeInfo:
    """Make a probe of one of `KINDS` inside `folder`, or reuse it if it is already there.

    dials: fields of the kind, in addition to those of `Difficulty`; workers: number of processes

    The same arguments give the same bytes for any number of workers.  A probe is complete or absent: it is written to a
    temporary folder that is renamed at the end.  Test clips that belong together follow each other (in `motion` every
    clip is followed by its reversal), and all of them count towards `num_test`.  Validation clips are made like test
    clips, from a draw of their own; the training and test videos are the same with and without them.

    Raises InputError for an unknown name, difficulty or dial and for invalid numbers.
    """
    kind = make_kind(name, dials)
    if isinstance(difficulty, str):
        if difficulty not in DIFFICULTY:
            raise InputError(f"unknown difficulty {difficulty!r}: expected one of {', '.join(DIFFICULTY)}")
        difficulty = DIFFICULTY[difficulty]
    for field, value, least in (("num_train", num_train, 1), ("num_test", num_test, 1), ("num_val", num_val, 0),
                                ("workers", workers, 1)):  # fmt: skip
        if value < least:
            raise InputError(f"probe {name}: {field} must be at least {least}, got {value}")
    if seed < 0:
        raise InputError(f"probe {name}: seed must not be negative, got {seed}")
    for field, value in (("num_test", num_test), ("num_val", num_val)):
        if value % kind.together:
            expected = "even" if kind.together == 2 else f"a multiple of {kind.together}"
            raise InputError(f"probe {name}: {field} must be {expected} ({kind.why_together}), got {value}")

    parameters = generated_from(kind, num_train, num_test, num_val, seed, difficulty)
    key = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(folder).expanduser().resolve()
    target = folder / f"{name}-{key}"
    if not (target / "info.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}-{key}.lock"):
            if not (target / "info.json").is_file():
                temporary = folder / f".{name}-{key}.partial"
                shutil.rmtree(temporary, ignore_errors=True)  # left by a generation that was killed: we hold the lock
                _write(temporary, kind, parameters, difficulty, workers)
                os.replace(temporary, target)
    info = open_probe(target)
    _require_unchanged(info)
    return info


def generated_from(
    kind: Kind, num_train: int, num_test: int, num_val: int, seed: int, difficulty: Difficulty
) -> dict[str, object]:
    """Everything that decides a probe's content: the generator, its dials, numbers and seed."""
    parameters: dict[str, object] = {
        "name": kind.name,
        "num_train": num_train,
        "num_test": num_test,
        "seed": seed,
        "difficulty": difficulty.to_dict(),
        "generator": _GENERATOR,
        "frames": kind.frames,
        "size": kind.size,
    }
    if kind.revision:
        parameters["revision"] = kind.revision
    if num_val:  # without them it is the probe that it always was
        parameters["num_val"] = num_val
        if kind.val_revision:
            parameters["val_revision"] = kind.val_revision
    if kind.dials():
        parameters["dials"] = kind.dials()
    return parameters


def _require_unchanged(probe: ProbeInfo) -> None:
    """Require the probe's files to be those that were made; InputError where they have changed."""
    store = Digests(probe.folder.parent / ".fingerprints.jsonl")
    paths = _files(probe.folder)
    found = {path.relative_to(probe.folder).as_posix(): digest for path, digest in store.of(paths).items()}
    info = json.loads((probe.folder / "info.json").read_text())
    made = info.get("files")
    if made is None:  # from before files were listed: told by the digest of all of them, then listed
        if _digest(probe.folder, paths) == probe.fingerprint:
            write_json(probe.folder / "info.json", info | {"files": found})
            return
        changed = "its files have changed"
    else:
        names = [name for name in made if made[name] != found.get(name)]
        if not names:
            return
        changed = f"{len(names)} of its {len(made)} files changed: {', '.join(names[:3])}{', …' if names[3:] else ''}"
    raise InputError(
        f"{probe.folder}: this probe is not as it was made: {changed}; remove the folder, and the probe is made again"
    )


def _files(folder: Path) -> list[Path]:
    """A probe's files, without what tells of them."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / "info.json")


def _digest(folder: Path, paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def open_probe(folder: Path | str) -> ProbeInfo:
    """Open a probe that was made before.  Raises InputError where there is none."""
    folder = Path(folder)
    path = folder / "info.json"
    if not path.is_file():
        raise InputError(f"{folder}: not a probe: expected a folder that make_probe wrote, with an info.json")
    info = json.loads(path.read_text())
    return ProbeInfo(
        name=info["parameters"]["name"],
        folder=folder,
        train_csv=folder / "train.csv",
        test_csv=folder / "test.csv",
        labels=tuple(info["labels"]),
        fingerprint=info["fingerprint"],
        parameters=info["parameters"],
        val_csv=folder / "val.csv" if "num_val" in info["parameters"] else None,
    )


def _make(
    clips: list[Clip], folder: Path, kind: Kind, seed: int, dial: Difficulty
) -> tuple[list[dict[str, object]], np.ndarray]:
    """Render and encode some clips of one split.  Return their facts and packed masks (n, t, H, W / 8)."""
    facts: list[dict[str, object]] = []
    masks = np.empty((len(clips), kind.frames, kind.size, kind.size // 8), np.uint8)
    for row, clip in enumerate(clips):
        rng = np.random.default_rng(np.random.SeedSequence([seed, kind.seed_index, clip.split, clip.source]))
        scene = kind.draw(clip, rng, dial)
        encode(folder / clip.name, scene.luma, scene.cb, scene.cr, kind.quantiser(dial))
        masks[row] = np.packbits(scene.mask, axis=-1)
        facts.append({"name": clip.name, "label": clip.label, **scene.facts})
    return facts, masks


def _write(target: Path, kind: Kind, parameters: dict[str, object], dial: Difficulty, workers: int) -> None:
    """Write a whole probe into `target`."""
    seed = int(str(parameters["seed"]))
    for split, split_name in enumerate(_SPLITS):
        if f"num_{split_name}" not in parameters:
            continue
        folder = target / split_name
        folder.mkdir(parents=True)
        clips = kind.clips(split, int(str(parameters[f"num_{split_name}"])))
        chunks = [clips[start : start + _CHUNK] for start in range(0, len(clips), _CHUNK)]
        results = side_by_side(_make, [(chunk, folder, kind, seed, dial) for chunk in chunks], workers)
        facts = [row for rows, _ in results for row in rows]
        packed = np.concatenate([masks for _, masks in results])
        np.savez(folder / "masks.npz", names=np.array([clip.name for clip in clips]), packed=packed)
        with open(folder / "clips.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(facts[0]))
            writer.writeheader()
            writer.writerows(facts)
        lines = [f"{split_name}/{clip.name} {clip.label}\n" for clip in clips]
        (target / f"{split_name}.csv").write_text("".join(lines))
    paths = _files(target)
    files = {path.relative_to(target).as_posix(): digest for path, digest in Digests().of(paths).items()}
    info = {"parameters": parameters, "labels": kind.labels, "fingerprint": _digest(target, paths), "files": files}
    (target / "info.json").write_text(json.dumps(info, indent=2) + "\n")
