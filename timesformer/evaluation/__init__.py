"""Trained models at work: evaluation, prediction, features."""
