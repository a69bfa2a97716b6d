"""Survey of all files of a dataset, in threads, with a verdict on each sample.

A state file stores the findings about each file by path, inode, size and times of change, one JSON object per line.
An interrupted survey thus continues where it stopped, and a later one examines only changed files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from timesformer.data.annotations import Sample
from timesformer.data.audit import fingerprint, histogram, stated, total
from timesformer.data.fingerprint import Digests, FileState, file_state
from timesformer.data.video.clock import Clock
from timesformer.data.video.error import VideoError
from timesformer.data.video.open import open_video, segment_range
from timesformer.data.video.verdict import KINDS, UNREADABLE, FileFacts, Finding, examine, worst
from timesformer.errors import InputError

STATE_VERSION = 5
_Key = tuple[str, FileState]
_AT_ONCE = 256  # files between two reports


@dataclass(frozen=True)
class SampleVerdict:
    """Verdict on a sample, with the properties of its file and all findings."""

    sample: Sample
    facts: FileFacts
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        """Most serious verdict, one of `timesformer.data.video.verdict.KINDS`."""
        return worst(list(self.findings))

    @property
    def reason(self) -> str:
        """Descriptions of all findings."""
        return "; ".join(finding.reason for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the row of a report."""
        facts, label = self.facts, self.sample.label
        return {
            "name": self.sample.name,
            "path": self.sample.place,
            "label": list(label) if isinstance(label, tuple) else label,
            "verdict": self.verdict,
            "also": sorted({finding.kind for finding in self.findings} - {self.verdict}),
            "reason": self.reason,
            "frames": facts.frames,
            "fps": facts.fps,
            "height": facts.height,
            "width": facts.width,
            "size_bytes": max(facts.size_bytes, 0),
            "sha256": facts.content,
        }


@dataclass(frozen=True)
class Survey:
    """Result of a survey.

    verdicts: one per sample, in order
    examined, remembered: number of files examined now, and of files known from the state file
    decoded: True if every frame was decoded; whole: True if the whole content of every file was hashed
    """

    verdicts: tuple[SampleVerdict, ...]
    examined: int
    remembered: int
    decoded: bool
    whole: bool

    @property
    def unreadable(self) -> list[SampleVerdict]:
        """Samples that training and evaluation reject."""
        return [found for found in self.verdicts if found.verdict in UNREADABLE]

    def summary(self) -> dict[str, Any]:
        """Summarise all samples, as JSON values.

        fingerprint: fingerprint that records of this dataset contain, from a digest of size, head, tail and pieces of
        each file
        content_fingerprint: fingerprint from the whole content of every file (in records with `fingerprint: full`);
        None if the content was not read (`whole` false)
        """
        kinds = [found.verdict for found in self.verdicts]
        return {
            "num_samples": len(self.verdicts),
            "num_files": self.examined + self.remembered,
            "num_unreadable": len(self.unreadable),
            "verdicts": {kind: kinds.count(kind) for kind in KINDS if kind in kinds},
            "labels": histogram(found.sample for found in self.verdicts),
            "decoded": self.decoded,
            "fingerprint": self._fingerprint(whole=False),
            "content_fingerprint": self._fingerprint(whole=True) if self.whole else None,
        }

    def _fingerprint(self, whole: bool) -> str:
        """The one of records, without reading again what has been read."""
        contents = []
        for found in self.verdicts:
            sample, digest = found.sample, found.facts.content if whole else found.facts.sample
            if digest is None:  # a folder of images, or nothing readable
                (content,) = fingerprint([sample], Digests(full=whole)).files.values()
            else:
                content = stated(sample, digest)
            contents.append((sample, content))
        return total(contents)


def survey(
    samples: Sequence[Sample],
    *,
    decode: bool = False,
    whole: bool = True,
    min_frames: int = 1,
    workers: int | None = None,
    state: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Survey:
    """Examine the files of all samples.

    decode: decode every frame instead of the first
    whole: hash all bytes, for the content fingerprint; otherwise duplicates are detected by size, head, tail and pieces
    min_frames: samples with fewer frames are `short`; workers: number of threads (default: four per core)
    state: path of the state file (see the module's docstring); None: no state is kept
    progress: function called with the numbers of files done and of all files

    Raises InputError if the state file cannot be read or written.  A file that cannot be read raises no error; it gets
    a finding.
    """
    wanted = {sample.path: sample.fps for sample in samples}
    facts: dict[Path, FileFacts] = {}
    if state is not None:
        known = _load(state)
        for path in wanted:
            found = known.get(_key(path))
            if found is not None and found.decoded >= decode and (found.content is not None or not whole):
                facts[path] = found
    remembered = len(facts)
    left = [path for path in wanted if path not in facts]
    progress(remembered, len(wanted))
    with ThreadPoolExecutor(workers or 4 * (os.cpu_count() or 1)) as pool:
        for start in range(0, len(left), _AT_ONCE):
            paths = left[start : start + _AT_ONCE]
            look = partial(_examine, decode=decode, whole=whole, rates=wanted)
            found_now = list(zip(paths, pool.map(look, paths), strict=True))
            facts.update(found_now)
            if state is not None:
                _append(state, [(path, found) for path, found in found_now if found.content or found.sample])
            progress(len(facts), len(wanted))
    verdicts = tuple(_verdicts(samples, facts, min_frames))
    return Survey(verdicts, len(left), remembered, decode, whole)


def _examine(path: Path, decode: bool, whole: bool, rates: dict[Path, float | None]) -> FileFacts:
    return examine(path, decode=decode, whole=whole, fps=rates[path])


def _verdicts(samples: Sequence[Sample], facts: dict[Path, FileFacts], min_frames: int) -> Iterator[SampleVerdict]:
    """Yield each sample's verdict: findings about its file, its segment, its length, and duplicates in the list."""
    places: dict[str, Sample] = {}
    contents: dict[str, Sample] = {}
    for sample in samples:
        found = facts[sample.path]
        findings = list(found.findings)
        if worst(findings) not in UNREADABLE and found.frames is not None:
            findings += _length(sample, found, min_frames)
        content = found.content or found.sample
        first = places.setdefault(sample.place, sample)
        if first is not sample:
            findings.append(Finding("duplicate", f"listed before{_other_label(first, sample)}"))
        elif content is not None and found.size_bytes:
            twin = contents.setdefault(f"{content} {sample.start_frame} {sample.end_frame}", sample)
            if twin is not sample:
                findings.append(Finding("duplicate", f"same content as {twin.name}{_other_label(twin, sample)}"))
        yield SampleVerdict(sample, found, tuple(findings))


def _length(sample: Sample, facts: FileFacts, min_frames: int) -> list[Finding]:
    assert facts.frames is not None
    start, end = 0, facts.frames
    if sample.is_segment and sample.fps is not None and not facts.even:  # by the time of each frame
        try:
            with open_video(sample) as segment:
                end = segment.num_frames
        except VideoError as error:
            return [Finding("unreadable", error.reason)]
    elif sample.is_segment:
        start, end = segment_range(sample, Clock.at_rate(facts.frames, facts.fps or 0.0))
    if not 0 <= start < end <= facts.frames:
        reason = f"frames {start} to {end - 1} requested, but the video has frames 0 to {facts.frames - 1}"
        return [Finding("unreadable", reason)]
    findings = [Finding("one-frame", "one frame")] if end - start == 1 else []
    if end - start < min_frames:
        findings.append(Finding("short", f"{end - start} of at least {min_frames} frames"))
    return findings


def _other_label(first: Sample, second: Sample) -> str:
    return "" if first.label == second.label else f", there with label {first.label}"


def _key(path: Path) -> _Key | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return os.path.abspath(path), file_state(status)


def _load(state: Path) -> dict[_Key | None, FileFacts]:
    """Read the state file, ignoring lines that are not entries of this version (a crash may have truncated one)."""
    known: dict[_Key | None, FileFacts] = {}
    try:
        lines = state.read_bytes().split(b"\n")
    except FileNotFoundError:
        return known
    except OSError as error:
        raise InputError(f"{state}: cannot read the state of an earlier survey ({error.strerror})") from error
    for line in lines:
        try:
            entry = json.loads(line)
            if entry["version"] == STATE_VERSION:
                facts = FileFacts.from_dict(entry["facts"])
                if facts.state is not None:
                    known[entry["path"], facts.state] = facts
        except (ValueError, TypeError, KeyError):
            continue
    return known


def _append(state: Path, found: Sequence[tuple[Path, FileFacts]]) -> None:
    """Append lines in one write and flush them to disk.  The first line break ends what a crash may have left."""
    if not found:
        return
    lines = [
        json.dumps({"version": STATE_VERSION, "path": os.path.abspath(path), "facts": facts.to_dict()})
        for path, facts in found
    ]
    try:
        state.parent.mkdir(parents=True, exist_ok=True)
        with open(state, "ab") as file:
            file.write(b"\n" + "\n".join(lines).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"{state}: cannot write the state of the survey ({error.strerror})") from error
