"""The lists of one's own videos: what is in a folder, or what a file beside it says.

Without a file, a folder with `train.csv` and `test.csv` (and `val.csv`) is one split, `all`; `NAME_train.csv` and
`NAME_test.csv` (and `NAME_val.csv`) are a split each; and folders `train` and `test` (and `val`) with a folder of
videos per class are one split.  `classes.txt` names the classes.  Where there is no validation list, a quarter of the
training videos is taken for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from timesformer.data.annotations import read_annotations
from timesformer.errors import InputError
from timesformer_experiments.specs.data import CsvData, Strict
from timesformer_experiments.specs.reading import read_yaml
from timesformer_experiments.specs.run import describe
from timesformer_experiments.specs.tune import Over

FILE = "lists.yaml"
"""Name of the file in the folder that is read where none is given."""
VAL_FRACTION = 0.25
PATHS = ("train", "val", "test", "root", "classes")


class Lists(Strict):
    """Content of a file of lists.

    splits: fields of a run's `data` by the name of the split, with paths from the folder of the videos; data: fields
    that all splits share.  tune_on: the split on whose validation videos recipes and the scheme are chosen, by
    default the first.  model, recipe: fields of all transformers, and of all recipes, in the place of those of the
    profile.  over: what recipes are drawn from.  blocks: number of the last blocks that are trained.  from_nothing:
    the transformers take no weights from a checkpoint, and have the sizes that `model` says.
    """

    splits: dict[str, dict[str, Any]] = Field(min_length=1)
    data: dict[str, Any] = Field(default_factory=dict)
    tune_on: str | None = None
    model: dict[str, Any] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)
    over: dict[str, Over] | None = Field(default=None, min_length=1)
    blocks: int | None = Field(default=None, ge=1)
    from_nothing: bool = False

    @property
    def first(self) -> str:
        """The split on which choices are made."""
        return self.tune_on or next(iter(self.splits))


def read_lists(folder: Path, file: Path | None = None) -> Lists:
    """Return the lists of a folder of videos, with absolute paths and a number of classes.

    Raises InputError that names the file or folder and what was expected.
    """
    if not folder.is_dir():
        raise InputError(f"--data {folder}: no such folder")
    if file is None and (folder / FILE).is_file():
        file = folder / FILE
    place = str(file or folder)
    lists = read_file(file) if file is not None else Lists(splits=_found(folder))
    splits = {name: _completed(lists.data | fields, folder) for name, fields in lists.splits.items()}
    for name, fields in splits.items():
        try:
            data = CsvData.model_validate(fields)
            data.annotations("validation")
        except ValidationError as error:
            raise InputError(describe(error, f"{place}: splits.{name}")) from error
        except InputError as error:
            raise InputError(f"{place}: splits.{name}: {error}") from error
    return lists.model_copy(update={"splits": splits})


def read_file(file: Path) -> Lists:
    """Return what a file of lists says.  Raises InputError that names the file and the field."""
    try:
        lists = Lists.model_validate(read_yaml(file, "lists of videos"))
    except ValidationError as error:
        raise InputError(describe(error, file)) from error
    if lists.tune_on is not None and lists.tune_on not in lists.splits:
        raise InputError(f"{file}: tune_on: expected one of {', '.join(lists.splits)}, got {lists.tune_on!r}")
    if lists.from_nothing and lists.blocks is not None:
        raise InputError(f"{file}: blocks: expected none beside from_nothing, which trains all, got {lists.blocks}")
    return lists


def _found(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the splits of a folder by the names of its files and folders."""
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        val = {"val": "val"} if (folder / "val").is_dir() else {}
        return {"all": {"format": "folder", "train": "train", "test": "test", **val}}
    found = {}
    for train in sorted(folder.glob("*train.csv")):
        start = train.name.removesuffix("train.csv")
        if start and not start.endswith("_"):
            continue
        lists = {kind: f"{start}{kind}.csv" for kind in ("train", "val", "test")}
        if (folder / lists["test"]).is_file():
            there = {kind: name for kind, name in lists.items() if (folder / name).is_file()}
            found[start.removesuffix("_") or "all"] = there
    if not found:
        raise InputError(
            f"{folder}: expected train.csv and test.csv, NAME_train.csv and NAME_test.csv, folders train and test with "
            f"a folder of videos per class, or {FILE}"
        )
    return {name: _named(fields, folder) for name, fields in found.items()}


def _named(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    return fields | ({"classes": "classes.txt"} if (folder / "classes.txt").is_file() else {})


def _completed(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the fields of a split with absolute paths, a validation set, and the number of classes."""
    fields = {"root": ".", **fields} if fields.get("format", "kinetics") != "folder" else dict(fields)
    fields |= {name: str(folder / fields[name]) for name in PATHS if isinstance(fields.get(name), str)}
    if not {"val", "val_fraction", "val_pattern"} & set(fields):
        fields["val_fraction"] = VAL_FRACTION
    fields.setdefault("train_on_validation", True)
    if any(fields.get(name) is not None for name in ("num_classes", "labels", "classes")):
        return fields
    if fields.get("format", "kinetics") == "kinetics":
        labels = [sample.label for sample in read_annotations("kinetics", fields["train"], fields["root"])]
        fields["num_classes"] = 1 + max(label for label in labels if isinstance(label, int))
    return fields
