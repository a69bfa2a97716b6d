"""Counts of models with the switches of the backbone: by the declaration and by fvcore over the traced model."""

from dataclasses import replace
from typing import Any

import pytest

from tests.attention.custom import SHIPPED, has_class_token
from tests.models.switches import NEEDS_CLASS, SWITCHES, TINY
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.config.counting import comparisons_per_patch
from timesformer_experiments.cost.count import cost


def assert_counts_agree(config: TimeSformerConfig) -> None:
    counted = cost(config)
    assert counted.macs_fvcore == pytest.approx(counted.macs_per_view, rel=1e-3)
    assert counted.params == sum(value.numel() for value in TimeSformer(config).parameters())


@pytest.mark.parametrize("attention", ["divided"])
@pytest.mark.parametrize("switch", SWITCHES)
def test_both_counts_agree(switch: str, attention: str) -> None:
    assert_counts_agree(replace(TINY, attention=attention, **SWITCHES[switch]))


@pytest.mark.slow
@pytest.mark.parametrize("attention", SHIPPED)
@pytest.mark.parametrize("switch", SWITCHES)
def test_of_every_scheme(switch: str, attention: str) -> None:
    if switch not in NEEDS_CLASS or has_class_token(attention):
        assert_counts_agree(replace(TINY, attention=attention, **SWITCHES[switch]))


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"position": "rope"}, 0),
        ({"position": "sinusoid"}, 0),
        ({"qk_norm": True}, 0),
        ({"layer_scale": 0.1}, 0),
        ({"norm": "rms"}, 0),
        ({"qkv_bias": ""}, 0),
        ({"gate": "head"}, 2 * (18 * 2 + 1) * 24 * 2),
        ({"gate": "channel"}, 2 * (18 * 2 + 1) * 24 * 24),
        ({"mlp": "swiglu"}, 2 * 19 * 24 * 96),
        ({"pool": "class+mean"}, 24 * 5),
    ],
)
def test_what_a_switch_adds_by_hand(changes: dict[str, Any], more: int) -> None:
    """Divided attention over 3 x 2 x 3 patches, 24 channels, 2 heads, 2 blocks, 5 classes."""
    plain, switched = cost(TINY), cost(replace(TINY, **changes))
    assert switched.macs_per_view - plain.macs_per_view == more


def test_registers_are_keys_of_every_group() -> None:
    joint = replace(TINY, attention="joint", registers=4)
    assert comparisons_per_patch(joint) == 18 + 5
    assert comparisons_per_patch(replace(joint, attention="divided")) == 3 + 6 + 5
    assert comparisons_per_patch(replace(joint, registers=0)) == 18 + 1
