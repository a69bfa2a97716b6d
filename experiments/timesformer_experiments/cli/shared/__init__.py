"""Parts of commands that are long."""
