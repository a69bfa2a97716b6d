"""Measurements of finished models, and of speed and memory."""
