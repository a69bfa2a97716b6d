"""All files of a dataset examined at once, in threads, and what that says of each sample.

A state file remembers what was found of each file by path, size and time of modification, one JSON object a line, so
that an interrupted survey carries on and a second one only looks at what has changed.
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
from timesformer.data.fingerprint import Digests
from timesformer.data.video.open import segment_range
from timesformer.data.video.verdict import KINDS, UNREADABLE, FileFacts, Finding, examine, worst
from timesformer.errors import InputError

STATE_VERSION = 2
_AT_ONCE = 256  # files between two reports


@dataclass(frozen=True)
class SampleVerdict:
    """A sample, its file's facts and everything found; `verdict` is the weightiest word."""

    sample: Sample
    facts: FileFacts
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        """A word of `timesformer.data.video.verdict.KINDS`."""
        return worst(list(self.findings))

    @property
    def reason(self) -> str:
        """All findings in full."""
        return "; ".join(finding.reason for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """One row of a report."""
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
    """verdicts: one a sample, in order; examined, remembered: files looked at now, and known from the state file."""

    verdicts: tuple[SampleVerdict, ...]
    examined: int
    remembered: int
    decoded: bool
    whole: bool

    @property
    def unreadable(self) -> list[SampleVerdict]:
        """The samples that training and evaluation refuse."""
        return [found for found in self.verdicts if found.verdict in UNREADABLE]

    def summary(self) -> dict[str, Any]:
        """Figures over all samples, JSON-able.

        fingerprint: that of the records made with this data, from a digest of size, head, tail and pieces of each file.
        content_fingerprint: from the whole content of every file (records have it with `fingerprint: full`); None if
        content was not read (`whole` false).
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

    decode: every frame instead of the first
    whole: hash all bytes; otherwise duplicates are told by size, head, tail and pieces between them
    min_frames: fewer are `short`; workers: threads (default: four for each core); state: see above
    progress: called with files done and files in all

    Raises InputError if the state file cannot be written.  Files that cannot be read are findings.
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
    """Each file's findings, and those that take the list: segments, length, duplicates."""
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
    start, end = segment_range(sample, facts.frames, facts.fps or 0.0)
    if not 0 <= start < end <= facts.frames:
        reason = f"frames {start} to {end - 1} asked for, the video has 0 to {facts.frames - 1}"
        return [Finding("unreadable", reason)]
    findings = [Finding("one-frame", "one frame")] if end - start == 1 else []
    if end - start < min_frames:
        findings.append(Finding("short", f"{end - start} of at least {min_frames} frames"))
    return findings


def _other_label(first: Sample, second: Sample) -> str:
    return "" if first.label == second.label else f", there with label {first.label}"


def _key(path: Path) -> tuple[str, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return os.path.abspath(path), status.st_size, status.st_mtime_ns


def _load(state: Path) -> dict[tuple[str, int, int] | None, FileFacts]:
    """What is remembered; of lines that are no entries of this version (a crash may have torn one) nothing."""
    known: dict[tuple[str, int, int] | None, FileFacts] = {}
    try:
        lines = state.read_bytes().split(b"\n")
    except FileNotFoundError:
        return known
    except OSError as error:
        raise InputError(f"{state}: cannot read what was found before ({error.strerror})") from error
    for line in lines:
        try:
            entry = json.loads(line)
            if entry["version"] == STATE_VERSION:
                facts = FileFacts.from_dict(entry["facts"])
                known[entry["path"], facts.size_bytes, facts.modified_ns] = facts
        except (ValueError, TypeError, KeyError):
            continue
    return known


def _append(state: Path, found: Sequence[tuple[Path, FileFacts]]) -> None:
    """Add lines in one write, on disk when this returns; the first line break ends what a crash may have left."""
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
        raise InputError(f"{state}: cannot remember what was found ({error.strerror})") from error
