"""Grouped attention over affine layouts, imported as `timesformer_kernels`.  Needs torch alone."""

from timesformer_kernels.layout import AffineLayout, AxisTile, Tile

__all__ = ["AffineLayout", "AxisTile", "Tile"]
