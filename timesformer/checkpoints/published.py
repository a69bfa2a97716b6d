"""Preprocessing of the published checkpoints: built in, by name, because most of them do not state it.

Names are the hub's (`facebook/timesformer-base-finetuned-k400`), those of the files of FAIR's model zoo
(`TimeSformer_divST_8x32_224_K400.pyth`) and the folders of scenic's (`kinetics_400/vivit_base_16x2_fe`).  A record is
what a model was trained and measured with, wherever its weights have been copied to; where the copy's own processor
does something else, `source` says so.

Sources
-------
FAIR            facebookresearch/TimeSformer: README.md (model zoo), configs/{Kinetics,SSv2}/*.yaml,
                timesformer/config/defaults.py, timesformer/datasets/{kinetics,ssv2,transform}.py
FAIR, SSv2      frames are read by OpenCV (BGR), and the flip to RGB sits in a function that the transformer's path
                skips, although REVERSE_INPUT_CHANNEL is set: known from the code, not from an accuracy
FAIR, HowTo100M the README's table (frames, seconds that a clip covers: a stride of 32 at 30 frames per second)
Hugging Face    the weights are FAIR's; the processor of the base models is VideoMAE's with 0.45 / 0.225, short side 224
scenic          google-research/scenic: projects/vivit/configs/*, and deepmind/dmvr: processors.py (bilinear without
                antialias, long side rounded down, [-1, 1]); strides are in frames of Kinetics at 25 per second
"""

from dataclasses import dataclass
from typing import Any

from timesformer.data.preprocessing import Preprocessing

_FAIR_CODE = "FAIR: resized without antialias, 0.45 / 0.225, RGB"
_FAIR_SSV2 = "FAIR: resized without antialias, 0.45 / 0.225; SSv2 frames were read as BGR (from the code)"
_HUB = "; the hub's processor resizes by PIL (with antialias) and gives RGB"
_SCENIC = "scenic: [-1, 1], RGB, stride in frames at 25 per second"
_HUB_VIVIT = "; the processor class of transformers defaults to [-3, 1], which these weights never saw"


@dataclass(frozen=True)
class Published:
    """A published checkpoint: its preprocessing, the protocol its authors' figure was measured with (None where they do
    not say), and where both are from."""

    preprocessing: Preprocessing
    protocol: str | None
    source: str


def _fair(t: int, rate: int, size: int, source: str = _FAIR_CODE, protocol: str = "fair-code") -> Published:
    record = Preprocessing(num_frames=t, short_side=size, crop=size, sampling="dense", frame_rate=rate)
    return Published(record, protocol, source)


def _ssv2(t: int, size: int, source: str = _FAIR_SSV2) -> Published:
    record = Preprocessing(num_frames=t, short_side=size, crop=size, sampling="uniform", colour_order="BGR")
    return Published(record, "fair-code", source)


def _vivit(stride: int, protocol: str, source: str = _SCENIC) -> Published:
    record = Preprocessing(
        num_frames=32,
        short_side=256,
        crop=224,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        value_range=(-1.0, 1.0),
        sampling="dense",
        frame_rate=stride,
        target_fps=25.0,
    )
    return Published(record, protocol, source)


_HOWTO = _FAIR_CODE + "; section 4.6: clips end to end, predictions averaged"

PUBLISHED: dict[str, Published] = {
    # FAIR's model zoo
    **{
        name.format(data): _fair(t, rate, size)
        for data in ("K400", "K600")
        for name, t, rate, size in (
            ("TimeSformer_divST_8x32_224_{}.pyth", 8, 32, 224),
            ("TimeSformer_divST_16x16_448_{}.pyth", 16, 16, 448),
            ("TimeSformer_divST_96x4_224_{}.pyth", 96, 4, 224),
        )
    },
    "TimeSformer_divST_8_224_SSv2.pyth": _ssv2(8, 224),
    "TimeSformer_divST_16_448_SSv2.pyth": _ssv2(16, 448),
    "TimeSformer_divST_64_224_SSv2.pyth": _ssv2(64, 224),
    # The README's row for 64 frames says 448, the name of its file 224.
    **{f"TimeSformer_divST_{t}x32_224_HowTo100M.pyth": _fair(t, 32, 224, _HOWTO, "coverx1") for t in (8, 32, 64, 96)},
    # The hub
    **{
        name.format(data): _fair(t, rate, size, _FAIR_CODE + _HUB)
        for data in ("k400", "k600")
        for name, t, rate, size in (
            ("facebook/timesformer-base-finetuned-{}", 8, 32, 224),
            ("facebook/timesformer-hr-finetuned-{}", 16, 16, 448),
            ("fcakyon/timesformer-large-finetuned-{}", 96, 4, 224),
        )
    },
    "facebook/timesformer-base-finetuned-ssv2": _ssv2(8, 224, _FAIR_SSV2 + _HUB),
    "facebook/timesformer-hr-finetuned-ssv2": _ssv2(16, 448, _FAIR_SSV2 + _HUB),
    "google/vivit-b-16x2-kinetics400": _vivit(2, "4x3", _SCENIC + _HUB_VIVIT),
    "google/vivit-b-16x2": _vivit(2, "4x3", _SCENIC + _HUB_VIVIT),
    # scenic
    "kinetics_400/vivit_base_16x2_unfactorized": _vivit(2, "4x3"),
    "kinetics_400/vivit_base_16x2_fe": _vivit(2, "4x3"),
    "kinetics_400/vivit_large_16x2_fe": _vivit(2, "4x3"),
    "kinetics_600/vivit_large_16x2_fe": _vivit(2, "4x3"),
    # Which rate its frames were stored at is not published; 25 as for Kinetics.
    "epic_kitchens/vivit_large_16x2_fe": _vivit(1, "4x1"),
}


def names() -> tuple[str, ...]:
    """The names of the checkpoints whose records are built in."""
    return tuple(PUBLISHED)


def published(name: str) -> Published | None:
    """The entry of a checkpoint, None for an unknown one.

    `name` may be a path or an address that ends in one of the names: of a file of FAIR's, a clone of a hub's
    repository, scenic's `…/kinetics_400/vivit_base_16x2_fe/checkpoint`.
    """
    trimmed = name.split("?")[0].rstrip("/").removesuffix("/checkpoint")
    for known, entry in PUBLISHED.items():
        if trimmed == known or trimmed.endswith(f"/{known}"):
            return entry
    return None


def preprocessing_of(name: str) -> dict[str, Any] | None:
    """The preprocessing record of a published checkpoint as plain values, None for an unknown one; see `published`."""
    entry = published(name)
    return None if entry is None else entry.preprocessing.to_dict()
