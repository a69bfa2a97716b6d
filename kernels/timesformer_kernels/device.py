"""Availability of the kernels on a device."""

import importlib.util
import os

import torch

CAPABILITY = (8, 0)


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
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: pip install 'timesformer-ablations[triton]'"
    if interpreted() or device.type == "meta":  # nothing runs on the meta device
        return None
    if device.type != "cuda":
        return f"they need tensors on an NVIDIA GPU, got {device.type}; TRITON_INTERPRET=1 runs them on a CPU"
    if torch.cuda.get_device_capability(device) < CAPABILITY:
        major, minor = torch.cuda.get_device_capability(device)
        return f"they need compute capability 8.0 (Ampere) or newer, this GPU has {major}.{minor}"
    return None


def require_usable(device: torch.device | str) -> None:
    """Raise KernelsUnavailable if the kernels cannot run on `device`; the message says what is missing."""
    reason = why_unusable(device)
    if reason is not None:
        raise KernelsUnavailable(f"Triton kernels cannot run: {reason}")
