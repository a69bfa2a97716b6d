"""Training: recipe, loop, resumable state."""
