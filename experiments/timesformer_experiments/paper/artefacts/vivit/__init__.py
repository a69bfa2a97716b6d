"""ViViT's tables."""
