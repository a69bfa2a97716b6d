"""Several heads on one model, such as the verb and the noun of Epic-Kitchens.

Logits are one tensor (b, sum of the heads' classes), the output of one linear layer; labels are int64 (b, heads), or
(b,) for a model with one head.  As in ViViT (section 4.2), the loss is the sum of the heads' cross entropies.  A clip
is classified correctly if every head is correct (the action of Epic-Kitchens).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timesformer._typing import Float, Int
from timesformer.errors import InputError

Heads = tuple[int, ...]
"""Number of classes of each head."""

Labels = list[str] | dict[str, list[str]]
"""Class names in the order of their indices; with several heads, {head: names}."""


def heads_of(model: nn.Module) -> Heads:
    """Classes of each head of a model with several heads; () for a single head or a model without a configuration."""
    heads = getattr(getattr(model, "config", None), "heads", ())
    return heads if len(heads) > 1 else ()


def cross_entropy(
    logits: Float[Tensor, "b classes"], label: Int[Tensor, "b *heads"], heads: Heads = (), smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Compute the loss as a mean over clips; with several heads, the sum of their losses.

    Raises:
        InputError: the number of labels per clip is not the number of heads.
    """
    _check(label, heads)
    if not heads:
        return F.cross_entropy(logits, label, label_smoothing=smoothing)
    parts = zip(logits.split(heads, -1), label.unbind(-1), strict=True)
    return torch.stack([F.cross_entropy(part, target, label_smoothing=smoothing) for part, target in parts]).sum()


def predict(scores: Float[Tensor, "b classes"], heads: Heads = ()) -> Int[Tensor, "b *heads"]:
    """Return the class with the highest score; with several heads, one for each head, (b, heads)."""
    if not heads:
        return scores.argmax(-1)
    return torch.stack([part.argmax(-1) for part in scores.split(heads, -1)], -1)


def is_right(prediction: Int[Tensor, "b *heads"], label: Int[Tensor, "b *heads"]) -> Tensor:
    """Return True for each clip whose prediction is correct, with several heads in all of them: bool (b,)."""
    same = prediction == label
    return same if same.dim() == 1 else same.all(-1)


def _check(label: Tensor, heads: Heads) -> None:
    given = 1 if label.dim() == 1 else label.shape[1]
    if given != max(1, len(heads)):
        raise InputError(f"labels: expected {max(1, len(heads))} for each video, one for each head, got {given}")


def head_names(heads: Heads, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return a name for each of several heads: those in `names`, or by default head0, head1, …

    Raises:
        InputError: the number of names is not the number of heads.
    """
    if names and len(names) != len(heads):
        raise InputError(f"heads: expected {len(heads)} names, as many as the model has heads, got {list(names)}")
    return tuple(names) or tuple(f"head{number}" for number in range(len(heads)))


def default_labels(heads: Heads, named: Sequence[str] = ()) -> Labels:
    """Return the class names `class 0`, `class 1`, … of each head."""
    names = [[f"class {number}" for number in range(classes)] for classes in heads]
    return names[0] if len(names) == 1 else dict(zip(head_names(heads, named), names, strict=True))


def check_labels(labels: Labels | Sequence[Sequence[str]], heads: Heads) -> Labels:
    """Check that class names fit the heads, and return them as they are stored.

    They are stored as a list, or with several heads as {head: names}.  A list of lists is in the order of the heads.

    Raises:
        InputError: the numbers of names or heads differ.
    """
    if len(heads) == 1:
        if isinstance(labels, dict) or len(labels) != heads[0]:
            count = "several heads" if isinstance(labels, dict) else len(labels)
            raise InputError(f"labels: expected {heads[0]} names, one for each class, got {count}")
        return labels  # type: ignore[return-value]
    if not isinstance(labels, dict):
        if len(labels) != len(heads) or any(isinstance(names, str) for names in labels):
            raise InputError(f"labels: expected the names of {len(heads)} heads, got {len(labels)} names")
        labels = dict(zip(head_names(heads), (list(names) for names in labels), strict=True))
    counts = tuple(len(names) for names in labels.values())
    if counts != heads:
        raise InputError(f"labels: expected {heads} names, one for each class of each head, got {counts}")
    return labels


def are_named(labels: Labels | None) -> bool:
    """False for no names, and for `class 0`, `class 1`, … of each head, which say nothing of the classes."""
    if labels is None:
        return False
    parts = list(labels.values()) if isinstance(labels, dict) else [labels]
    return any(names != [f"class {number}" for number in range(len(names))] for names in parts)


@dataclass(frozen=True)
class ClassMatch:
    """Match of a model's classes with those of another model or of its data.

    order: for each of our logits the place of its class among theirs; None where they are not the same classes.
    said: in words, with what differs.
    """

    order: list[int] | None
    said: str

    @property
    def is_permuted(self) -> bool:
        """True for the same classes in another order."""
        return self.order is not None and self.order != list(range(len(self.order)))


def match_classes(ours: Labels | None, theirs: Labels | None) -> ClassMatch:
    """Classes matched by name, head by head; heads by their names, or in their order where those are not the same.

    Without names on both sides nothing is matched.
    """
    missing = [side for side, labels in (("these", ours), ("those", theirs)) if not are_named(labels)]
    if missing or ours is None or theirs is None:
        return ClassMatch(None, f"{' and '.join(missing)} classes have no names")
    mine, others = ({"": names} if isinstance(names, list) else names for names in (ours, theirs))
    if len(mine) != len(others):
        return ClassMatch(None, f"{_heads(mine)} here, {_heads(others)} there")
    partners = list(mine) if set(mine) == set(others) else list(others)
    starts, total = dict[str, int](), 0
    for head, names in others.items():
        starts[head], total = total, total + len(names)
    order: list[int] = []
    differences = []
    for head, partner in zip(mine, partners, strict=True):
        here, there = mine[head], others[partner]
        if here != there and (set(here) != set(there) or len(set(here)) != len(here) or len(here) != len(there)):
            differences.append((f"{head}: " if head else "") + _difference(here, there))
            continue
        places = {name: number for number, name in enumerate(there)}
        found = list(range(len(here))) if here == there else [places[name] for name in here]
        order += [starts[partner] + number for number in found]
    if differences:
        return ClassMatch(None, "; ".join(differences))
    match = ClassMatch(order, "the same classes")
    return ClassMatch(order, "the same classes in another order") if match.is_permuted else match


def _heads(parts: dict[str, list[str]]) -> str:
    return f"{len(parts)} heads" if len(parts) > 1 else "one head"


def _difference(here: list[str], there: list[str]) -> str:
    """Return the names that only one of the lists has."""
    parts = []
    for names, others, place in ((here, there, "here"), (there, here, "there")):
        only = [name for name in names if name not in set(others)]
        if only:
            shown = ", ".join(map(repr, only[:5])) + (f", … ({len(only)})" if len(only) > 5 else "")
            parts.append(f"only {place}: {shown}")
    return f"{len(here)} classes here, {len(there)} there; " + ("; ".join(parts) or "a name occurs twice")
