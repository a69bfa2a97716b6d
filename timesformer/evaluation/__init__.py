"""Use of trained models: evaluation, prediction, features."""
