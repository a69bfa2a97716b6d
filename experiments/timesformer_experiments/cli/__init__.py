"""The `timesformer` command: one command a file."""
