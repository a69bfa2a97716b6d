"""Random state as a pure function of keys, so that a resumed run draws the same numbers as an undisturbed one."""

import hashlib

import torch
from torch import Tensor


def derive_seed(*keys: int | str) -> int:
    """Derive a 63-bit seed for `torch.manual_seed` from any keys, the same on all machines and in all processes."""
    digest = hashlib.blake2b("\0".join(map(str, keys)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_all(*keys: int | str) -> None:
    """Seed torch's global generators (CPU and accelerators), which initialisation, dropout and drop path use."""
    torch.manual_seed(derive_seed(*keys))


def epoch_order(seed: int, epoch: int, num_samples: int) -> Tensor:
    """Order in which an epoch visits its samples: a permutation of 0 … num_samples - 1, int64 (num_samples,)."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(num_samples, generator=generator)
