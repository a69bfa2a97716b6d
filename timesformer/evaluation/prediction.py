"""Prediction: the most likely classes of videos, or of each segment of a long video.

loaded = load_model("results/checkpoints/divided-motion")
record = Preprocessing.from_dict(loaded.preprocessing)
for video in predict(loaded.model, ["a.mp4"], record, loaded.labels).videos:
    print(video.path, video.top[0].label, video.top[0].probability)
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from timesformer.data import Preprocessing, Sample, VideoError, Views
from timesformer.data.video.clock import DEFAULT_FPS, Clock
from timesformer.data.video.open import open_video
from timesformer.errors import InputError
from timesformer.evaluation.evaluate import Merge, Protocol, protocol_named
from timesformer.evaluation.forward import computing, forward_only
from timesformer.evaluation.viewing import each_batch
from timesformer.heads import Labels, check_labels
from timesformer.models.timesformer import TimeSformer
from timesformer.progress import OnStep
from timesformer.text import path_text
from timesformer.training.recipe import Precision

UNIFORM_SECONDS = 4.0
"""Length of a timeline's segments for a model whose frames are spread over the whole video: the mean length of videos
of Something-Something, on which such models are trained."""
LEAST_STRETCHES = 4
"""Number of segments that a timeline has at least, unless their length is given or the clip has too many frames."""


@dataclass(frozen=True)
class Guess:
    """A class, its index, and its probability from 0 to 1.

    head: name of the head of a model with several heads, in which the index counts; otherwise ""
    column: index of the probability among those of all heads
    """

    label: str
    index: int
    probability: float
    head: str
    column: int


@dataclass(frozen=True)
class Prediction:
    """Most likely classes of a video, best first (for each head in turn), and the probabilities of all classes.

    probabilities: (classes,); with several heads, those of all heads one after the other
    """

    path: str
    top: tuple[Guess, ...]
    probabilities: np.ndarray


@dataclass(frozen=True)
class Predictions:
    """Result of `predict`: the videos in their order, and (path, reason) of those that could not be read.

    enlarged: videos that were resized beyond the short side until the crop fitted
    """

    videos: list[Prediction]
    unreadable: list[tuple[str, str]]
    protocol: Protocol
    enlarged: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Stretch(Prediction):
    """Most likely classes of a segment of a video, from start_seconds to before end_seconds."""

    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Timeline:
    """Predictions for a video by segment.

    stretches: consecutive segments without overlap, which cover the video if all of them could be read
    top: most likely classes by the mean probability over all segments
    stretch_seconds: length in seconds that was wanted for the segments
    """

    path: str
    seconds: float
    top: tuple[Guess, ...]
    stretches: tuple[Stretch, ...]
    stretch_seconds: float


@dataclass(frozen=True)
class Timelines:
    """Result of `timelines`; unreadable holds videos, and segments of videos as `path[first frame:end]`.

    stretch_seconds: length of the segments; where videos have several, the longest
    enlarged: as in `Predictions`, with a name for each segment
    """

    videos: list[Timeline]
    unreadable: list[tuple[str, str]]
    protocol: Protocol
    stretch_seconds: float
    enlarged: list[str] = field(default_factory=list)


def predict(
    model: TimeSformer,
    videos: Sequence[Path | str],
    preprocessing: Preprocessing,
    labels: Labels,
    *,
    protocol: str | Protocol = "paper",
    top: int = 5,
    batch_size: int = 8,
    workers: int = 0,
    device: torch.device | str | None = None,
    precision: Precision = "fp32",
    progress: bool | OnStep = False,
) -> Predictions:
    """Predict the `top` classes of each video under a protocol's views; `batch_size` counts views.

    A probability is the mean of the views' softmax if the protocol merges probabilities, and the softmax of their mean
    logits if it merges logits; the order of the classes is that of the protocol in both cases.

    Raises:
        InputError: an unknown protocol, labels that do not fit the model, or scores that are not finite.
    """
    protocol = protocol if isinstance(protocol, Protocol) else protocol_named(protocol)
    samples = [Sample(Path(video), 0, str(video)) for video in videos]
    namer = _Namer(model, labels, top)
    found, unreadable, enlarged = [], list[tuple[str, str]](), list[str]()
    for index, probabilities in _each(
        model, samples, preprocessing, protocol, unreadable, enlarged, batch_size, workers, device, precision, progress
    ):
        found.append(Prediction(samples[index].name, namer.top(probabilities), probabilities))
    return Predictions(found, unreadable, protocol, enlarged)


def timelines(
    model: TimeSformer,
    videos: Sequence[Path | str],
    preprocessing: Preprocessing,
    labels: Labels,
    *,
    seconds: float | None = None,
    protocol: str | Protocol = "clip",
    top: int = 5,
    batch_size: int = 8,
    workers: int = 0,
    device: torch.device | str | None = None,
    precision: Precision = "fp32",
    progress: bool | OnStep = False,
) -> Timelines:
    """Predict the `top` classes of each segment of each video, from one clip with the protocol's crops per segment.

    seconds: length of a segment; None: the length of the model's clips (dense sampling) or UNIFORM_SECONDS, but of a
        video shorter than four of these a quarter of its length, as far as it has the frames for a clip of each

    A last segment shorter than half of this length is merged with the one before.  The frames of a clip are spread
    evenly over its segment; where this is as long as the model's clips their distance is the model's own stride.

    Raises:
        InputError: as for `predict`, or a length that is not a positive number.
    """
    protocol = protocol if isinstance(protocol, Protocol) else protocol_named(protocol)
    length = _stretch_seconds(preprocessing) if seconds is None else seconds
    if not (math.isfinite(length) and length > 0):
        raise InputError(f"stretch: expected a number of seconds above 0, got {length}")
    namer, unreadable, enlarged = _Namer(model, labels, top), list[tuple[str, str]](), list[str]()
    samples: list[Sample] = []
    owners: list[tuple[str, tuple[float, float]]] = []  # path, start and end in seconds, by sample
    lasting: dict[str, float] = {}
    lengths: dict[str, float] = {}
    for video in dict.fromkeys(map(str, videos)):
        try:
            with open_video(video) as file:
                clock = file.clock
        except VideoError as error:
            unreadable.append((path_text(video), error.reason))
            continue
        lasting[video] = clock.lasting
        lengths[video] = length if seconds is not None else _shortened(length, clock, preprocessing.num_frames)
        for start, end, times in _timed(clock, lengths[video]):
            samples.append(Sample(Path(video), 0, f"{video}[{start}:{end}]", start, end))
            owners.append((video, times))
    even = replace(preprocessing, sampling="uniform", frame_rate=None)
    views = Protocol(protocol.name, Views(1, protocol.views.crops), protocol.merge)
    parts: dict[str, list[Stretch]] = {video: [] for video in lasting}
    for index, probabilities in _each(
        model, samples, even, views, unreadable, enlarged, batch_size, workers, device, precision, progress
    ):
        video, times = owners[index]
        parts[video].append(Stretch(path_text(video), namer.top(probabilities), probabilities, *times))
    found = [
        Timeline(
            path_text(video),
            lasting[video],
            namer.top(np.mean([part.probabilities for part in some], 0)),
            tuple(some),
            lengths[video],
        )
        for video, some in parts.items()
        if some
    ]
    return Timelines(found, unreadable, views, max(lengths.values(), default=length), enlarged)


def stretches(num_frames: int, length: float) -> list[tuple[int, int]]:
    """Cut a video into consecutive ranges of frames.

    Each range is `length` frames long (rounded, at least 1), and the last one at least half as long.  A video shorter
    than that is one range.
    """
    length = max(1.0, length)
    count = max(1, math.floor(num_frames / length + 0.5))
    bounds = [round(number * length) for number in range(count)]
    return list(zip(bounds, [*bounds[1:], num_frames], strict=True))


def _timed(clock: Clock, length: float) -> Iterator[tuple[int, int, tuple[float, float]]]:
    """Yield the segments of a video: range of frames, start and end in seconds."""
    if clock.even:
        rate = clock.fps if clock.fps > 0 else DEFAULT_FPS
        for start, end in stretches(len(clock.starts), length * rate):
            yield start, end, (start / rate, end / rate)
        return
    count = max(1, math.floor(clock.lasting / length + 0.5))
    bounds = [number * length for number in range(count)] + [clock.lasting]
    for begin, stop in itertools.pairwise(bounds):
        yield *clock.between(begin, stop), (begin, stop)


def _stretch_seconds(record: Preprocessing) -> float:
    if record.sampling == "dense":
        assert record.frame_rate is not None
        return record.num_frames * record.frame_rate / record.target_fps
    return UNIFORM_SECONDS


def _shortened(length: float, clock: Clock, num_frames: int) -> float:
    """Return the length [s] with which a video has `LEAST_STRETCHES` segments, each with the frames of a clip; at most
    the usual one."""
    frames = clock.lasting * num_frames / max(len(clock.starts), 1)
    return min(length, max(clock.lasting / LEAST_STRETCHES, frames))


def top_classes(model: TimeSformer, logits: Tensor, labels: Labels, top: int = 5) -> tuple[Guess, ...]:
    """Return the most likely classes by the logits (classes,) of one clip, best first (for each head in turn).

    Raises:
        InputError: labels that do not fit the model, or scores that are not finite.
    """
    return _Namer(model, labels, top).top(_probabilities(logits[None].cpu(), model, "mean_softmax", "clip"))


class _Namer:
    """Lookup of class names for probabilities."""

    def __init__(self, model: TimeSformer, labels: Labels, top: int) -> None:
        if top < 1:
            raise InputError(f"top: expected at least 1, got {top}")
        labels = check_labels(labels, model.config.heads)
        self.heads = list(labels.items()) if isinstance(labels, dict) else [("", labels)]
        self.number = top

    def top(self, probabilities: np.ndarray) -> tuple[Guess, ...]:
        """Return the most likely classes of each head; among equal ones, the lower index comes first."""
        found, start = [], 0
        for head, names in self.heads:
            some = probabilities[start : start + len(names)]
            order = np.argsort(-some, kind="stable")[: self.number]
            found += [Guess(names[i], int(i), float(some[i]), head, start + int(i)) for i in order]
            start += len(names)
        return tuple(found)


def _each(
    model: TimeSformer,
    samples: list[Sample],
    record: Preprocessing,
    protocol: Protocol,
    unreadable: list[tuple[str, str]],
    enlarged: list[str],
    batch_size: int,
    workers: int,
    device: torch.device | str | None,
    precision: Precision,
    progress: bool | OnStep,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (index, probabilities) of each sample that can be read; collect the reasons of others in `unreadable`,
    and the names of those that were enlarged for the crop."""
    if device is not None:
        model = model.to(device)
    running = forward_only(model.eval(), precision)
    found = each_batch(
        running,
        samples,
        record,
        protocol.views,
        unreadable,
        batch_size=batch_size,
        workers=workers,
        device=device,
        progress=progress,
        enlarged=enlarged,
    )
    for indices, counts, parts in found:
        with torch.inference_mode():
            logits = torch.cat([_logits(running, part, precision) for part in parts])
        for index, views in zip(indices, logits.split(counts), strict=True):
            yield index, _probabilities(views, model, protocol.merge, samples[index].name)


def _logits(model: nn.Module, clips: Tensor, precision: Precision) -> Tensor:
    with computing(clips.device, precision):
        logits: Tensor = model(clips)
    return logits.float().cpu()


def _probabilities(logits: Tensor, model: TimeSformer, merge: Merge, name: str) -> np.ndarray:
    """Probabilities (classes,) from the logits of a video's views (views, classes); those of each head sum to 1.

    Raises:
        InputError: the logits are not finite.
    """
    if not torch.isfinite(logits).all():
        raise InputError(f"{name}: the model's scores are not finite")
    parts = []
    for some in logits.double().split(model.config.heads, dim=1):
        parts.append(some.softmax(-1).mean(0) if merge == "mean_softmax" else some.mean(0).softmax(-1))
    return torch.cat(parts).numpy()
