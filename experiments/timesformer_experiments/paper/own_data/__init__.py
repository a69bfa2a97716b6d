"""Comparison of attention on one's own videos: every scheme behind one frozen stem, tuned alike (`reproduce real`)."""
