"""Audit of a dataset, so that a record states the data of its figures."""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from timesformer.data.annotations import Sample
from timesformer.data.cache import FrameCache
from timesformer.data.fingerprint import Digests, Fingerprint
from timesformer.data.video.error import VideoError
from timesformer.data.video.image import image_names
from timesformer.data.video.open import frames_digest, open_video


def audit(
    samples: Sequence[Sample], cache: FrameCache | None = None, known: Fingerprint | None = None
) -> dict[str, Any]:
    """Number of videos, label histogram, unreadable videos, and a fingerprint, all JSON-able.

    Videos that the cache holds have been decoded before; the others are opened, and those that do not open are listed
    with the reason.  known: the fingerprint, where it has been taken already.
    """
    unreadable = []
    for sample in samples:
        try:
            if cache is None or not os.path.exists(sample.path) or sample not in cache:
                open_video(sample).close()
        except VideoError as error:
            unreadable.append({"path": error.path, "reason": error.reason})
    return {
        "num_videos": len(samples),
        "fingerprint": (known or fingerprint(samples)).sha256,
        "labels": histogram(samples),
        "num_unreadable": len(unreadable),
        "unreadable": unreadable,
    }


def histogram(samples: Iterable[Sample]) -> dict[str, int]:
    """Number of samples of each label, in ascending order of labels."""
    labels = Counter(sample.label for sample in samples)
    return {str(label): labels[label] for label in sorted(labels)}


def fingerprint(samples: Iterable[Sample], digests: Digests | None = None) -> Fingerprint:
    """The name that records have for the data: the same wherever the files lie and in whatever order they are listed.

    Its sha256 is over every sample's name, label, size, digest and segment.
    """
    digests, samples, began = digests or Digests(), list(samples), time.perf_counter()
    before = digests.read
    images = {sample.path: _images(sample.path) for sample in samples if os.path.isdir(sample.path)}
    paths = [path / name for path, names in images.items() for name in names]
    paths += [sample.path for sample in samples if sample.path not in images]
    found = digests.of(paths)
    contents = [(sample, _content(sample, images.get(sample.path), found)) for sample in samples]
    files = {sample.name + _range(sample): content for sample, content in contents}
    seconds = time.perf_counter() - began
    return Fingerprint(total(contents), files, None, digests.full, seconds, digests.read - before)


def total(contents: Iterable[tuple[Sample, str]]) -> str:
    """The sha256 over samples and the texts for their content (`stated`)."""
    entries = sorted(f"{sample.name}\0{sample.label}\0{content}" for sample, content in contents)
    return hashlib.sha256("\n".join(entries).encode()).hexdigest()


def stated(sample: Sample, digest: str) -> str:
    """A text for a video file's content: its size, its digest, and the segment's range."""
    try:
        size = sample.path.stat().st_size
    except (OSError, ValueError):
        return digest
    return f"{size} {digest}" + (f" {sample.start_frame}:{sample.end_frame}" if sample.is_segment else "")


def _content(sample: Sample, images: Sequence[str] | None, digests: Mapping[Path, str]) -> str:
    if images is None:
        digest = digests[sample.path]
        return digest if digest == "missing" else stated(sample, digest)
    return f"folder {frames_digest(sample, images, {name: digests[sample.path / name] for name in images})}"


def _images(folder: Path) -> list[str]:
    try:
        return image_names(folder)
    except OSError:  # it is among the unreadable ones
        return []


def _range(sample: Sample) -> str:
    return f"[{sample.start_frame}:{sample.end_frame}]" if sample.is_segment else ""
