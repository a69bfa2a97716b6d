"""Artefact on sparse patterns."""
