"""Escaping of text from outside, such as file names and class names."""

from pathlib import Path


def printable(text: str) -> str:
    """Escape the characters of a text that a terminal or a renderer would act on, such as control characters."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def path_text(path: Path | str) -> str:
    r"""Return a path as text that any encoding can write: bytes that are not UTF-8 become escapes such as `\xff`."""
    text = str(path)
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, as an annotation file may have it
        return text.encode("utf-8", "backslashreplace").decode()
