"""The data of a run: a synthetic probe, or one's own videos in csv lists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    Tag,
    field_validator,
    model_validator,
)

from timesformer.data import READERS, Preprocessing
from timesformer.data.files import content_hash
from timesformer.data.probes import DIFFICULTY, LABELS, Difficulty
from timesformer.errors import InputError

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


def _built(build: Callable[[dict[str, Any]], T], fields: dict[str, Any]) -> T:
    """What `build` makes of the fields; a value of the wrong type is bad input as any other."""
    try:
        return build(fields)
    except TypeError as error:
        raise InputError(f"a value has the wrong type ({error}), got {fields}") from error


class Strict(BaseModel):
    """Frozen; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Data(Strict):
    """What both kinds of data have.

    stills: one frame of each video, for image models.  jitter: (low, high) of the short side in training.  flip: mirror
    every second training clip.  cache: keep decoded frames on disk.  preprocessing: fields of
    `timesformer.data.Preprocessing` other than num_frames and crop, which follow from the model.
    """

    stills: bool = False
    jitter: tuple[int, int] | None = None
    flip: bool = False
    cache: bool = True
    allow_unreadable: bool = False
    preprocessing: Annotated[dict[str, Any], PlainValidator(_preprocessing)] = Field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """What defines the data: no paths, nothing that changes no result."""
        return self.model_dump(mode="json", exclude={"cache"})

    def default_short_side(self, crop: int) -> int:
        """The short side where the preprocessing does not state it."""
        return crop


class ProbeData(_Data):
    """A synthetic probe: `appearance` or `motion`, made when it is needed."""

    probe: Literal["appearance", "motion"]
    num_train: int = Field(ge=1)
    num_test: int = Field(ge=1)
    difficulty: Annotated[
        Difficulty, PlainValidator(_difficulty), PlainSerializer(lambda dial: dial.to_dict(), return_type=dict)
    ] = DIFFICULTY["quick"]
    seed: int = Field(default=0, ge=0)

    @property
    def num_classes(self) -> int:
        """Classes of the probe."""
        return len(LABELS[self.probe])

    def default_short_side(self, crop: int) -> int:
        """The videos' own size (40 pixels), so that nothing is resized and random crops move."""
        return max(crop, 40)

    @model_validator(mode="after")
    def _no_flip(self) -> ProbeData:
        if self.flip and self.probe == "motion":
            raise InputError("flip: a mirrored clip of the motion probe is one of another class; expected false")
        if self.probe == "motion" and self.num_test % 2:
            raise InputError(f"num_test: expected an even number (each clip and its reversal), got {self.num_test}")
        return self


class CsvData(_Data):
    """One's own videos; relative paths are taken from `root`.

    format: of the annotation files, one of `timesformer.data.READERS`; `kinetics` has `path label` on each line.
    """

    train_csv: Path
    test_csv: Path
    root: Path | None = None
    num_classes: int = Field(ge=1)
    labels: tuple[str, ...] | None = None
    format: str = "kinetics"

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str) -> str:
        if value not in READERS:
            raise InputError(f"expected one of {', '.join(READERS)}, got {value!r}")
        return value

    def identity(self) -> dict[str, Any]:
        """The lists by content; their videos are in the audit of the record."""
        files = {}
        for name in ("train_csv", "test_csv"):
            path = getattr(self, name)
            if not path.is_file():
                raise InputError(f"data.{name}: no such annotation file: {path}")
            files[f"{name}_sha256"] = content_hash(path)
        return self.model_dump(mode="json", exclude={"cache", "train_csv", "test_csv", "root"}) | files


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
