"""What an annotation file becomes: samples, and class names where the format knows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from timesformer.heads import Labels

Label = int | tuple[int, ...]
"""A class, or one for each head."""

NumClasses = int | tuple[int, ...]
"""Number of classes; where there are several heads one for each."""


@dataclass(frozen=True)
class Sample:
    """A video, or a segment of one, and its class.

    path: a video file, or a folder of images (see `timesformer.data.FrameFolder`)
    label: the class; a tuple where there are several heads
    name: identifies the sample in records: the path, or the segment, as the annotation file has it
    start_frame, end_frame: a segment: from frame start_frame to before end_frame, counted from 0; None: the whole video
    fps: frames per second of a folder of images (None: 30), and of the numbers of a segment (None: the file's own)
    """

    path: Path
    label: Label
    name: str = ""
    start_frame: int | None = None
    end_frame: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", str(self.path))

    @property
    def is_segment(self) -> bool:
        """Whether it is a part of a video."""
        return self.start_frame is not None or self.end_frame is not None

    @property
    def place(self) -> str:
        """The path; a segment's with the range behind it, `path[3:7]`, so that each segment has one of its own."""
        if not self.is_segment:
            return str(self.path)
        return f"{self.path}[{self.start_frame or 0}:{'' if self.end_frame is None else self.end_frame}]"


@dataclass(frozen=True)
class Annotations(Sequence[Sample]):
    """The samples of an annotation file, as a sequence.

    labels: class names, None where the format does not know them; heads: names of the heads where there are several,
    otherwise empty
    """

    samples: tuple[Sample, ...]
    labels: Labels | None = None
    heads: tuple[str, ...] = ()

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
        """Number of class names, of each head where there are several; None where there are no names."""
        return None if self.labels is None else count_labels(self.labels)


def count_labels(labels: Labels) -> NumClasses:
    """How many names there are, for each head where there are several."""
    return tuple(len(names) for names in labels.values()) if isinstance(labels, dict) else len(labels)
