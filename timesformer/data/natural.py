"""Natural order of file names, with numbers sorted by value."""

import re

_DIGITS = re.compile(r"([0-9]+)")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts `frame_2.jpg` before `frame_10.jpg`: numbers by value, and before text."""
    parts = [part for part in _DIGITS.split(name) if part]
    return [(0, int(part), part) if part[0] in "0123456789" else (1, 0, part) for part in parts]
