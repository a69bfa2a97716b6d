"""Text from outside, such as file names and class names."""


def printable(text: str) -> str:
    """Text without what a terminal or a renderer would act on: control characters are written out."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
