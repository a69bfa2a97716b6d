"""Examination of one file of a dataset: a verdict in one word, the reasons, and the properties of the file."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from timesformer.data.fingerprint import FileState, content_hash, file_state, sampled_hash
from timesformer.data.video.error import VideoError
from timesformer.data.video.open import FrameFolder
from timesformer.data.video.square import square_size
from timesformer.data.video.video import Video
from timesformer.text import path_text

UNREADABLE = {
    "missing": "no such file",
    "empty": "zero bytes",
    "not-video": "not a video",
    "audio-only": "audio without video",
    "no-frames": "a header without frames",
    "truncated": "truncated",
    "damaged": "frames that cannot be decoded",
    "unreadable": "cannot be read for another reason",
}
"""Verdicts on files that cannot be used: training and evaluation reject them."""

ODD = {
    "one-frame": "one frame, which is repeated to fill a clip",
    "short": "fewer frames than requested",
    "duplicate": "listed before, or the same content as another file",
    "rotated": "displayed rotated or mirrored; frames are returned upright",
    "concealed": "damage that FFmpeg conceals: training reads repaired frames",
    "passed-over": "files in a folder of images that are no images by their suffix",
    "repeated": "packets without a picture; the frame before is repeated",
    "not-square": "pixels that are not square; square_pixels in the preprocessing corrects them",
    "variable-rate": "frames at uneven intervals; they are numbered in display order",
    "stated-rate": "a frame rate in the header that the time stamps contradict; the stamps are used",
    "odd-rate": "an unusual or unknown frame rate",
    "odd-size": "an odd or very small height or width",
}
"""Verdicts on files that are readable but need attention, most serious first."""

KINDS = (*UNREADABLE, *ODD, "ok")

FPS_RANGE = (10.0, 61.0)
"""Range of usual frame rates; others give the verdict `odd-rate`."""
STATED_TOLERANCE = 0.01
"""Largest relative difference between the header's frame rate and that of the time stamps."""
_MOST_TOLD = 5  # files that a reason names
SMALLEST = 32
"""Shortest usual side in pixels; shorter sides give the verdict `odd-size`."""


@dataclass(frozen=True)
class Finding:
    """Finding about a file.  kind: one of `KINDS`; reason: description for the user."""

    kind: str
    reason: str


@dataclass(frozen=True)
class FileFacts:
    """Properties of a file, from its header or its whole content; None if unknown.

    size_bytes: -1 for a missing file; state: see `timesformer.data.fingerprint.file_state`
    content: sha256 of all bytes; sample: see `timesformer.data.fingerprint.sampled_hash`
    frames, fps, height, width: number, rate and size of the frames as displayed; index: see `Video.index`
    even: False if the frames are unevenly spaced, see `timesformer.data.video.clock`
    decoded: True if every frame was decoded; findings: empty for a file without problems
    """

    size_bytes: int
    state: FileState | None
    decoded: bool = False
    content: str | None = None
    sample: str | None = None
    frames: int | None = None
    fps: float | None = None
    height: int | None = None
    width: int | None = None
    index: str | None = None
    even: bool = True
    findings: tuple[Finding, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "FileFacts":
        """Make an object from the result of `to_dict`.  Raises TypeError or KeyError for other data."""
        known = {"state": tuple(fields["state"]), "findings": tuple(Finding(**found) for found in fields["findings"])}
        return cls(**fields | known)


def worst(findings: list[Finding]) -> str:
    """Return the most serious verdict, `ok` without findings."""
    return min((finding.kind for finding in findings), key=KINDS.index, default="ok")


def examine(path: Path, *, decode: bool = False, whole: bool = True, fps: float | None = None) -> FileFacts:
    """Examine a video file or a folder of images.

    decode: decode every frame instead of the first, and report damage that FFmpeg would conceal
    whole: hash all bytes, in addition to the sampled hash; fps: frame rate of a folder of images

    A file that cannot be read raises no error; it gets a finding.
    """
    try:
        status = path.stat()
    except ValueError:  # no file can have this name
        return FileFacts(-1, None, findings=(Finding("missing", "no such file"),))
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        found = Finding("missing", "no such file") if missing else Finding("unreadable", f"{error.strerror}")
        return FileFacts(-1, None, findings=(found,))
    known: dict[str, Any] = {"size_bytes": status.st_size, "state": file_state(status), "decoded": decode}
    is_folder = path.is_dir()
    if not is_folder:
        try:
            known["sample"] = sampled_hash(path)
            known["content"] = content_hash(path) if whole else None
        except OSError as error:
            return FileFacts(**known, findings=(Finding("unreadable", f"cannot be read ({error.strerror})"),))
    try:
        if is_folder:
            with FrameFolder(path, fps) as folder:
                if decode:
                    for index in range(folder.num_frames):
                        folder.frames([index])
                known |= {"frames": folder.num_frames, "height": folder.height, "width": folder.width}
                known |= {"fps": folder.fps, "index": "folder"}
                findings = _size(folder.height, folder.width) + _others(folder)
        else:
            with Video(path) as video:
                known |= {"frames": video.num_frames, "fps": video.fps, "index": video.index}
                known |= {"height": video.height, "width": video.width}  # decodes the first frame
                known |= {"even": video.clock.even}
                findings = _oddities(video)
                if decode:
                    findings = _decode(video) + findings
    except VideoError as error:
        return FileFacts(**known, findings=(Finding(error.kind, error.reason),))
    return FileFacts(**known, findings=tuple(findings))


def _decode(video: Video) -> list[Finding]:
    """Decode every frame as training does.  Raises VideoError for a frame that training could not read."""
    findings = []
    try:
        with Video(video.path, strict=True) as strict:
            strict.check()
        video.reader.repeated |= strict.reader.repeated
    except VideoError as error:
        video.check()
        findings.append(Finding("concealed", f"FFmpeg conceals: {error.reason}"))
    if video.repeated:
        findings.append(Finding("repeated", f"{video.repeated} packets without a picture"))
    return findings


def _oddities(video: Video) -> list[Finding]:
    findings = []
    if video.turned:
        height, width = video.coded_size
        findings.append(Finding("rotated", f"{width} x {height} pixels displayed as {video.width} x {video.height}"))
    if (aspect := video.pixel_aspect) != 1:
        height, width = square_size(video.height, video.width, aspect)
        reason = (
            f"pixels of {aspect.numerator}:{aspect.denominator}, {video.width} x {video.height} of them meant to be "
        )
        findings.append(Finding("not-square", f"{reason}displayed as {width} x {height} (square_pixels corrects it)"))
    if (apart := _uneven(video)) is not None:
        findings.append(Finding("variable-rate", f"frames {apart[0]:.3g} to {apart[1]:.3g} seconds apart"))
    if _contradicts(video):
        reason = f"{video.stated_fps:.4g} frames per second in the header, {video.fps:.4g} by the time stamps"
        findings.append(Finding("stated-rate", reason))
    if video.fps <= 0:
        findings.append(Finding("odd-rate", "the file does not give a frame rate"))
    elif not FPS_RANGE[0] <= video.fps <= FPS_RANGE[1]:
        findings.append(Finding("odd-rate", f"{video.fps:.4g} frames per second"))
    return findings + _size(video.height, video.width)


def _contradicts(video: Video) -> bool:
    """Return True if the header states a rate that is not the mean rate by the time stamps, to 1 %."""
    return video.stated_fps > 0 and video.num_frames > 1 and abs(video.fps / video.stated_fps - 1) > STATED_TOLERANCE


def _size(height: int, width: int) -> list[Finding]:
    odd = height % 2 or width % 2 or min(height, width) < SMALLEST
    return [Finding("odd-size", f"{width} x {height} pixels")] if odd else []


def _others(folder: FrameFolder) -> list[Finding]:
    if not folder.others:
        return []
    names = ", ".join(map(path_text, folder.others[:_MOST_TOLD])) + (", …" if len(folder.others) > _MOST_TOLD else "")
    return [Finding("passed-over", f"{len(folder.others)} files in the folder are no images by their suffix: {names}")]


def _uneven(video: Video) -> tuple[float, float] | None:
    """Return the shortest and longest time of a frame in seconds, or None if they are equal up to rounding."""
    if video.clock.even or video.num_frames < 3:
        return None
    apart = np.diff(np.append(video.clock.starts, video.clock.lasting))
    usual = float(np.median(apart))
    if np.abs(apart - usual).max() <= max(1.5 * video.time_base, 0.1 * usual):
        return None
    return float(apart.min()), float(apart.max())
