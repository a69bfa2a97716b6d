"""What a model says of a clip that it cannot take."""

from collections.abc import Iterator
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.config.cnn import CnnConfig
from timesformer.config.registry import build_model

MODELS = {
    "transformer": TimeSformerConfig(image_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=2),
    "cnn": CnnConfig("c2d", num_frames=2, image_size=32, width=8, blocks=(1, 1, 1, 1), num_classes=2),
}


@pytest.fixture(scope="module", params=list(MODELS))
def model(request: pytest.FixtureRequest) -> nn.Module:
    return build_model(MODELS[request.param]).eval()


@pytest.fixture
def _as_installed() -> Iterator[None]:
    """Shapes in signatures are checked in tests alone; elsewhere the model itself has to say what is wrong."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("_as_installed")
@pytest.mark.parametrize(
    ("clip", "said"),
    [
        (torch.zeros(2, 3, 32, 32), r"got \(2, 3, 32, 32\): a single clip needs an axis of clips, clip\[None\]"),
        (torch.zeros(3, 32, 32), r"expected \(clips, frames, 3 channels, height, width\), got \(3, 32, 32\)"),
        (torch.zeros(1, 3, 2, 32, 32), r"channels come after frames, clip.transpose\(1, 2\)"),
        (torch.zeros(1, 2, 4, 32, 32), r"expected .* got \(1, 2, 4, 32, 32\)"),
        (torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8), r"normalised .* got torch.uint8: .*normalise\(clip, preproc"),
        (torch.zeros(1, 2, 3, 32, 32, dtype=torch.int64), r"floating-point numbers.* got torch.int64"),
        (torch.zeros(1, 2, 3, 32, 32, dtype=torch.float64), r"expected torch.float32 .* got torch.float64: clip.to\("),
    ],
)
def test_a_clip_that_does_not_fit_is_a_named_error(model: Any, clip: Tensor, said: str) -> None:
    for call in (model, model.features):
        with pytest.raises(InputError, match=f"clip: .*{said}"):
            call(clip)


def test_other_precisions_work_where_they_are_meant(model: Any) -> None:
    clip = torch.zeros(1, 2, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert model(clip.bfloat16()).shape == (1, 2)
    with torch.inference_mode():
        assert TimeSformer(MODELS["transformer"]).double()(clip[..., :16, :16].double()).dtype == torch.float64  # type: ignore[arg-type]
