"""Encoders that people start from today, as transformers saves them: one module for each family."""
