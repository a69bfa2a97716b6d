"""Depth of a network's parameters: which belong to the embedding, to each block, and to what follows the blocks."""

from collections.abc import Iterable

from timesformer.config.transformer import TimeSformerConfig


def transformer_layers(config: TimeSformerConfig, names: Iterable[str]) -> list[list[str]]:
    """Return the names of a transformer's parameters by depth; see `TimeSformer.layers`."""
    second = len(config.scheme.encoders) > 1
    layers: list[list[str]] = [[] for _ in range(config.depth + (config.temporal_depth if second else 0) + 2)]
    for name in names:
        layers[_layer(config, name, len(layers) - 1)].append(name)
    return layers


def _layer(config: TimeSformerConfig, name: str, last: int) -> int:
    if not name.startswith(("encoders.", "patch_embed.")):
        return last  # pooler, last norm, classifier
    if name.startswith("patch_embed."):
        return 0
    number, part = int(name.split(".")[1]), name.split(".")[2]
    before = config.depth if number else 0
    if part == "blocks":
        return before + int(name.split(".")[3]) + 1
    if part == "norm":
        return last if number + 1 == len(config.scheme.encoders) else config.depth + 1
    if number:
        return before + 1
    # Positions in time that are added before a later block belong to that block.
    return config.time_from + 1 if name.endswith(".positions.time") and config.time_from else 0


def network_layers(starts: Iterable[str], blocks: Iterable[Iterable[str]], names: Iterable[str]) -> list[list[str]]:
    """Return the names of a CNN's parameters by depth.

    starts: beginnings of the names of the stem; blocks: of each bottleneck, in order.
    """
    prefixes = [tuple(starts), *(tuple(each) for each in blocks)]
    layers: list[list[str]] = [[] for _ in range(len(prefixes) + 1)]
    for name in names:
        found = (number for number, prefix in enumerate(prefixes) if name.startswith(prefix))
        layers[next(found, len(prefixes))].append(name)
    return layers
