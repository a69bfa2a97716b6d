"""Definitions of runs and costs, and their hashes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import Any

from timesformer import TimeSformerConfig
from timesformer.config.registry import ModelConfig
from timesformer.config.schedule import settled, write_schedule

HASH_LENGTH = 16


def defining_fields(config: ModelConfig) -> dict[str, Any]:
    """Return the fields of a model that define a run.

    A field that is added to a configuration later, `field(default=…, metadata={"later": True})`, joins only where it is
    not at its default, so that older runs keep their hashes. The default must mean what happened before: files,
    records and checkpoints without the field are read with it.  A schedule is written by depth, a pattern too, so that
    the same blocks have the same hash.
    """
    later = [each for each in fields(config) if each.metadata.get("later")]
    neutral = {each.name for each in later if getattr(config, each.name) == each.default}
    found = {name: value for name, value in config.to_dict().items() if name not in neutral}
    if isinstance(config, TimeSformerConfig) and config.schedule is not None:
        found["schedule"] = write_schedule(settled(config.schedule, config.attention, config.depth))
    return found


def hash_of(definition: dict[str, Any]) -> str:
    """Return the first 16 hexadecimal digits of the sha256 of plain data."""
    text = json.dumps(_canonical(definition), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]


def _canonical(value: Any) -> Any:
    """Return plain data in which 2.0 and 2 are one value."""
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
