"""Standardised features: what looks alike is told apart, and test clips do not depend on their neighbours."""

from pathlib import Path

import torch

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.checkpoints import load_model

TINY = TimeSformerConfig(
    num_frames=2, image_size=16, patch_size=8, num_classes=3, embed_dim=8, depth=1, num_heads=2, standardise=True
)


def test_channels_are_standardised_over_the_batch_and_by_running_means(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, clip = TimeSformer(TINY), torch.randn(16, 2, 3, 16, 16)
    model.train()
    found = model.features(clip)
    torch.testing.assert_close(found.mean(0), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.var(0, unbiased=False), torch.ones(8), atol=0.05, rtol=0)
    model.eval()
    with torch.no_grad():
        whole = model.features(clip)
        torch.testing.assert_close(whole, found.detach(), atol=0.2, rtol=0)
        torch.testing.assert_close(model.features(clip[:3]), whole[:3], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(model.fuse_for_inference()(clip), model(clip), atol=1e-4, rtol=1e-4)
    model.save_pretrained(tmp_path / "model", preprocessing={})
    loaded = load_model(tmp_path / "model").model
    with torch.no_grad():
        torch.testing.assert_close(loaded(clip), model(clip), atol=1e-4, rtol=1e-4)
    other = load_model(tmp_path / "model", standardise=False)
    assert "standardise.mean" in other.report.left_out
    assert list(load_model(tmp_path / "model", depth=1).model.state_dict()) == list(model.state_dict())
