"""Rows of a checkpoint's classifier that a new model starts from."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from timesformer.checkpoints.source import Source
from timesformer.heads import Heads, Labels, match_classes

InitHead = Literal["names", "number", "fresh"]
"""Rule by which the classes of a model and of its source are compared: see `timesformer.checkpoints.transfer`."""


@dataclass(frozen=True)
class HeadRows:
    """Rows for the classes of a new model.

    order: the row of the checkpoint's head for each of ours; None where the head starts from random weights.
    said: why.  usual: True where nothing was to be decided.
    """

    order: list[int] | None
    said: str
    usual: bool = False

    @property
    def note(self) -> str:
        """A line for the report; empty where nothing was to be decided, as in loading a model."""
        if self.usual:
            return ""
        if self.order is None:
            return f"head: starts from random weights: {self.said}"
        moved = self.order != list(range(len(self.order)))
        return f"head: {'reordered' if moved else 'kept'}: {self.said}"

    def reordered(self, value: Tensor) -> Tensor:
        """The head's weight or bias in our order."""
        return value if self.order is None else value[self.order]


def head_rows(rule: InitHead, source: Source, heads: Heads, labels: Labels | None) -> HeadRows:
    """The rows by a rule, for a model with these heads and class names."""
    if rule == "fresh":
        return HeadRows(None, "as asked for (init_head: fresh)")
    if rule == "number":
        if source.config.heads != heads:
            return HeadRows(None, "another number of classes")
        return HeadRows(list(range(sum(heads))), "the same number of classes", usual=True)
    match = match_classes(labels, source.labels)
    if match.order is not None:
        return HeadRows(match.order, match.said)
    numbers = "another number of classes" if source.config.heads != heads else "other classes"
    return HeadRows(None, f"{numbers}: {match.said}")
