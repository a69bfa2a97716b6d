"""`ceiling_percent` under a short name; see `timesformer_experiments.paper.probes`."""

from timesformer_experiments.paper.probes import ceiling_percent

__all__ = ["ceiling_percent"]
