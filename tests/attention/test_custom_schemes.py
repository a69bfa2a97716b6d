"""Schemes of a test's own (a partition, a predicate, a mixer) are counted and trained like the shipped ones.

Their oracle and their pictures are in tests/attention/test_oracle.py and tests/maps/test_neighbourhoods.py.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from tests.attention.custom import SCHEMES
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.attention import Scheme
from timesformer.training.loop import fit
from timesformer.training.recipe import Recipe
from timesformer_experiments.cost.count import cost

SIZES: dict[str, Any] = {"image_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


class Brightness(Dataset[dict[str, Any]]):
    """Two classes: dark and bright clips."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        noise = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1000 * epoch + index))
        return {"clip": noise + 2.0 * (index % 2) - 1.0, "label": index % 2, "index": index}


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_costs(scheme: Scheme) -> None:
    config = TimeSformerConfig(attention=scheme.name, num_frames=4, num_classes=2, **SIZES)
    found = cost(config)  # raises where the two counts disagree
    assert found.params == sum(p.numel() for p in TimeSformer(config).parameters())
    assert 0 < found.macs_needed <= found.macs_per_view


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_trains(scheme: Scheme, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TimeSformer(TimeSformerConfig(attention=scheme.name, num_frames=4, num_classes=2, **SIZES))
    result = fit(model, Brightness(), Recipe(steps=30, batch_size=8, lr=3e-3), tmp_path, progress=False)
    assert result.train_top1_percent > 90
