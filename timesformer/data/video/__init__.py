"""Video files: opened, indexed, decoded, judged."""
