"""Availability of the kernels on a device."""

import importlib.util
import os
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

import torch

CAPABILITY = (8, 0)
TRITON = (3, 4)
"""Oldest version of Triton that works."""


class KernelsUnavailable(RuntimeError):
    """Error of kernels that cannot run; the message says what is missing."""


def interpreted() -> bool:
    """Return True if Triton's interpreter replaces a GPU (`TRITON_INTERPRET=1`, read when the kernels are imported)."""
    return os.environ.get("TRITON_INTERPRET", "0") in ("1", "true", "on")


def why_unusable(device: torch.device | str | None) -> str | None:
    """Return what is missing for running the kernels on `device` (None: any device of this machine), or None."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    missing = triton_missing()
    if missing is not None:
        return missing
    if interpreted() or device.type == "meta":  # nothing runs on the meta device
        return None
    if device.type != "cuda":
        return f"they need tensors on an NVIDIA GPU, got {device.type}; TRITON_INTERPRET=1 runs them on a CPU"
    if torch.version.hip is not None:
        return "they are made for NVIDIA GPUs; AMD GPUs (ROCm) are not supported, they were never compiled for them"
    if torch.cuda.get_device_capability(device) < CAPABILITY:
        major, minor = torch.cuda.get_device_capability(device)
        return f"they need compute capability 8.0 (Ampere) or newer, this GPU has {major}.{minor}"
    return None


@lru_cache(maxsize=1)
def triton_missing() -> str | None:
    """Return what is wrong with the installed Triton, or None."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: pip install 'timesformer-ablations[triton]'"
    found = triton_version()
    if found is not None and tuple(int(part) for part in found.split(".")[:2]) < TRITON:
        return f"they need Triton {TRITON[0]}.{TRITON[1]} or newer, this is {found}"
    return None


def triton_version() -> str | None:
    """Version of the installed Triton, None if it was installed without metadata."""
    for name in ("triton", "pytorch-triton", "triton-windows"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def require_usable(device: torch.device | str) -> None:
    """Raise KernelsUnavailable if the kernels cannot run on `device`; the message says what is missing."""
    reason = why_unusable(device)
    if reason is not None:
        raise KernelsUnavailable(f"Triton kernels cannot run: {reason}")


def on_device(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Make the tensor's GPU the current one: Triton launches on the current device, wherever its arguments are."""
    if tensor.device.type != "cuda":
        return nullcontext()
    return torch.cuda.device(tensor.device)


def tf32_allowed() -> bool:
    """Return True if fp32 products may be rounded to TF32.

    `allow_tf32` must not be read once the newer `fp32_precision` was set, which is also right after `allow_tf32` was.
    """
    matmul = torch.backends.cuda.matmul
    try:
        precision = matmul.fp32_precision
    except AttributeError:  # before torch 2.9
        return bool(matmul.allow_tf32)
    return bool(precision == "tf32")
