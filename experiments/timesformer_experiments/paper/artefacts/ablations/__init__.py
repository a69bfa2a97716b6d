"""Ablations of section 4.7 and of the released code."""
