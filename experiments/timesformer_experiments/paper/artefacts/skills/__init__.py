"""Artefact on what each attention scheme can and cannot see."""
