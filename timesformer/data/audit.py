"""What a dataset holds, so that a record can say which data its figures come from."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from timesformer.data.annotations import Sample
from timesformer.data.cache import FrameCache
from timesformer.data.files import content_hash
from timesformer.data.video import Video, VideoError


def audit(samples: Sequence[Sample], cache: FrameCache | None = None) -> dict[str, Any]:
    """Number of videos, label histogram, unreadable videos, and a fingerprint, all JSON-able.

    The fingerprint is a sha256 over every sample's name, label, size and content: the same wherever the files lie and
    in whatever order they are listed.  Videos that the cache holds have been decoded before; the others are opened,
    and those that do not open are listed with the reason.
    """
    entries, unreadable = [], []
    for sample in samples:
        try:
            if cache is None or not sample.path.is_file() or sample.path not in cache:
                Video(sample.path).close()
        except VideoError as error:
            unreadable.append({"path": error.path, "reason": error.reason})
        if sample.path.is_file():
            content = f"{sample.path.stat().st_size} {content_hash(sample.path)}"
        else:
            content = "missing"
        entries.append(f"{sample.name}\0{sample.label}\0{content}")
    labels = Counter(sample.label for sample in samples)
    return {
        "num_videos": len(samples),
        "fingerprint": hashlib.sha256("\n".join(sorted(entries)).encode()).hexdigest(),
        "labels": {str(label): labels[label] for label in sorted(labels)},
        "num_unreadable": len(unreadable),
        "unreadable": unreadable,
    }
