"""Configurations of models, their registry, and counts from the declaration."""
