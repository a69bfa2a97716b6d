"""Which attention for one's own videos: every scheme behind one frozen stem, tuned alike (`reproduce real`)."""
