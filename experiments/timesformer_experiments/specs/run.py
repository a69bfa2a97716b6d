"""Description of a training run: validated, read from YAML, with a hash by which its results are found."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from accelerate.utils import LoggerType
from pydantic import (
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from timesformer.attention import load_file
from timesformer.checkpoints import InitHead, locate, stated_classes, weight_files
from timesformer.config.cnn import CnnConfig
from timesformer.config.registry import ModelConfig, read_config
from timesformer.data import Preprocessing
from timesformer.data.fingerprint import content_hash
from timesformer.errors import InputError
from timesformer.evaluation.evaluate import protocol_named
from timesformer.training.recipe import Recipe
from timesformer.training.sharding import Strategy
from timesformer_experiments.specs.data import CsvData, DataSpec, ProbeData, Strict
from timesformer_experiments.specs.hashing import HASH_LENGTH, defining_fields, hash_of
from timesformer_experiments.specs.init_from import continued
from timesformer_experiments.specs.reading import read_yaml
from timesformer_experiments.specs.splits import EvaluateOn, Selection
from timesformer_experiments.specs.stem import require_trainable

__all__ = ["CsvData", "ProbeData", "RunSpec", "load_scheme_file", "load_specs", "resolve", "with_dependencies"]

TRACKERS = tuple(sorted(kind.value for kind in LoggerType if kind != LoggerType.ALL))


def _recipe(value: Any) -> Recipe:
    if isinstance(value, Recipe):
        return value
    if not isinstance(value, dict):
        raise InputError(f"expected fields of a recipe, got {value!r}")
    if "seed" in value:
        raise InputError("seed: it belongs to the run, beside the recipe")
    return Recipe.from_dict(value)


class RunSpec(Strict):
    """One training run and its evaluation.

    model: fields of `TimeSformerConfig`, or of `CnnConfig` where there is a field `baseline`; `num_classes` is taken
    from the data if left out.  recipe: fields of `Recipe`, without the seed.  protocol: see
    `timesformer.evaluation.evaluate.PROTOCOLS`.  evaluate_on: the test set, or validation alone, without the test list.
    init_from: a checkpoint of any format (folder, file, hub name), or another run: itself, or its name or hash, where
    several are run together.  init_head: whether the classifier of what it starts from is kept: where the classes have
    the same "names", where they are as many ("number"), or never ("fresh").  scheme_file: a Python file with an
    attention scheme of one's own.

    These are recorded, but are no part of the hash.  threads: torch's threads, None for torch's own choice.  processes:
    that share each batch, one a GPU, or on a CPU; strategy: how, "ddp" or "fsdp" (see `timesformer.training.loop.fit`).
    The result is that of one process within rounding, except where processes draw or average on their own (dropout,
    drop path, batch norm, mixup, unreadable videos left out): there their number is part of the hash.  tracker: one of
    accelerate's by name, such as tensorboard; its logs lie in the run's folder.  selection: how the recipe was chosen.

    A run that starts from a checkpoint and does not name an attention scheme takes the checkpoint's model and
    preprocessing, save what it states of either.
    """

    kind: ClassVar[Literal["accuracy"]] = "accuracy"

    name: str = Field(min_length=1)
    seed: int = Field(default=0, ge=0)
    scheme_file: Path | None = None
    data: DataSpec
    model: Annotated[
        ModelConfig,
        PlainValidator(lambda value: value),
        PlainSerializer(lambda config: config.to_dict(), return_type=dict),
    ]
    recipe: Annotated[
        Recipe, PlainValidator(_recipe), PlainSerializer(lambda recipe: recipe.defining(), return_type=dict)
    ]
    protocol: str = "paper"
    evaluate_on: EvaluateOn = "test"
    init_from: RunSpec | str | None = None
    init_head: InitHead = "names"
    threads: int | None = Field(default=None, ge=1)
    processes: int = Field(default=1, ge=1)
    strategy: Strategy = "ddp"
    tracker: str | None = None
    selection: Selection | None = None

    @model_validator(mode="before")
    @classmethod
    def _continued(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("scheme_file") is not None:
            load_scheme_file(Path(values["scheme_file"]))
        return continued(values)

    @field_validator("model", mode="wrap")
    @classmethod
    def _model(cls, value: Any, _: Any, info: ValidationInfo) -> ModelConfig:
        data, scheme_file = info.data.get("data"), info.data.get("scheme_file")
        if scheme_file is not None:
            load_scheme_file(scheme_file)
        if isinstance(value, dict):
            if data is not None:
                value = {"num_classes": data.num_classes} | value
            value = read_config(value)
        if not isinstance(value, ModelConfig):
            raise InputError(f"expected fields of a model's configuration, got {value!r}")
        if data is not None and value.num_classes != data.num_classes:
            raise InputError(f"num_classes: {value.num_classes} here, but the data have {data.num_classes}")
        return value

    @field_validator("protocol")
    @classmethod
    def _protocol(cls, value: str) -> str:
        return protocol_named(value).name

    @field_validator("tracker")
    @classmethod
    def _known_tracker(cls, value: str | None) -> str | None:
        if value is not None and value not in TRACKERS:
            raise InputError(f"expected one of {', '.join(TRACKERS)}, got {value!r}")
        return value

    @model_validator(mode="after")
    def _agree(self) -> RunSpec:
        if self.recipe.seed not in (0, self.seed):
            raise InputError(f"recipe: seed {self.recipe.seed} here, but the run's is {self.seed}")
        if self.evaluate_on == "validation" and not self.data.has_validation:
            raise InputError(
                "evaluate_on: the data have no validation set; expected num_val, val or val_fraction there"
            )
        if self.recipe.validate_every is not None and not self.data.has_validation:
            raise InputError(
                "recipe.validate_every: the data have no validation set; expected num_val, val or val_fraction there"
            )
        if self.data.stills and self.model.num_frames != 1:
            raise InputError(f"data.stills: an image model has num_frames 1, got {self.model.num_frames}")
        if self.recipe.batch_size // self.recipe.accumulate % self.processes:
            raise InputError(
                f"processes: {self.processes} cannot share batch_size / accumulate = "
                f"{self.recipe.batch_size // self.recipe.accumulate} clips equally"
            )
        if self.data.trains_on_validation and self.recipe.validate_every is not None and self.evaluate_on == "test":
            raise InputError(
                "recipe.validate_every: data.train_on_validation leaves no validation videos to a test run"
            )
        protocol_named(self.protocol).views.require_fitting(self.preprocessing, self.data.stills)
        require_trainable(self.model, self.recipe, self.data.copies, self.processes, self.protocol)
        return self

    @property
    def preprocessing(self) -> Preprocessing:
        """The record that travels with the model."""
        height, width = self.model.height_width
        fields = {"short_side": self.data.default_short_side(min(height, width)), **self.data.preprocessing}
        crop = height if height == width else (height, width)
        return Preprocessing.from_dict({**fields, "crop": crop, "num_frames": self.model.num_frames})

    def definition(self) -> dict[str, Any]:
        """Everything that decides the result, and nothing else: neither names nor paths nor numbers of threads.

        Raises InputError if `init_from` is neither a checkpoint nor resolved (see `resolve`).
        """
        if self.scheme_file is not None:  # a worker process has not read this file yet
            load_scheme_file(self.scheme_file)
        init: str | None = None
        if isinstance(self.init_from, RunSpec):
            init = self.init_from.hash()
        elif self.init_from is not None:
            init = f"sha256:{_weights_hash(located(self.init_from))}"
        return {
            "seed": self.seed,
            "data": self.data.identity(self.evaluate_on) | {"preprocessing": self.preprocessing.defining()},
            "model": defining_fields(self.model),
            "recipe": {key: value for key, value in self.recipe.defining().items() if key != "seed"},
            "protocol": self.protocol,
            "init_from": init,
            "scheme_file_sha256": None if self.scheme_file is None else content_hash(self.scheme_file),
            **({"evaluate_on": self.evaluate_on} if self.evaluate_on != "test" else {}),
            **({"processes": self.processes} if self._processes_matter() else {}),
            # "number" is how it was before there was a choice; without a start there is nothing to choose.
            **({"init_head": self.init_head} if init is not None and self.init_head != "number" else {}),
            **self._classes_of_start(),
        }

    def _classes_of_start(self) -> dict[str, Any]:
        """The class names of a checkpoint that decide which rows of its head are kept; another run's follow from it."""
        if not isinstance(self.init_from, str) or self.init_head != "names":
            return {}
        names = stated_classes(located(self.init_from))
        return {} if names is None else {"init_classes": hash_of(names)}

    def _processes_matter(self) -> bool:
        """True if several processes give a different result: each draws its own noise or takes its own mean."""
        own = self.model.drop_rate or self.model.drop_path_rate or self.recipe.mixup_alpha
        batch_norm = isinstance(self.model, CnnConfig)
        return self.processes > 1 and bool(own or batch_norm or self.data.allow_unreadable)

    def hash(self) -> str:
        """16 hexadecimal digits of the definition's sha256."""
        return hash_of(self.definition())

    @classmethod
    def parse(cls, values: Any, source: str | Path = "run") -> RunSpec:
        """A run from plain data.  Raises InputError that names `source` and the field."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(describe(error, source)) from error


def load_scheme_file(path: Path) -> None:
    """Register the schemes of a file, once per process.  Raises InputError for a file that does not give any."""
    if not path.is_file():
        raise InputError(f"scheme_file: no such file: {path}")
    _load_once(path, content_hash(path))


@cache
def _load_once(path: Path, _: str) -> None:
    load_file(path)


def located(init_from: str) -> Path:
    """The local file or folder of a checkpoint, of any format; a name on the hub is downloaded."""
    try:
        path = locate(init_from)
        weight_files(path)
    except InputError as error:
        raise InputError(
            f"init_from: {init_from!r} is neither the name nor the hash of another run nor a model's folder, "
            f"checkpoint file or name on the hub ({error})"
        ) from error
    return path


def _weights_hash(path: Path) -> str:
    """sha256 of the file that holds the weights, or of the hashes of several, a line each."""
    hashes = [content_hash(file) for file in weight_files(path)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def describe(error: ValidationError, source: str | Path) -> str:
    """pydantic's findings, a line each: `file: field: what was expected`."""
    lines = []
    for found in error.errors():
        # Behind `data` and `init_from` pydantic adds the kind that it took them for, which is no field.
        location = found["loc"]
        if location[-2:] == ("init_from", "str") and isinstance(found["input"], dict):
            continue  # it is a run, whose own faults are named
        kinds = {i for i, part in enumerate(location) if (i and location[i - 1] == "data") or "RunSpec" in str(part)}
        fields = [str(part) for i, part in enumerate(location) if i not in kinds]
        place = ".".join(fields)
        text = found["msg"].removeprefix("Value error, ").replace("Extra inputs are not permitted", "unknown field")
        if found["type"] not in ("value_error", "missing", "data"):
            text += f", got {found['input']!r}"
        lines.append(f"{source}: {place}: {text}" if place else f"{source}: {text}")
    return "\n".join(lines)


def load_specs(path: str | Path) -> list[RunSpec]:
    """The runs of a YAML file: one run, or `runs:` with a list of them; `defaults:` beside it holds shared fields.

    Fields of `defaults` that are mappings (model, data, recipe) are completed field by field.  Paths are taken from the
    file's folder.  Raises InputError that names the file and the field.
    """
    path = Path(path)
    values = read_yaml(path, "a run")
    if "runs" not in values:
        return resolve([RunSpec.parse(absolute_paths(values, path.parent), path)])
    unknown = sorted(set(values) - {"runs", "defaults"})
    if unknown:
        raise InputError(f"{path}: unknown field {unknown[0]!r} beside runs; expected defaults")
    runs, defaults = values["runs"], values.get("defaults") or {}
    if not isinstance(runs, list) or not runs or not isinstance(defaults, dict):
        raise InputError(f"{path}: runs: expected a list of runs, and defaults: a mapping")
    specs = []
    for number, run in enumerate(runs):
        if not isinstance(run, dict):
            raise InputError(f"{path}: runs.{number}: expected the fields of a run, got {run!r}")
        values = absolute_paths(_completed(run, defaults), path.parent)
        specs.append(RunSpec.parse(values, f"{path}: runs.{number}"))
    return resolve(specs)


def _completed(run: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    merged = defaults | run
    for key, value in defaults.items():
        if isinstance(value, dict) and isinstance(run.get(key), dict):
            merged[key] = value | run[key]
    return merged


def absolute_paths(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """Paths of a run's description made absolute; `init_from` only where there is such a checkpoint."""
    values = dict(values)
    if isinstance(values.get("scheme_file"), str):
        values["scheme_file"] = str(base / values["scheme_file"])
    data = values.get("data")
    if isinstance(data, dict):
        keys = [
            key
            for key in ("train_csv", "test_csv", "val_csv", "train", "test", "val", "root", "classes")
            if key in data
        ]
        values["data"] = data | {key: _from(base, data[key]) for key in keys}
    init = values.get("init_from")
    if isinstance(init, str) and (base / init).exists():
        with suppress(InputError):  # a folder without weights: the name of a run
            weight_files(base / init)
            values["init_from"] = str(base / init)
    elif isinstance(init, dict):
        values["init_from"] = absolute_paths(init, base)
    return values


def _from(base: Path, value: Any) -> Any:
    """A path, or the paths of several heads, from a folder."""
    if isinstance(value, dict):
        return {head: _from(base, path) for head, path in value.items()}
    return str(base / value) if isinstance(value, str) else value


def resolve(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """The same runs with `init_from` a run instead of another's name or hash.

    Raises InputError for runs that start from each other in a circle, for two different runs of one name, and for an
    `init_from` that is neither a run's name or hash nor a checkpoint.
    """
    by_name: dict[str, RunSpec] = {}
    for spec in specs:
        if by_name.setdefault(spec.name, spec) != spec:
            raise InputError(f"name: two different runs are called {spec.name!r}")
    done: dict[str, RunSpec] = {}

    def resolved(spec: RunSpec, path: tuple[str, ...]) -> RunSpec:
        if spec.name in path:
            raise InputError(f"init_from: runs start from each other in a circle: {' <- '.join((*path, spec.name))}")
        if spec.name not in done:
            done[spec.name] = spec
            if isinstance(spec.init_from, str):
                source = by_name.get(spec.init_from) or by_hash(spec, path)
                if source is not None:
                    source = resolved(source, (*path, spec.name))
                    done[spec.name] = spec.model_copy(update={"init_from": source})
                else:
                    done[spec.name] = spec.model_copy(update={"init_from": str(located(spec.init_from))})
        return done[spec.name]

    def by_hash(spec: RunSpec, path: tuple[str, ...]) -> RunSpec | None:
        wanted = str(spec.init_from)
        if len(wanted) != HASH_LENGTH:
            return None
        others = (resolved(other, (*path, spec.name)) for other in specs if not isinstance(other.init_from, str))
        return next((other for other in others if other.hash() == wanted), None)

    return [resolved(spec, ()) for spec in specs]


def with_dependencies(specs: Iterable[RunSpec]) -> dict[str, RunSpec]:
    """All runs that are needed, by hash, each after the run that it starts from.

    Raises InputError for two runs that differ in nothing but the content of their videos.
    """
    found: dict[str, RunSpec] = {}
    for spec in specs:
        chain = [spec]
        while isinstance(chain[-1].init_from, RunSpec):
            chain.append(chain[-1].init_from)
        for link in reversed(chain):
            other = found.setdefault(link.hash(), link)
            if other is not link and differ_in_videos(other, link):
                raise InputError(
                    f"{link.name}: it differs from {other.name!r} in the content of its videos alone; expected another "
                    "data.version for each of them"
                )
    return found


def differ_in_videos(one: RunSpec, other: RunSpec) -> bool:
    """True for two runs of one hash whose lists lead to videos of other content."""
    first, second = one.data, other.data
    return (
        isinstance(first, CsvData)
        and isinstance(second, CsvData)
        and first.has_other_videos(second, on=one.evaluate_on)
    )
