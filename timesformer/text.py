"""Escaping of text from outside, such as file names and class names."""


def printable(text: str) -> str:
    """Escape the characters of a text that a terminal or a renderer would act on, such as control characters."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
