"""The classes of a model and those of the data that it is evaluated on: matched by name, by number, or by a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timesformer_experiments.cli.options import bad_input
from timesformer_experiments.report.terminal import progress

if TYPE_CHECKING:
    from timesformer.data import Annotations
    from timesformer.heads import Labels


def fit_head(loaded: Any, labels: Labels, how: str, source: str) -> str:
    """Reorder a model's head as the data number their classes; returns how the classes were matched.

    Raises InputError for other classes than the data's.
    """
    order, said = _order(labels, loaded.labels, how, source)
    heads = _heads(labels)
    if order is None:
        if loaded.model.config.heads != heads:
            raise bad_input(
                f"{source}: its head has {_numbers(loaded.model.config.heads)} classes, the data have {_numbers(heads)}"
            )
        return said
    if order != list(range(len(order))):
        import torch

        model = loaded.model
        with torch.no_grad():
            for value in (model.head.weight, model.head.bias):
                value.copy_(value[order].clone())
        model.config = replace(model.config, num_classes=heads[0] if len(heads) == 1 else heads)
    return said


def classed_samples(
    data: Path, format: str, root: Path | None, how: str, source: str, loaded: Any
) -> tuple[Annotations, str]:
    """The samples of an annotation file, with labels as the model numbers its classes, and how those were matched.

    Raises InputError for classes that the model does not have.
    """
    from timesformer.data import read_annotations
    from timesformer.data.annotations.reading import NamesMissing
    from timesformer.heads import are_named

    limits, names = loaded.model.config.num_classes, loaded.labels if are_named(loaded.labels) else None
    said = "by number: the model's classes have no names" if names is None else "by number: the data have no names"
    try:
        found = read_annotations(format, data, root)  # with names of its own, if the format has some
    except NamesMissing as error:
        if how != "names":
            raise bad_input(f"--classes {how}: {error}") from error
        found = read_annotations(format, data, root, labels=names)
        said = "by name"
    if found.labels is not None and names is not None and said != "by name":
        found, said = _renumbered(found, names, how, data, source)
    elif found.num_classes is not None and found.num_classes != limits:
        raise bad_input(
            f"{data}: the data have {found.num_classes} classes, the checkpoint {source} has {limits}"
            + (" without names" if names is None else "")
        )
    elif said != "by name" and are_named(found.labels):
        progress(f"{data}: classes are compared {said}")
    for sample in found:
        given, most = ((value if isinstance(value, tuple) else (value,)) for value in (sample.label, limits))
        if len(given) != len(most) or any(label >= limit for label, limit in zip(given, most, strict=True)):
            raise bad_input(
                f"{data}: {sample.name} has label {sample.label}, the checkpoint {source} has {limits} classes"
            )
    return found, said


def _renumbered(found: Annotations, names: Labels, how: str, data: Path, source: str) -> tuple[Annotations, str]:
    """Samples with the model's numbers for their classes.  The data may have some of the model's classes alone."""
    if how == "number":
        return found, "by number"
    assert found.labels is not None
    own, mine, theirs = _parts(found.labels), _parts(_mapped(found.labels, how)), _parts(names)
    if len(mine) != len(theirs):
        raise bad_input(f"{data}: {len(mine)} labels for each video, the checkpoint {source} has {len(theirs)} heads")
    heads = [head for head, _ in mine]
    same_heads = set(heads) == {head for head, _ in theirs}
    tables: list[tuple[int, list[int]]] = []
    for number, (head, there) in enumerate(theirs):
        column = heads.index(head) if same_heads else number
        here, places = mine[column][1], {name: place for place, name in enumerate(there)}
        used = dict.fromkeys(_label_of(sample, column) for sample in found)
        unknown = [here[label] for label in used if here[label] not in places]
        if unknown:
            raise bad_input(
                f"{data}: {f'{head}: ' if head else ''}the checkpoint {source} has no class {_some(unknown)}; its "
                f"classes are {_some(there)}. --classes FILE says which class is which, --classes number compares by "
                "number"
            )
        _require_apart(how, [own[column][1][label] for label in used], [here[label] for label in used])
        if here == there:
            tables.append((column, list(range(len(here)))))
            continue
        double = [here[label] for label in used if there.count(here[label]) > 1]
        if double:
            raise bad_input(f"{data}: the checkpoint {source} has several classes of the name {_some(double)}")
        tables.append((column, [places.get(name, 0) for name in here]))
    samples = []
    for sample in found:
        labels = tuple(table[_label_of(sample, column)] for column, table in tables)
        samples.append(replace(sample, label=labels if isinstance(sample.label, tuple) else labels[0]))
    moved = [sample.label for sample in samples] != [sample.label for sample in found]
    model_heads = tuple(head for head, _ in theirs) if len(theirs) > 1 else ()
    return replace(found, samples=tuple(samples), labels=names, heads=model_heads), _by_name(how, moved)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f", … ({len(names)})" if len(names) > 5 else "")


def _label_of(sample: Any, head: int) -> int:
    label: int = sample.label[head] if isinstance(sample.label, tuple) else sample.label
    return label


def _order(labels: Labels, theirs: Labels, how: str, source: str) -> tuple[list[int] | None, str]:
    """For each of the data's classes the place of it among the model's; None where they are compared by number."""
    from timesformer.heads import are_named, match_classes

    if how == "number":
        return None, "by number"
    if not are_named(labels) or not are_named(theirs):
        side = "the data" if not are_named(labels) else "the model"
        if are_named(labels) or are_named(theirs):
            progress(f"{source}: classes are compared by number: those of {side} have no names")
        return None, f"by number: the classes of {side} have no names"
    match = match_classes(_mapped(labels, how), theirs)
    if match.order is None:
        raise bad_input(
            f"{source}: its classes are not those of the data: {match.said} (here: the data, there: the model). "
            "--classes FILE says which class is which, --classes number compares by number"
        )
    return match.order, _by_name(how, match.is_permuted)


def _by_name(how: str, moved: bool) -> str:
    return ("by name" if how == "names" else f"by {Path(how).name}") + (", in another order" if moved else "")


def _mapped(labels: Labels | None, how: str) -> Labels:
    """The data's class names in the model's words."""
    assert labels is not None
    if how == "names":
        return labels
    from timesformer_experiments.specs.reading import read_yaml

    file = Path(how)
    if file.suffix not in (".yaml", ".yml", ".json"):
        raise bad_input(f"--classes {how}: expected names, number, or a .yaml file")
    words = read_yaml(file, "a table of class names")
    known = {name for _, names in _parts(labels) for name in names}
    for name in words:
        if name not in known:
            raise bad_input(f"{file}: {name!r} is no class of the data; expected some of {sorted(known)[:8]}")
    renamed = {head: [str(words.get(name, name)) for name in names] for head, names in _parts(labels)}
    return renamed if isinstance(labels, dict) else renamed[""]


def _require_apart(file: str, names: Sequence[str], renamed: Sequence[str]) -> None:
    """Require each class of which there are videos to keep a class of the model for itself.

    Raises InputError that names the classes that a table sends to the same one: their accuracy would be another.
    """
    of_model: dict[str, set[str]] = {}
    for name, new in zip(names, renamed, strict=True):
        of_model.setdefault(new, set()).add(name)
    for new, old in of_model.items():
        if len(old) > 1:
            raise bad_input(
                f"{file}: {_some(sorted(old))} are both {new!r} in the model (expected another class of the model for "
                "each class of the data; to count them as one, give them one name in the data)"
            )


def _parts(labels: Labels) -> list[tuple[str, list[str]]]:
    return list(labels.items()) if isinstance(labels, dict) else [("", labels)]


def _heads(labels: Labels) -> tuple[int, ...]:
    return tuple(len(names) for _, names in _parts(labels))


def _numbers(heads: tuple[int, ...]) -> str:
    return " + ".join(map(str, heads))
