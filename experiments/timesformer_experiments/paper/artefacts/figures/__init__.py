"""Figures of the paper, and figures of what it says in words."""
