"""The data that a run's result belongs to, beside the hash of its definition.

The state of a run's videos is a `Fingerprint` for training, one for the split that is evaluated, and one for validation
videos that decided which weights were kept or when training ended: of the files of
one's own videos, of the generator, dials and seed of a probe, which may be made again.  The list of another split is
not opened.  A record keeps both (`dataset.identity`), the run's folder the digest of every file (`train.videos.json`,
and `test.videos.json` or `validation.videos.json`), so that what has changed can be named.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from timesformer.data.fingerprint import Digests, Fingerprint
from timesformer.errors import InputError
from timesformer_experiments.records.folder import RunFolder
from timesformer_experiments.specs.run import CsvData, ProbeData, RunSpec
from timesformer_experiments.specs.splits import EvaluateOn

STORE = "fingerprints.jsonl"
"""In the folder of probes and frames: digests of files, remembered between runs."""


class OtherData(InputError):
    """A stored result, or a checkpoint, belongs to videos that are not today's."""


@dataclass(frozen=True)
class Identity:
    """The state of a run's training videos, of those that it is evaluated on, and of those that chose its weights."""

    train: Fingerprint
    evaluated: Fingerprint
    kind: str
    on: EvaluateOn = "test"
    validation: Fingerprint | None = None

    @property
    def halves(self) -> tuple[tuple[str, Fingerprint], ...]:
        """The sets of videos by the names of their splits."""
        chose = () if self.validation is None else (("validation", self.validation),)
        return ("train", self.train), (self.on, self.evaluated), *chose

    def stated(self) -> dict[str, Any]:
        """Plain values for a record."""
        return {
            "kind": self.kind,
            "full": self.train.full,
            "train": self.train.sha256,
            **{half: videos.sha256 for half, videos in self.halves[1:]},
            "start": self.train.start,
        }

    def require_unchanged(self, now: Identity, name: str) -> None:
        """Require the videos to be as they were when a run began; OtherData where they have changed."""
        found = [
            f"{half}: {change}"
            for (half, before), (_, after) in zip(self.halves, now.halves, strict=True)
            if (change := before.changes(after))
        ]
        if found:
            raise OtherData(f"run {name!r}: its videos changed while it was at work: {'; '.join(found)}")

    def write(self, folder: RunFolder) -> None:
        """Keep the digest of every file in a run's folder; of a probe there is nothing that the record does not say."""
        for half, fingerprint in self.halves:
            if fingerprint.files:
                fingerprint.write(_kept(folder, half))


@dataclass
class Identities:
    """View of the data of runs: each set of videos is read once; digests are remembered in `data_dir`."""

    data_dir: Path
    _seen: dict[Any, tuple[Fingerprint, Fingerprint]] = field(default_factory=dict, init=False, repr=False)
    _held: set[str] = field(default_factory=set, init=False, repr=False)
    _digests: dict[bool, Digests] = field(default_factory=dict, init=False, repr=False)

    def of(self, spec: RunSpec, full: bool | None = None) -> Identity:
        """The state of a run's videos today.  full: by all bytes of each file; by default as the run says.

        Raises InputError for a malformed list of videos.
        """
        start = self.of(spec.init_from, full=False).train.chain if isinstance(spec.init_from, RunSpec) else None
        data = spec.data
        if isinstance(data, ProbeData):
            made = data.made_from()
            return Identity(replace(made, start=start), made, "probe", spec.evaluate_on)
        full = data.fingerprint == "full" if full is None else full
        chose = spec.recipe.chooses and spec.evaluate_on == "test"
        train, evaluated = self._of(data, full, spec.evaluate_on)
        validation = self._of(data, full, "validation")[1] if chose else None
        return Identity(replace(train, start=start), evaluated, "files", spec.evaluate_on, validation)

    def _of(self, data: CsvData, full: bool, on: EvaluateOn) -> tuple[Fingerprint, Fingerprint]:
        key = (full, on, data.model_dump_json(exclude={"cache", "preprocessing", "jitter", "flip"}))
        if key not in self._seen:
            if full not in self._digests:
                self._digests[full] = Digests(self.data_dir / STORE, full)
            self._seen[key] = data.videos(self._digests[full], on)
        return self._seen[key]

    def require(self, spec: RunSpec, record: dict[str, Any], folder: RunFolder) -> None:
        """Require the record of a finished run, and of those that it starts from, to belong to today's videos.

        Raises OtherData where it does not.

        A record from before there were identities (version 1) is held against the audit of its videos, by all bytes; of
        a probe it is valid, since the hash says how the probe is made.
        """
        dataset = record["dataset"]
        if "train" not in dataset:  # only counted or measured
            return
        stated = dataset.get("identity")
        if (
            stated is not None
            and not stated["full"]
            and isinstance(spec.data, CsvData)
            and spec.data.fingerprint == "full"
        ):
            raise OtherData(
                f"run {spec.name!r}: its stored result knows its videos by samples of each file, but the run states "
                f"fingerprint: full. State sampled to take the result, or train anew after removing {folder.path}"
            )
        changes = self._changes_since_1(spec, dataset) if stated is None else self._changes(spec, stated, folder)
        if changes:
            raise OtherData(
                f"run {spec.name!r}: its stored result belongs to other videos: {changes}. Put those videos back, or "
                f"train on today's: in another folder of runs, or after removing {folder.path}"
            )
        self._held.add(folder.key)
        if isinstance(spec.init_from, RunSpec) and spec.init_from.hash() not in self._held:
            source = RunFolder(folder.runs_dir, spec.init_from.hash())
            before = source.record()
            if before is not None:
                self.require(spec.init_from, before, source)

    def _changes(self, spec: RunSpec, stated: dict[str, Any], folder: RunFolder) -> str:
        now = self.of(spec, stated["full"])
        found = []
        for half, today in now.halves:
            start = stated["start"] if half == "train" else None
            if (stated[half], start) == (today.sha256, today.start):
                continue
            kept = Fingerprint.read_from(_kept(folder, half))
            if kept is None or (kept.sha256, kept.start) != (stated[half], start):
                kept = Fingerprint(stated[half], {}, start)
            found.append(f"{half}: {_named(kept, today)}")
        return "; ".join(dict.fromkeys(found))

    def _changes_since_1(self, spec: RunSpec, dataset: dict[str, Any]) -> str:
        if isinstance(spec.data, ProbeData):
            return ""
        now = self.of(spec, full=True)
        changed = [half for half, today in now.halves if dataset[half]["fingerprint"] != today.sha256]
        return "; ".join(f"{half}: some of its files have changed" for half in changed)


def _named(kept: Fingerprint, today: Fingerprint) -> str:
    if today.files and not kept.files and kept.sha256 != today.sha256:
        return "some of its files have changed (which ones was not kept)"
    return kept.changes(today)


def _kept(folder: RunFolder, half: str) -> Path:
    return folder.path / f"{half}.videos.json"
