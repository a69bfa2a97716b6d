"""Weights that a recipe leaves as they are, and learning rates that fall with the depth of a weight.

Depth is told by the model (`layers`): its embedding is layer 0, then comes a layer for each block, and last what
follows the blocks.
"""

from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from timesformer.errors import InputError

Freeze = int | tuple[str, ...]
"""Number of the first blocks, which are frozen with what stands before them, or patterns of parameters' names."""


def read_freeze(value: Any) -> Freeze | None:
    """Return what `recipe.freeze` says: `{blocks: 8}`, a list of patterns such as `encoders.0.blocks.*`, or None.

    Raises:
        InputError: neither of these.
    """
    if isinstance(value, dict) and set(value) == {"blocks"}:
        value = value["blocks"]
    number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    patterns = isinstance(value, list | tuple) and value and all(isinstance(each, str) for each in value)
    if value is None or number:
        return value
    if not patterns:
        raise InputError(
            "freeze: expected {blocks: n}, the first blocks and what stands before them, or a list of patterns of "
            f"parameters' names, got {value!r}"
        )
    return tuple(value)


def plain_freeze(freeze: Freeze | None) -> Any:
    """Return what `read_freeze` reads."""
    return {"blocks": freeze} if isinstance(freeze, int) else None if freeze is None else list(freeze)


def layers_of(model: nn.Module, field: str) -> list[list[str]]:
    """Return the names of a model's parameters by depth; InputError, naming the recipe's field, where it has none."""
    told: Any = getattr(model, "layers", None)
    if callable(told):
        with suppress(NotImplementedError):
            found: list[list[str]] = told()
            return found
    raise InputError(f"{field}: {type(model).__name__} does not tell the depth of its parameters (`layers`)")


def frozen_names(model: nn.Module, freeze: Freeze | None) -> set[str]:
    """Return the names of the parameters that are frozen.

    Raises:
        InputError: more blocks than the model has, or a pattern that no parameter has.
    """
    if freeze is None:
        return set()
    if isinstance(freeze, int):
        layers = layers_of(model, "freeze")
        if freeze > len(layers) - 2:
            raise InputError(f"freeze.blocks: expected at most {len(layers) - 2}, the model's blocks, got {freeze}")
        return {name for layer in layers[: freeze + 1] for name in layer}
    names, found = [name for name, _ in model.named_parameters()], set[str]()
    for pattern in freeze:
        matching = {name for name in names if fnmatchcase(name, pattern)}
        if not matching:
            raise InputError(f"freeze: no parameter is called {pattern!r}; expected patterns of names as {names[0]}")
        found |= matching
    return found


def stem_blocks(layers: Sequence[Sequence[str]], frozen: set[str]) -> int | None:
    """Return the number of the first blocks that are frozen as a whole, with the embedding; None without these."""
    whole = [bool(layer) and frozen.issuperset(layer) for layer in layers[:-1]]
    return whole.index(False) - 1 if False in whole and whole[0] else len(whole) - 1 if whole[0] else None


def freeze_weights(model: nn.Module, freeze: Freeze | None) -> set[str]:
    """Let the frozen parameters take no gradient, and return the names of those that took one before.

    Raises InputError as `frozen_names` does.
    """
    frozen, changed = frozen_names(model, freeze), set[str]()
    for name, parameter in model.named_parameters():
        if name in frozen and parameter.requires_grad:
            parameter.requires_grad_(False)
            changed.add(name)
    return changed


def thaw(model: nn.Module, names: set[str]) -> None:
    """Let parameters take gradients again."""
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(True)


def rest_frozen(model: nn.Module) -> None:
    """Put modules whose parameters are all frozen in evaluation mode, without dropout, drop path or new statistics.

    A dropout without parameters follows what it acts on: that of an encoder its embedding.
    """
    for module in model.modules():
        own = list(module.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()
    drop, embedding = getattr(model, "embedding_dropout", None), getattr(model, "patch_embed", None)
    if isinstance(drop, nn.Dropout) and isinstance(embedding, nn.Module) and not embedding.training:
        drop.eval()


def rates(model: nn.Module, decay: float, scales: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Return the factor of each parameter's learning rate.

    decay: of the rate from a layer to the one before it; what follows the blocks has the recipe's own rate (BEiT,
    arXiv 2106.08254).  scales: (pattern of names, factor), each of which multiplies the rates of what it matches.

    Raises:
        InputError: the model does not tell depths, or no parameter has a pattern.
    """
    found = {name: 1.0 for name, _ in model.named_parameters()}
    if decay != 1:
        layers = layers_of(model, "layer_decay")
        for number, layer in enumerate(layers):
            found |= dict.fromkeys(layer, decay ** (len(layers) - 1 - number))
    for pattern, factor in scales:
        matching = [name for name in found if fnmatchcase(name, pattern)]
        if not matching:
            raise InputError(f"lr_scale: no parameter is called {pattern!r}; expected patterns of parameters' names")
        found |= {name: found[name] * factor for name in matching}
    return found
