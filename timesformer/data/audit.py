"""What a dataset holds, so that a record can say which data its figures come from."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from timesformer.data.annotations import Sample
from timesformer.data.cache import FrameCache
from timesformer.data.files import content_hash
from timesformer.data.video.open import frames_key, open_video
from timesformer.data.video.video import VideoError


def audit(samples: Sequence[Sample], cache: FrameCache | None = None) -> dict[str, Any]:
    """Number of videos, label histogram, unreadable videos, and a fingerprint, all JSON-able.

    Videos that the cache holds have been decoded before; the others are opened, and those that do not open are listed
    with the reason.
    """
    unreadable = []
    for sample in samples:
        try:
            if cache is None or not sample.path.exists() or sample not in cache:
                open_video(sample).close()
        except VideoError as error:
            unreadable.append({"path": error.path, "reason": error.reason})
    return {
        "num_videos": len(samples),
        "fingerprint": fingerprint((sample, None) for sample in samples),
        "labels": histogram(samples),
        "num_unreadable": len(unreadable),
        "unreadable": unreadable,
    }


def histogram(samples: Iterable[Sample]) -> dict[str, int]:
    """How many samples each label has, by rising label."""
    labels = Counter(sample.label for sample in samples)
    return {str(label): labels[label] for label in sorted(labels)}


def fingerprint(samples: Iterable[tuple[Sample, str | None]]) -> str:
    """What records call the data by: the same wherever the files lie and in whatever order they are listed.

    A sha256 over every sample's name, label, size, content and segment.  Beside each sample stands the sha256 of its
    file if that is known already.
    """
    entries = sorted(f"{sample.name}\0{sample.label}\0{_content(sample, known)}" for sample, known in samples)
    return hashlib.sha256("\n".join(entries).encode()).hexdigest()


def _content(sample: Sample, known: str | None) -> str:
    if sample.path.is_dir():
        return f"folder {frames_key(sample)}"
    if not sample.path.is_file():
        return "missing"
    content = f"{sample.path.stat().st_size} {known or content_hash(sample.path)}"
    return content + (f" {sample.start_frame}:{sample.end_frame}" if sample.is_segment else "")
