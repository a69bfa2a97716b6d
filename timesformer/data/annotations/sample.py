"""Content of an annotation file: samples, and class names if the format has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from timesformer.heads import Labels
from timesformer.text import path_text

Label = int | tuple[int, ...]
"""Class of a sample, or one class per head."""

NumClasses = int | tuple[int, ...]
"""Number of classes; with several heads, one number per head."""


@dataclass(frozen=True)
class Sample:
    """Video, or segment of a video, with its class.

    path: video file, or folder of images (see `timesformer.data.FrameFolder`)
    label: class; a tuple with several heads
    name: identifier of the sample in records: the path or segment as written in the annotation file; bytes that are not
        UTF-8 are escaped, so that any record can hold it
    start_frame, end_frame: range of a segment, counted from 0, end_frame excluded; both None for a whole video
    fps: frame rate of a folder of images (None: 30), and the rate to which start_frame and end_frame refer (None: the
        rate of the file)
    group: name of what the video belongs to (a subject, a scene, the source video of a segment), see
        `timesformer.data.splits`; empty: each file is a group of its own
    square: resize the frames of a video whose pixels are not square, so that they are
    """

    path: Path
    label: Label
    name: str = ""
    start_frame: int | None = None
    end_frame: int | None = None
    fps: float | None = None
    group: str = ""
    square: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", path_text(self.name or self.path))

    @property
    def is_segment(self) -> bool:
        """True if the sample is a part of a video."""
        return self.start_frame is not None or self.end_frame is not None

    @property
    def place(self) -> str:
        """Path of the sample, followed by the range of a segment as in `path[3:7]`, so that segments differ."""
        if not self.is_segment:
            return path_text(self.path)
        return f"{path_text(self.path)}[{self.start_frame or 0}:{'' if self.end_frame is None else self.end_frame}]"


@dataclass(frozen=True)
class Annotations(Sequence[Sample]):
    """Samples of an annotation file, as a sequence.

    labels: class names; None if the format does not provide them
    heads: names of the heads if there are several, otherwise empty
    passed_over: files in the folders of the classes that are no videos by their suffix; empty: classes without a video
        (both by listing folders, in the format `folder` alone)
    """

    samples: tuple[Sample, ...]
    labels: Labels | None = None
    heads: tuple[str, ...] = ()
    passed_over: tuple[Path, ...] = ()
    empty: tuple[str, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Sample, ...]: ...
    def __getitem__(self, index: int | slice) -> Sample | tuple[Sample, ...]:
        return self.samples[index]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def num_classes(self) -> NumClasses | None:
        """Number of class names, per head if there are several; None without names."""
        return None if self.labels is None else count_labels(self.labels)


def count_labels(labels: Labels) -> NumClasses:
    """Return the number of names, per head if there are several."""
    return tuple(len(names) for names in labels.values()) if isinstance(labels, dict) else len(labels)
