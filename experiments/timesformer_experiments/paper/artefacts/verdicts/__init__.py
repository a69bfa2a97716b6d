"""Verdicts of the probes on the paper's claims."""
