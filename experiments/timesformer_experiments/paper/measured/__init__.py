"""Measurements on finished models, and of speed."""
