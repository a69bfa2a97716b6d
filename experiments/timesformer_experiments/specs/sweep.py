"""Sweep files: a run with axes along which its fields change, and what is measured in every cell.

    name: frames                       # of the sweep
    base:                              # fields of a run (`specs.run.RunSpec`), or of a cost without data
      data: {probe: motion, num_train: 512, num_test: 128}
      model: {image_size: 32, patch_size: 8, embed_dim: 32, depth: 2, num_heads: 2}
      recipe: {steps: 200, batch_size: 16}
    axes:                              # any field by its dotted path
      model.attention: [space, divided, joint]
      model.num_frames: [4, 8]
      recipe.batch_size: [16, 8]
      seed: [0, 1, 2]
    zip: [[model.num_frames, recipe.batch_size]]      # these move together, all others are crossed
    exclude: [{model.attention: joint, model.num_frames: 8}]
    measure: [accuracy, params, macs, memory]         # also latency, throughput

`exclude`: a cell is left out if it has all values of one entry; a list of values means any of them. An entry that
leaves out nothing is an error. Without `accuracy` nothing is trained; without `data` besides, `base` has `model`, and
as far as they matter `recipe` (batch_size, accumulate, precision, optimiser, gradient_checkpointing), `protocol` and
`scheme_file`. `init_from` may be a whole run, whose fields are axes too (`init_from.seed`); it is trained once for all
that start from it.

Comparisons that hold: `equalise` (`specs.equalise`) gives variants an equal cost, `tune` (`specs.tune`) an equal number
of draws of a recipe, `until` (`specs.claims`) adds seeds until registered claims are decided.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from timesformer.data.fingerprint import Digests
from timesformer.errors import InputError
from timesformer_experiments.cost.measures import MEASURES
from timesformer_experiments.specs.claims import Until
from timesformer_experiments.specs.cost import CostSpec
from timesformer_experiments.specs.data import Strict
from timesformer_experiments.specs.equalise import Equalise
from timesformer_experiments.specs.fair import require_fair
from timesformer_experiments.specs.job import Job
from timesformer_experiments.specs.reading import read_yaml
from timesformer_experiments.specs.run import (
    CsvData,
    RunSpec,
    absolute_paths,
    describe,
    differ_in_videos,
    hash_of,
    resolve,
    with_dependencies,
)
from timesformer_experiments.specs.tune import Tune

PATH = re.compile(r"\w+(\.\w+)*")
FIELD = re.compile(r"\{([\w.]+)\}")


def _known(name: str) -> str:
    if name not in MEASURES:
        raise InputError(f"expected some of {', '.join(MEASURES)}, got {name!r}")
    return name


MeasureName = Annotated[str, AfterValidator(_known)]
SWEEP_FILE, CELLS_FILE = "sweep.yaml", "cells.json"
"""In a sweep's folder: the file itself, and the hashes, names and values of its cells."""


@dataclass(frozen=True)
class Cell:
    """A cell that is to be run.

    values: of the axes.  set: further fields by their paths.  notes: what joins its record.  suffix: of its name.
    counts: whether it fills a cell of the sweep; a run that is only there for the choice of a recipe does not.
    """

    values: dict[str, Any]
    set: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    suffix: str = ""
    counts: bool = True


class Sweep(Strict):
    """A validated sweep file; see the module for its fields.

    cell: the name of a cell, with fields of it in braces (`{name}`, `{model.attention}`); by default the sweep's name
    and the last parts of the axes' paths with their values.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: str = Field(pattern=r"^[\w.-]+$")
    base: dict[str, Any] = Field(min_length=1)
    axes: dict[str, list[Any]] = Field(default_factory=dict)
    zipped: list[list[str]] = Field(default_factory=list, alias="zip")
    exclude: list[dict[str, Any]] = Field(default_factory=list)
    measure: tuple[MeasureName, ...] = Field(default=("accuracy",), min_length=1)
    cell: str | None = None
    equalise: Equalise | None = None
    tune: Tune | None = None
    until: Until | None = None

    @field_validator("base")
    @classmethod
    def _no_name(cls, base: dict[str, Any]) -> dict[str, Any]:
        if "name" in base:
            raise InputError("name: the cells' names are made from the sweep's and the axes")
        return base

    @field_validator("axes")
    @classmethod
    def _values(cls, axes: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for path, values in axes.items():
            if not PATH.fullmatch(path) or path == "name":
                raise InputError(f"{path!r}: expected the path of a field, such as model.attention")
            if not values:
                raise InputError(f"{path}: it has no values")
            try:
                json.dumps(values, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise InputError(f"{path}: expected plain values ({error})") from error
        return axes

    @field_validator("measure")
    @classmethod
    def _once(cls, measure: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in MEASURES if name in measure)

    @model_validator(mode="after")
    def _agree(self) -> Sweep:
        zipped = [path for group in self.zipped for path in group]
        for path in zipped:
            if path not in self.axes:
                raise InputError(f"zip: {path!r} is no axis; expected some of {', '.join(self.axes)}")
            if zipped.count(path) > 1:
                raise InputError(f"zip: {path!r} occurs twice")
        for group in self.zipped:
            lengths = {path: len(self.axes[path]) for path in group}
            if len(set(lengths.values())) > 1:
                raise InputError(f"zip: axes that move together have as many values each, got {lengths}")
        for entry in self.exclude:
            for path in entry:
                if path not in self.axes:
                    raise InputError(f"exclude: {path!r} is no axis; expected some of {', '.join(self.axes)}")
        require_fair(self)
        return self

    def values(self) -> list[dict[str, Any]]:
        """The axes' values of every cell, in the order of the axes: the last one changes fastest."""
        groups: list[list[str]] = []
        for path in self.axes:
            group = next((group for group in self.zipped if path in group), [path])
            if group not in groups:
                groups.append(group)
        steps = [[dict(zip(group, values, strict=True)) for values in self._together(group)] for group in groups]
        cells = [_merged(parts) for parts in itertools.product(*steps)]
        kept = [cell for cell in cells if not any(_matches(cell, entry) for entry in self.exclude)]
        for number, entry in enumerate(self.exclude):
            if not any(_matches(cell, entry) for cell in cells):
                raise InputError(f"exclude.{number}: no cell has {entry}")
        if not kept:
            raise InputError("exclude: it leaves no cell")
        return [{path: cell[path] for path in self.axes} for cell in kept]

    def _together(self, group: list[str]) -> Iterator[tuple[Any, ...]]:
        return zip(*(self.axes[path] for path in group), strict=True)

    def jobs(
        self, source: str | Path = "sweep", folder: Path | None = None, cells: Sequence[Cell] | None = None
    ) -> dict[str, Job]:
        """The cells' jobs by hash, each after the run that it starts from, which is a job as well.

        source: named in errors.  folder: from which relative paths are taken, by default the current one.  cells: by
        default all that the axes give.

        Raises InputError that names the field: of a cell that is no valid run, or two cells that are the same run.
        """
        found: dict[str, Job] = {}
        runs: list[tuple[RunSpec, Cell, dict[str, Any]]] = []
        if cells is None:
            try:
                cells = [Cell(values) for values in self.values()]
            except InputError as error:
                raise InputError(f"{source}: {error}") from error
        for cell in cells:
            spec, notes = self._spec(cell, source, folder or Path())
            place = f"{source}: cell {spec.name}"
            if isinstance(spec, CostSpec):
                self._add(found, Job(spec, self.measure, self.name, cell.values, notes), place)
                continue
            (run,) = resolve([spec])
            if "accuracy" in self.measure:
                runs.append((run, cell, notes))
            else:
                self._add(found, Job(CostSpec.of(run), self.measure, self.name, cell.values, notes), place)
        apart = _told_apart([run for run, _, _ in runs])
        runs = [(run, cell, notes) for run, (_, cell, notes) in zip(apart, runs, strict=True)]
        for key, run in with_dependencies(apart).items():
            found[key] = Job(run)
        filled: set[str] = set()
        for run, cell, notes in runs:
            key = run.hash()
            if not cell.counts:
                found[key] = Job(run, ("accuracy",), self.name, None, notes)
                continue
            if key in filled:
                raise _same(found[key].name, run.name, source)
            filled.add(key)
            found[key] = Job(run, self.measure, self.name, cell.values, notes)
        return found

    def _spec(self, cell: Cell, source: str | Path, folder: Path) -> tuple[RunSpec | CostSpec, dict[str, Any]]:
        """The run or cost of a cell, at equal cost where that is asked for, and what joins its record."""
        spec = self._parsed(cell, source, folder)
        if self.equalise is None:
            return spec, cell.notes
        of_reference = cell.values | self.together(self.equalise.axis, self.equalise.to)
        same = of_reference == cell.values
        reference = spec if same else self._parsed(Cell(of_reference, cell.set), source, folder)
        try:
            solved, note = self.equalise.solve(spec, reference)
        except InputError as error:
            raise InputError(f"{source}: cell {spec.name}: equalise.{error}") from error
        if solved:
            spec = self._parsed(Cell(cell.values, cell.set | solved, suffix=cell.suffix), source, folder)
        return spec, cell.notes | {"equalised": {"variant": cell.values[self.equalise.axis], **note}}

    def _parsed(self, cell: Cell, source: str | Path, folder: Path) -> RunSpec | CostSpec:
        fields = absolute_paths(self._fields(cell, source), folder)
        place = f"{source}: cell {fields['name']}"
        if "data" not in fields and "accuracy" not in self.measure:
            return CostSpec.parse(fields, place)
        return RunSpec.parse(fields, place)

    def together(self, path: str, value: Any) -> dict[str, Any]:
        """The values of an axis and of those zipped to it where it has this value."""
        group = next((group for group in self.zipped if path in group), [path])
        place = self.axes[path].index(value)
        return {other: self.axes[other][place] for other in group}

    @property
    def staged(self) -> bool:
        """True if what is run depends on what came of other runs."""
        return self.tune is not None or self.until is not None

    def seed_axes(self) -> list[str]:
        """The axes that move with the seed."""
        group = next((group for group in self.zipped if "seed" in group), ["seed"])
        return [path for path in self.axes if path in group]

    def variants(self) -> list[dict[str, Any]]:
        """The values of the other axes, in the order of the cells."""
        free = self.seed_axes()
        found = [{path: value for path, value in values.items() if path not in free} for values in self.values()]
        return [each for number, each in enumerate(found) if each not in found[:number]]

    def seeds(self, variant: dict[str, Any], most: int | None = None) -> list[dict[str, Any]]:
        """The first seeds of a variant, with what moves with them: those of the axes, or with `until` counted from 0
        without that of the tuning."""
        if self.until is None or self.seed_axes():
            cells = [values for values in self.values() if variant.items() <= values.items()]
            return [{path: value for path, value in cell.items() if path not in variant} for cell in cells][:most]
        taken = None if self.tune is None else self.tune.seed
        free = (seed for seed in itertools.count() if seed != taken)
        return [{"seed": seed} for seed in itertools.islice(free, most or self.until.seeds[-1])]

    def drawn_by(self, seed: dict[str, Any]) -> dict[str, Any]:
        """Fields that a counted seed draws besides: on probes the data."""
        probe = "probe" in self.base.get("data", {}) or "data.probe" in self.axes
        counted = self.until is not None and not self.seed_axes()
        return {"data.seed": seed["seed"]} if counted and probe and "data.seed" not in self.axes else {}

    def tuning_seed(self) -> dict[str, Any]:
        """Fields that move with the seed, where a recipe is tuned: no seed of a final run."""
        assert self.tune is not None
        seed = self.tune.seed
        moving = {path: seed if path.rpartition(".")[2] == "seed" else self.axes[path][0] for path in self.seed_axes()}
        return moving or {"seed": seed}

    def runs(self, source: str | Path = "sweep") -> list[RunSpec]:
        """The runs of a sweep that trains: `jobs` without what is measured beside accuracy."""
        return [job.spec for job in self.jobs(source).values() if isinstance(job.spec, RunSpec)]

    def _add(self, found: dict[str, Job], job: Job, source: str) -> None:
        key = job.hash()
        if key in found:
            raise _same(found[key].name, job.name, source)
        found[key] = job

    def _fields(self, cell: Cell, source: str | Path) -> dict[str, Any]:
        """The base with a cell's values, and its name."""
        fields = copy.deepcopy(self.base)
        for path, value in (cell.values | cell.set).items():
            *parents, last = path.split(".")
            place: Any = fields
            for parent in parents:
                if parent == "attention" and isinstance(place.get(parent), str):
                    place[parent] = {"name": place[parent]}  # the axis is an option of the scheme
                if not isinstance(place.setdefault(parent, {}), dict):
                    raise InputError(f"{source}: axes.{path}: {parent} has no fields, it is {place[parent]!r}")
                place = place[parent]
            place[last] = copy.deepcopy(value)
        return {"name": self._name(cell.values, fields, source) + cell.suffix, **fields}

    def _name(self, values: dict[str, Any], fields: dict[str, Any], source: str | Path) -> str:
        if self.cell is None:
            shown = {path: value for path, value in values.items() if not self._follows(path)}
            return " ".join((self.name, *(f"{self._short(path)}={_text(value)}" for path, value in shown.items())))

        def filled(match: re.Match[str]) -> str:
            place: Any = {"name": self.name, **fields}
            for part in match[1].split("."):
                if not isinstance(place, dict) or part not in place:
                    raise InputError(f"{source}: cell: {match[1]} is no field of the run")
                place = place[part]
            return _text(place)

        return FIELD.sub(filled, self.cell)

    def _short(self, path: str) -> str:
        """The last part of an axis' path where that says which one it is."""
        last = path.rpartition(".")[2]
        return last if sum(other.rpartition(".")[2] == last for other in self.axes) == 1 else path

    def _follows(self, path: str) -> bool:
        """True if an axis is zipped to an earlier one."""
        return any(path in group[1:] for group in self.zipped)


def _told_apart(runs: Sequence[RunSpec]) -> list[RunSpec]:
    """The same runs; those that differ from another in the content of their videos alone have it as `data.version`."""
    by_hash: dict[str, list[RunSpec]] = {}
    for run in runs:
        by_hash.setdefault(run.hash(), []).append(run)
    told: list[RunSpec] = []
    for run in runs:
        others = by_hash[run.hash()]
        if isinstance(run.data, CsvData) and any(differ_in_videos(others[0], other) for other in others):
            train, evaluated = run.data.videos(Digests(full=run.data.fingerprint == "full"), run.evaluate_on)
            version = hash_of({"train": train.sha256, run.evaluate_on: evaluated.sha256})
            run = run.model_copy(update={"data": run.data.model_copy(update={"version": version})})
        told.append(run)
    return told


def load_sweep(path: str | Path) -> Sweep:
    """The sweep of a YAML file.  Raises InputError that names the file and the field."""
    path = Path(path)
    return parse_sweep(read_yaml(path, "a sweep"), path)


def parse_sweep(values: Any, source: str | Path = "sweep") -> Sweep:
    """A sweep from plain data.  Raises InputError that names `source` and the field."""
    try:
        return Sweep.model_validate(values)
    except ValidationError as error:
        raise InputError(describe(error, source)) from error


def _merged(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {path: value for part in parts for path, value in part.items()}


def _matches(cell: dict[str, Any], entry: dict[str, Any]) -> bool:
    def fits(value: Any, wanted: Any) -> bool:
        return value == wanted or (isinstance(wanted, list) and value in wanted)

    return all(fits(cell[path], wanted) for path, wanted in entry.items())


def _same(first: str, second: str, source: str | Path) -> InputError:
    return InputError(
        f"{source}: {second!r} and {first!r} are the same; an axis that changes nothing here belongs out of the sweep"
    )


def _text(value: Any) -> str:
    return str(value) if not isinstance(value, list | dict) else json.dumps(value, separators=(",", ":"))
