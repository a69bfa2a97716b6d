"""Kinds of probes: every class of `Kind` in a module here is one, found by `timesformer.data.probes.registry`."""
