"""Grouped attention over affine layouts.  The package needs torch, and Triton to run the kernels."""

from timesformer_kernels.add_norm import add_norm, prefers_add_norm
from timesformer_kernels.auto import prefers_kernels
from timesformer_kernels.device import KernelsUnavailable, why_unusable
from timesformer_kernels.flops import attention_pairs
from timesformer_kernels.grouped import grouped_attention
from timesformer_kernels.layout import AffineLayout, AxisTile, Tile
from timesformer_kernels.reference import reference_groups

__all__ = [
    "AffineLayout",
    "AxisTile",
    "KernelsUnavailable",
    "Tile",
    "add_norm",
    "attention_pairs",
    "grouped_attention",
    "prefers_add_norm",
    "prefers_kernels",
    "reference_groups",
    "why_unusable",
]
