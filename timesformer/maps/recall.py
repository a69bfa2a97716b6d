"""Attention recall: the share of a trained model's attention that a narrower, declared neighbourhood would keep.

Nothing is trained and nothing of the model changes.  For each layer, step and head, the weights of every patch's row on
the keys that the other scheme declares for it are summed; the mean over patches and clips is the recall.  Class
token and registers are among the keys where a step of the other scheme has the class token.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from timesformer.attention import Grid, Mixer, Partition, Predicate, Scheme, Step
from timesformer.attention.attend import split_heads
from timesformer.attention.operator import Piece, StepOperator
from timesformer.attention.predicate import coordinates
from timesformer.config.counting import step_pairs
from timesformer.errors import InputError
from timesformer.maps.attention import chosen_sites
from timesformer.maps.capture import Call, as_input, run, watching
from timesformer.models.timesformer import TimeSformer


@dataclass(frozen=True)
class Recall:
    """Recall of one step of a model in a step of another scheme, as a mean over patches and clips.

    layer, step: of the model; neighbourhood: step of the other scheme; recall: mean over heads, of each head in
    `recall_by_head`; density: declared pairs of the neighbourhood, as a share of all pairs of patches.
    """

    layer: int
    step: str
    neighbourhood: str
    recall: float
    recall_by_head: tuple[float, ...]
    density: float

    def to_dict(self) -> dict[str, Any]:
        """Return field names and plain values."""
        return {**self.__dict__, "recall_by_head": list(self.recall_by_head)}


@torch.no_grad()
def attention_recall(model: TimeSformer, clip: Tensor, scheme: Scheme) -> list[Recall]:
    """Return the recall of every step of the model in every step of the scheme's block at the same depth.

    clip: (clips, frames, channels, height, width)

    Raises:
        InputError: a scheme with several encoders or with a mixer, which declares no keys; a model with several
            encoders, or whose frames are streams of their own.
    """
    if len(scheme.encoders) > 1 or any(isinstance(o, Mixer) for s in scheme.encoders[0].steps for o in s.over):
        raise InputError(
            f"attention {scheme.name!r}: expected a scheme of one encoder whose steps declare keys, which a mixer "
            "does not"
        )
    source = model.scheme.encoders[0]
    if len(model.scheme.encoders) > 1 or source.class_tokens == "frame":
        raise InputError(
            f"model: attention {model.scheme.name!r} has several encoders or frames that are streams of their own; "
            "expected a model whose steps see patches of the whole clip"
        )
    clip = as_input(model, clip)
    found: list[Recall] = []

    def visit(call: Call) -> None:
        matrix = call.operator()
        for step in scheme.encoders[0].at(call.site.layer).steps:
            heads = _kept(matrix, step).tolist()
            mean = sum(heads) / len(heads)
            place = (call.site.layer, call.site.step.name, step.name)
            found.append(Recall(*place, mean, tuple(heads), _density(step, matrix.grid)))

    with watching(chosen_sites(model, None, None), visit):
        run(model, clip)
    return found


def _kept(matrix: StepOperator, step: Step) -> Tensor:
    """Recall of each head, (heads,)."""
    parts = list(zip(step.over, split_heads(step, matrix.heads), strict=True))
    total = matrix.q.new_zeros(matrix.heads, dtype=torch.float64)
    for piece in matrix.pieces():
        if int(piece.rows[0, 0]) == matrix.patches:
            continue  # rows of the class token and of registers
        for over, heads in parts:
            first, last = max(heads.start, piece.heads.start), min(heads.stop, piece.heads.stop)
            if first < last:
                weights = piece.weights[:, first - piece.heads.start : last - piece.heads.start]
                seen = _seen(over, piece, matrix, step.cls != "absent")
                total[first:last] += (weights * seen).sum((0, 2, 3, 4), dtype=torch.float64)
    return total / (len(matrix.q) * matrix.patches)


def _seen(over: Any, piece: Piece, matrix: StepOperator, with_class: bool) -> Tensor:
    """True where the neighbourhood has the key of a piece, (g, r, s); class token and registers as its step says."""
    rows, keys = piece.rows[:, :, None], piece.keys[:, None]
    is_class = keys >= matrix.patches
    keys = keys.masked_fill(is_class, 0)
    if isinstance(over, Partition):
        group = over.group_ids(matrix.grid).flatten().to(rows.device)
        seen = group[rows] == group[keys]
    else:
        assert isinstance(over, Predicate)
        seen = over.fn(coordinates(rows, matrix.grid), coordinates(keys, matrix.grid), matrix.grid)
    return torch.where(is_class, torch.full_like(is_class, with_class), seen)


def _density(step: Step, grid: Grid) -> float:
    tokens = grid[0] * grid[1] * grid[2]
    pairs = [found.patches - tokens * (step.cls != "absent") for found in step_pairs(step, grid) if found is not None]
    return sum(pairs) / len(pairs) / tokens**2


def mean_recall(clips: list[list[Recall]]) -> list[Recall]:
    """Return the mean over several clips, each of which weighs the same."""
    found = []
    for same in zip(*clips, strict=True):
        heads = [sum(parts) / len(parts) for parts in zip(*(each.recall_by_head for each in same), strict=True)]
        found.append(replace(same[0], recall=sum(heads) / len(heads), recall_by_head=tuple(heads)))
    return found
