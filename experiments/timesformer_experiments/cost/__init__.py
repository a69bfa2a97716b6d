"""Parameters, multiply-accumulates and memory of models, without weights."""
