"""Descriptions that a user writes: runs, their data and costs, sweeps; validated, with hashes."""
