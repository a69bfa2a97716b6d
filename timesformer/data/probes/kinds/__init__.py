"""Kinds of probes.  `timesformer.data.probes.registry` finds every subclass of `Kind` in the modules of this folder."""
