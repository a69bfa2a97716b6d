"""The data of a run: a synthetic probe, or one's own videos in annotation files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    Tag,
    create_model,
    field_validator,
    model_validator,
)

from timesformer.data import READERS, Annotations, Augment, Preprocessing, RandAugment, read_annotations
from timesformer.data.annotations import read_labels
from timesformer.data.audit import fingerprint
from timesformer.data.fingerprint import Digests, Fingerprint, content_hash
from timesformer.data.probes import DIAL_TYPES, DIFFICULTY, KINDS, LABELS, Difficulty, Kind, generated_from, make_kind
from timesformer.errors import InputError
from timesformer.heads import Labels, check_labels
from timesformer_experiments.specs.splits import NEUTRAL, EvaluateOn, ValidationSet

T = TypeVar("T")


def _difficulty(value: Any) -> Difficulty:
    if isinstance(value, Difficulty):
        return value
    if isinstance(value, str) and value in DIFFICULTY:
        return DIFFICULTY[value]
    if not isinstance(value, dict):
        raise InputError(f"expected one of {', '.join(DIFFICULTY)} or its fields, got {value!r}")
    unknown = sorted(set(value) - set(Difficulty.__dataclass_fields__))
    if unknown:
        raise InputError(f"unknown field {unknown[0]!r}; expected some of {sorted(Difficulty.__dataclass_fields__)}")
    fields: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
    return _built(lambda fields: Difficulty(**fields), fields)


def _preprocessing(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"expected fields of a preprocessing record, got {value!r}")
    for name in ("num_frames", "crop"):
        if name in value:
            raise InputError(f"{name}: it follows from the model's configuration")
    # The other fields are checked against the model's sizes below, in RunSpec; here their names.
    _built(Preprocessing.from_dict, {"crop": 1, "short_side": 1, **value})
    return value


def _randaugment(value: Any) -> RandAugment | None:
    if value is None or isinstance(value, RandAugment):
        return value
    if not isinstance(value, dict):
        raise InputError(f"expected ops and magnitude, got {value!r}")
    unknown = sorted(set(value) - set(RandAugment.__dataclass_fields__))
    if unknown:
        raise InputError(f"unknown field {unknown[0]!r}; expected some of {sorted(RandAugment.__dataclass_fields__)}")
    return RandAugment(**value)


def _built(build: Callable[[dict[str, Any]], T], fields: dict[str, Any]) -> T:
    """Build an object from the fields; a value of the wrong type is bad input like any other."""
    try:
        return build(fields)
    except TypeError as error:
        raise InputError(f"a value has the wrong type ({error}), got {fields}") from error


class Strict(BaseModel):
    """Frozen; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Data(Strict):
    """Fields that both kinds of data share.

    stills: one frame of each video, for image models. jitter: (low, high) of the short side in training. flip: mirror a
    training clip with probability 1/2. colour_jitter: probability with which a training clip's colours are changed;
    randaugment: ops and magnitude (see `timesformer.data.Augment`). copies: number of different random clips of each
    training video (see `timesformer.data.VideoDataset`); None for a new one in every epoch. cache: keep decoded frames
    on disk. preprocessing: fields of `timesformer.data.Preprocessing` other than num_frames and crop, which follow from
    the model.
    """

    stills: bool = False
    jitter: tuple[int, int] | None = None
    flip: bool = False
    colour_jitter: float = 0.0
    randaugment: Annotated[
        RandAugment | None,
        PlainValidator(_randaugment),
        PlainSerializer(lambda value: None if value is None else asdict(value), return_type=dict | None),
    ] = None
    copies: int | None = Field(default=None, ge=1)
    cache: bool = True
    allow_unreadable: bool = False
    preprocessing: Annotated[dict[str, Any], PlainValidator(_preprocessing)] = Field(default_factory=dict)

    @field_validator("colour_jitter")
    @classmethod
    def _probability(cls, value: float) -> float:
        return Augment(colour_jitter=value).colour_jitter

    @property
    def trains_on_validation(self) -> bool:
        """True if a run that is evaluated on test trains on the validation videos too."""
        return bool(getattr(self, "train_on_validation", False))

    @property
    def augment(self) -> Augment:
        """Augmentation of the pixels of training clips."""
        return Augment(self.randaugment, self.colour_jitter)

    def identity(self, on: EvaluateOn = "test") -> dict[str, Any]:
        """Return the fields that define the data of a run that is evaluated on this split.

        No paths, and nothing that does not change a result.
        """
        return self.model_dump(mode="json", exclude={"cache"} | self._off())

    def _off(self) -> set[str]:
        """Fields that came later, where they are off: they are no part of what defines a run."""
        return {name for name in ("colour_jitter", "randaugment", "copies") if not getattr(self, name)}

    def default_short_side(self, crop: int) -> int:
        """The short side where the preprocessing does not state it."""
        return crop


if TYPE_CHECKING:
    _Dials = _Data
else:
    # A field for each dial of each kind, None for kinds without it; the kinds themselves say what they allow.
    _Dials = create_model("_Dials", __base__=_Data, **{name: (kind | None, None) for name, kind in DIAL_TYPES.items()})


class ProbeData(_Dials):
    """A synthetic probe, made when it is needed: one of `timesformer.data.probes.KINDS`, with its dials (see there)."""

    probe: str
    num_train: int = Field(ge=1)
    num_test: int = Field(ge=1)
    num_val: int = Field(default=0, ge=0)
    difficulty: Annotated[
        Difficulty, PlainValidator(_difficulty), PlainSerializer(lambda dial: dial.to_dict(), return_type=dict)
    ] = DIFFICULTY["quick"]
    seed: int = Field(default=0, ge=0)

    @field_validator("probe")
    @classmethod
    def _known_probe(cls, value: str) -> str:
        if value not in KINDS:
            raise InputError(f"expected one of {', '.join(KINDS)}, got {value!r}")
        return value

    @property
    def dials(self) -> dict[str, Any]:
        """The dials of this kind of probe."""
        return {name: getattr(self, name) for name in DIAL_TYPES if getattr(self, name) is not None}

    @property
    def kind(self) -> Kind:
        """Kind of the probe, with its dials."""
        return make_kind(self.probe, self.dials)

    def made_from(self) -> Fingerprint:
        """The fingerprint of the probe: its generator, dials, numbers and seed."""
        parameters = generated_from(self.kind, self.num_train, self.num_test, self.num_val, self.seed, self.difficulty)
        return Fingerprint(_digest(parameters))

    @property
    def num_classes(self) -> int:
        """Classes of the probe."""
        return len(LABELS[self.probe])

    def default_short_side(self, crop: int) -> int:
        """The videos' own size, so that nothing is resized and random crops move; for `detail` see there."""
        return self.kind.default_short_side(crop)

    @property
    def has_validation(self) -> bool:
        """True if there is a validation set."""
        return self.num_val > 0

    def _off(self) -> set[str]:
        return super()._off() | (set(DIAL_TYPES) - set(self.dials)) | ({"num_val"} if self.num_val == 0 else set())

    @model_validator(mode="after")
    def _possible(self) -> ProbeData:
        # A dial that is left out and one that states its default are the same run.
        kind = self.kind
        dials = kind.dials()
        for name in DIAL_TYPES:
            value = dials.get(name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)
        if self.flip and not kind.mirrored:
            raise InputError(
                f"flip: a mirrored clip of the {self.probe} probe may be one of another class; expected false"
            )
        for name, count in (("num_test", self.num_test), ("num_val", self.num_val)):
            if count % kind.together:
                expected = "an even number" if kind.together == 2 else f"a multiple of {kind.together}"
                raise InputError(f"{name}: expected {expected} ({kind.why_together}), got {count}")
        return self


class CsvData(_Data, ValidationSet):
    """One's own videos; relative paths are taken from `root`.

    format: of the annotation files, one of `timesformer.data.READERS`; `kinetics` has `path label` on each line.
    train_csv, test_csv, or train, test: annotation files; folders of classes for the format `folder`.
    num_classes: may be left out where there are class names; several heads have one number each.
    labels: class names; classes: a file of them (see `timesformer.data.read_class_names`); several heads have
    {head: names} or {head: file}.  Other names than the format's own are for formats that bring none.
    frame_fps: frames per second of folders of images, where the format does not know them (30).
    fingerprint: how the state of the videos' files is told: "sampled" (size, head, tail and pieces of each file) or
    "full" (all bytes); no part of the hash, as the videos' content stands beside it (see
    `timesformer_experiments.run.identity`).
    version: a name for this state of the videos, which is a part of the hash: for runs that differ in nothing else.
    val_csv, val_fraction, group, val_shares_groups: see `timesformer_experiments.specs.splits.ValidationSet`.
    """

    train_csv: Path = Field(validation_alias=AliasChoices("train_csv", "train"))
    test_csv: Path = Field(validation_alias=AliasChoices("test_csv", "test"))
    root: Path | None = None
    num_classes: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], ...] | None = None
    labels: tuple[str, ...] | dict[str, tuple[str, ...]] | None = None
    classes: Path | dict[str, Path] | None = None
    format: str = "kinetics"
    frame_fps: float | None = Field(default=None, gt=0)
    fingerprint: Literal["sampled", "full"] = "sampled"
    version: str | None = None
    _samples_sha256: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str) -> str:
        if value not in READERS:
            raise InputError(f"expected one of {', '.join(READERS)}, got {value!r}")
        return value

    @model_validator(mode="after")
    def _classes_known(self) -> CsvData:
        if self.labels is not None and self.classes is not None:
            raise InputError("labels, classes: expected one of them")
        if self.num_classes is None:
            found = self.train_annotations().num_classes
            if found is None:
                raise InputError(f"num_classes: needed, a file in the format {self.format} names no classes")
            object.__setattr__(self, "num_classes", found)
        elif isinstance(self.num_classes, tuple) and len(self.num_classes) == 1:
            object.__setattr__(self, "num_classes", self.num_classes[0])
        names = self._given_names()
        if names is not None:
            check_labels(names, self.heads)
        return self

    @property
    def heads(self) -> tuple[int, ...]:
        """Number of classes of each head."""
        assert self.num_classes is not None
        return self.num_classes if isinstance(self.num_classes, tuple) else (self.num_classes,)

    def _given_names(self) -> Labels | None:
        """The class names that the run states."""
        if self.classes is not None:
            return read_labels(self.classes)
        if isinstance(self.labels, dict):
            return {head: list(names) for head, names in self.labels.items()}
        return None if self.labels is None else list(self.labels)

    def train_annotations(self) -> Annotations:
        """The training list, with what `val_fraction` takes out of it.  Raises InputError."""
        return self._read(self.train_csv, self._given_names())

    def _read(self, path: Path, names: Labels | None) -> Annotations:
        found = read_annotations(self.format, path, self.root, self.num_classes, names, self.frame_fps)
        return self.grouped(found, path)

    def annotations(self, on: EvaluateOn = "test") -> tuple[Annotations, Annotations]:
        """Training set and the set that is evaluated, with the same classes.

        No other list is opened, save that the validation list of a run that is evaluated on test is held against the
        other two.  Raises InputError, also for a group on two sides.
        """
        train = self.train_annotations()
        val = None if self.val_csv is None else self._read(self.val_csv, train.labels)
        train, val = self.parted(train, val)
        test = self._read(self.test_csv, train.labels) if on == "test" else None
        self.require_apart(train=train, validation=val, test=test)
        if test is not None and self.train_on_validation and val is not None:
            train = self.joined(train, val)
        evaluated = val if test is None else test
        assert evaluated is not None
        return train, evaluated

    def videos(self, digests: Digests, on: EvaluateOn = "test") -> tuple[Fingerprint, Fingerprint]:
        """The state today of the files of the training videos and of those that are evaluated.

        Raises InputError for a malformed list.
        """
        train, evaluated = (fingerprint(found, digests) for found in self.annotations(on))
        return train, evaluated

    def has_other_videos(self, other: CsvData, on: EvaluateOn = "test") -> bool:
        """True where the lists of this and `other`, of the same content, lead to videos of other content."""
        lists = ("train_csv", "val_csv", "root", *(["test_csv"] if on == "test" else []))
        places = [[getattr(data, name) for name in lists] for data in (self, other)]
        if places[0] == places[1]:
            return False
        digests = Digests(full="full" in (self.fingerprint, other.fingerprint))
        return self.videos(digests, on) != other.videos(digests, on)

    def identity(self, on: EvaluateOn = "test") -> dict[str, Any]:
        """The lists by content, that of the test set where the run is evaluated on it.

        The videos' content stands beside the hash.

        Kinetics lists count by their files' content, those of other formats, which depend on further files, by what was
        read from them.
        """
        lists = (
            "train_csv",
            *(["val_csv"] if self.val_csv is not None else []),
            *(["test_csv"] if on == "test" else []),
        )
        paths = {"train_csv", "val_csv", "test_csv", "root", "classes"}
        plain = self.model_dump(mode="json", exclude={"cache", "frame_fps", "fingerprint"} | paths | self._off())
        if self.frame_fps is not None:
            plain["frame_fps"] = self.frame_fps
        if self.format != "kinetics":
            if on not in self._samples_sha256:
                self._samples_sha256[on] = _digest(self._content(lists))
            return plain | {"samples_sha256": self._samples_sha256[on]}
        if self.classes is not None:
            plain["class_names_sha256"] = _digest(self._given_names())
        for name in lists:
            path = getattr(self, name)
            if not path.is_file():
                raise InputError(f"data.{name}: no such annotation file: {path}")
            plain[f"{name}_sha256"] = content_hash(path)
        return plain

    def _content(self, lists: Sequence[str]) -> list[Any]:
        """Content of the lists, without paths; groups where the run states them."""
        train = self.train_annotations()
        found = [train, *(self._read(getattr(self, name), train.labels) for name in lists[1:])]
        groups = [[sample.group for sample in each] for each in found] if self.group is not None else []
        return [_plain(each) for each in found] + groups

    def _off(self) -> set[str]:
        later = NEUTRAL | {"version": None}
        return super()._off() | {name for name, value in later.items() if getattr(self, name) == value}


def _plain(found: Annotations) -> list[Any]:
    """Content of annotations without paths."""
    return [found.labels, [[s.name, s.label, s.start_frame, s.end_frame, s.fps] for s in found]]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()


def _kind(value: Any) -> str | None:
    if isinstance(value, dict):
        return "probe" if "probe" in value else "csv"
    return "probe" if isinstance(value, ProbeData) else "csv" if isinstance(value, CsvData) else None


DataSpec = Annotated[
    Annotated[ProbeData, Tag("probe")] | Annotated[CsvData, Tag("csv")],
    Discriminator(
        _kind,
        custom_error_type="data",
        custom_error_message="expected `probe: …` or `train_csv: …` with their fields",
    ),
]
