"""Artefacts of the paper: one module per table or figure, found in the folders of this package."""
