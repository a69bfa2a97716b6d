"""Groups of videos that belong together, and validation sets that take whole groups out of a training list.

A group is whatever must not be on two sides of a split, and does not count as several independent videos in a test: a
subject, a scene, a source video, a clip and its reversal.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from timesformer.data.annotations import Annotations, Sample
from timesformer.data.annotations.reading import entry_field, read_entries, read_table
from timesformer.errors import InputError


@dataclass(frozen=True)
class Grouping:
    """Where the group of a video comes from; one of the two is given.

    pattern: a regular expression that is searched in the video's name; the group is its first bracket, or all it finds
    column: a column of a csv with a header, or a field of the entries of a json list, with one line for each video
    """

    pattern: str | None = None
    column: str | None = None

    def __post_init__(self) -> None:
        if (self.pattern is None) == (self.column is None):
            raise InputError("group: expected one of pattern and column")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise InputError(f"group.pattern: no regular expression ({error}), got {self.pattern!r}") from error

    def of(self, found: Annotations, path: Path) -> Annotations:
        """The same annotations, read from the file `path`, with these groups.

        Raises InputError for a video whose name does not have the pattern, and for a file without the column.
        """
        groups = self._matched(found, path) if self.pattern is not None else self._listed(found, path)
        samples = (replace(sample, group=group) for sample, group in zip(found, groups, strict=True))
        return replace(found, samples=tuple(samples))

    def _matched(self, found: Annotations, path: Path) -> list[str]:
        assert self.pattern is not None
        groups = []
        for sample in found:
            match = re.search(self.pattern, sample.name)
            group = match and (match[1] if match.re.groups else match[0])
            if not group:
                raise InputError(f"{path}: {sample.name}: group.pattern {self.pattern!r} finds nothing in this name")
            groups.append(group)
        return groups

    def _listed(self, found: Annotations, path: Path) -> list[str]:
        assert self.column is not None
        if path.suffix.lower() == ".json":
            groups = [str(_field(entry, self.column, place)) for place, entry in read_entries(path)]
        elif path.suffix.lower() == ".csv":
            groups = [row[self.column] for _, row in read_table(path, (self.column,))]
        else:
            raise InputError(f"{path}: group.column: expected a csv with a header or a json list; use group.pattern")
        if len(groups) != len(found):
            raise InputError(
                f"{path}: group.column: expected a line for each video, got {len(groups)} for {len(found)}; use "
                "group.pattern"
            )
        if "" in groups:
            raise InputError(f"{path}: {found[groups.index('')].name}: column {self.column!r} is empty")
        return groups


def _field(entry: Mapping[str, object], name: str, place: str) -> object:
    """A field that is text or a whole number."""
    value = entry.get(name)
    return (
        value if isinstance(value, int) and not isinstance(value, bool) else entry_field(dict(entry), name, str, place)
    )


def group_of(sample: Sample) -> str:
    """The group of a video without the folders of this machine: as annotated, else the video's own name."""
    return sample.group or (str(sample.path) if sample.is_segment else sample.name)


def hold_out(train: Annotations, fraction: float, shared: bool = False) -> tuple[Annotations, Annotations]:
    """A training list without its validation set, and the validation set: about `fraction` of the videos.

    Groups are taken whole and in an order that depends on their names alone, each if it brings the classes, and then
    all videos together, nearer to this share.  shared: videos are taken singly instead, so that a group may be on both
    sides.

    Raises InputError where there is no group that is small enough, and where nothing would be left to train on.
    """
    if not 0 < fraction < 1:
        raise InputError(f"val_fraction: expected a number between 0 and 1, got {fraction}")
    members: dict[str, list[int]] = {}
    for number, sample in enumerate(train):
        members.setdefault(sample.place if shared else _key(sample), []).append(number)
    names = {key: train[numbers[0]].name if shared else group_of(train[numbers[0]]) for key, numbers in members.items()}
    wanted = {label: fraction * count for label, count in Counter(sample.label for sample in train).items()}
    lacking, lacking_all = dict(wanted), fraction * len(train)
    held: set[int] = set()
    ordered = sorted(members, key=lambda key: (hashlib.sha256(names[key].encode()).digest(), key))
    # The classes' shares alone, then with what their rounding has left out of the whole, else the whole alone.
    for of_class, of_all in ((1, 0), (1, 1), (0, 1)):
        for key in ordered if of_class or not held else ():
            numbers = members[key]
            counts = Counter(train[number].label for number in numbers)
            # Squared distances from what is wanted, with the group less those without it.
            gain = of_class * sum(count * (count - 2 * lacking[label]) for label, count in counts.items())
            gain += of_all * len(numbers) * (len(numbers) - 2 * lacking_all)
            if gain < 0 and numbers[0] not in held and len(held) + len(numbers) < len(train):
                held.update(numbers)
                lacking_all -= len(numbers)
                for label, count in counts.items():
                    lacking[label] -= count
    if not held:
        least = min(len(numbers) for numbers in members.values())
        raise InputError(
            f"val_fraction: {fraction} of {len(train)} videos is nearer to none than to a whole group; there are "
            f"{len(members)} groups, the smallest of {least} videos"
        )
    sides = [tuple(s for number, s in enumerate(train) if (number in held) == inside) for inside in (False, True)]
    return replace(train, samples=sides[0]), replace(train, samples=sides[1])


def require_apart(sides: Mapping[str, Sequence[Sample]]) -> None:
    """InputError if a group is on two sides; sides: the videos by what the side is called in messages."""
    seen: dict[str, str] = {}
    for side, samples in sides.items():
        for sample in samples:
            other = seen.setdefault(_key(sample), side)
            if other != side:
                raise InputError(
                    f"{side}: the group {group_of(sample)!r} ({sample.name}) is in {other} as well; where groups are "
                    "meant to be shared, say val_shares_groups: true"
                )


def _key(sample: Sample) -> str:
    """Key that tells groups apart: a stated group by its name, a video without one by where it lies."""
    return f"group {sample.group}" if sample.group else f"video {sample.path}"
