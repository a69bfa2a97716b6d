"""GPU-hours of training, from counted multiply-accumulates and a stated utilisation; nothing is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from timesformer.errors import InputError
from timesformer.training.recipe import Precision
from timesformer_experiments.cost.training import train_macs

PEAKS: dict[str, dict[Precision, float]] = {
    "a100": {"bf16": 312e12, "fp32": 19.5e12},
    "h100": {"bf16": 989e12, "fp32": 67e12},
    "h200": {"bf16": 989e12, "fp32": 67e12},
}
"""Dense peak [FLOP/s] of the SXM cards, by NVIDIA's data sheets: bf16 on tensor cores; fp32 without TF32, which is how
torch multiplies fp32 matrices unless it is told otherwise."""

SAID = (
    "GPU-hours from counted training MACs (three times the forward pass; 2 FLOPs each) at {share:.0%} of the peak of "
    "{peak} TFLOP/s of one {gpu} in {precision}. The utilisation is an assumption: it has to hold the parts that are "
    "bound by bandwidth and not counted as MACs (norms, activations, residual sums, the softmax of a backend that is "
    "not fused, the optimiser's step, copies), decoding of videos, and the exchange between GPUs; small models reach "
    "less. Evaluation is not included"
)


@dataclass(frozen=True)
class Budget:
    """A GPU and how well it is used.

    gpu: one of `PEAKS`; mfu: model FLOPs utilisation, training FLOPs divided by what the card could do, from 0 to 1;
    precision: "bf16" or "fp32"; price: of one GPU-hour, in any currency, or None.

    Raises InputError that names the option.
    """

    gpu: str
    mfu: float = 0.4
    precision: Precision = "bf16"
    price: float | None = None

    def __post_init__(self) -> None:
        if self.gpu not in PEAKS:
            raise InputError(f"--gpu {self.gpu}: expected one of {', '.join(PEAKS)}")
        if not 0 < self.mfu <= 1:
            raise InputError(f"--mfu {self.mfu:g}: expected a share above 0 and at most 1")
        if self.precision not in PEAKS[self.gpu]:
            raise InputError(f"--precision {self.precision}: expected bf16 or fp32")
        if self.price is not None and not (math.isfinite(self.price) and self.price > 0):
            raise InputError(f"--price {self.price:g}: expected a number above 0")

    def hours(self, macs: float) -> float:
        """Return the GPU-hours of so many multiply-accumulates of training."""
        return 2 * macs / (PEAKS[self.gpu][self.precision] * self.mfu) / 3600

    def statement(self) -> str:
        """Return the assumptions in words, for a caption."""
        peak = PEAKS[self.gpu][self.precision] / 1e12
        return SAID.format(share=self.mfu, peak=f"{peak:g}", gpu=self.gpu.upper(), precision=self.precision)

    def to_dict(self, macs: float) -> dict[str, float | str | None]:
        """Return hours and price with the assumptions, as plain data for JSON."""
        hours = self.hours(macs)
        return {
            "gpu": self.gpu,
            "mfu": self.mfu,
            "precision": self.precision,
            "peak_flops_per_second": PEAKS[self.gpu][self.precision],
            "train_macs": macs,
            "gpu_hours": hours,
            "price_per_gpu_hour": self.price,
            "price": None if self.price is None else hours * self.price,
            "how": self.statement(),
        }


def training_macs(macs_per_view: int, epochs: float, videos: int) -> int:
    """Return the multiply-accumulates of training on one clip of each of `videos` for `epochs` passes."""
    if epochs <= 0 or videos < 1:
        raise InputError(f"--epochs {epochs:g}, --videos {videos}: expected numbers above 0")
    return train_macs(macs_per_view, round(epochs * videos))
