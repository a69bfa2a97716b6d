"""Sweeps: carried out, forecast, watched."""
