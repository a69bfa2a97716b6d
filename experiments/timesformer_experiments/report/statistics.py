"""Numbers of statistics as they are read."""

from __future__ import annotations


def signed(value: float) -> str:
    """Format with one decimal and a typographic minus sign; values that round to zero have no sign."""
    text = f"{value:.1f}"
    return "0.0" if text == "-0.0" else text.replace("-", "−")


def p_text(value: float) -> str:
    """Format a p-value as in p = 0.6, p = 0.03, p < 0.001."""
    if value < 0.001:
        return "p < 0.001"
    return f"p = {value:.2f}" if value >= 0.1 else f"p = {value:.3f}".rstrip("0")
