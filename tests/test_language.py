"""Docstrings begin with a noun or an imperative verb."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("kernels/timesformer_kernels", "timesformer", "experiments/timesformer_experiments")


WORDS = {"What", "Whether", "Of", "As", "That", "How", "So", "Which", "Who"}
"""First words of docstrings that are clauses or fragments."""

VERBS = {
    "Adds", "Appends", "Applies", "Asks", "Averages", "Begins", "Brings", "Builds", "Calculates", "Calls",
    "Carries", "Catches", "Checks", "Clears", "Closes", "Compares", "Compiles", "Computes", "Converts", "Copies",
    "Creates", "Cuts", "Decodes", "Deletes", "Describes", "Does", "Draws", "Ends", "Evaluates", "Fills", "Finds",
    "Follows", "Gets", "Gives", "Goes", "Has", "Holds", "Is", "Keeps", "Knows", "Lays", "Leaves", "Lets", "Loads",
    "Looks", "Makes", "Measures", "Moves", "Names", "Needs", "Opens", "Prints", "Puts", "Raises", "Reads",
    "Refuses", "Registers", "Removes", "Replaces", "Restores", "Returns", "Runs", "Saves", "Says", "Sees",
    "Sends", "Serves", "Sets", "Shows", "Splits", "Starts", "Stops", "Stores", "Takes", "Tells", "Trains",
    "Tries", "Turns", "Uploads", "Uses", "Waits", "Writes", "Yields",
}  # fmt: skip
"""Verbs in the third person; before "of" they are nouns ("Names of …")."""


def docstrings(text: str) -> list[tuple[int, str]]:
    """Line and text of each docstring of a module, class, function or attribute."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            strings = [
                one.value
                for before, one in zip([None, *node.body], node.body, strict=False)
                if (before is None or isinstance(before, ast.Assign | ast.AnnAssign)) and isinstance(one, ast.Expr)
            ]
            found += [
                (one.lineno, one.value)
                for one in strings
                if isinstance(one, ast.Constant) and isinstance(one.value, str)
            ]
    return found


def is_well_begun(docstring: str) -> bool:
    """Return False if a docstring begins with a clause, a fragment or a verb in the third person."""
    first, *rest = docstring.split()
    word = first.rstrip(",:;.")
    return word not in WORDS and (word not in VERBS or rest[:1] == ["of"])


def test_docstrings_begin_with_a_noun_or_an_imperative() -> None:
    bad, seen = [], 0
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            for line, docstring in docstrings(path.read_text(encoding="utf-8")):
                seen += 1
                if not is_well_begun(docstring):
                    bad.append(f"{name}:{line}: {docstring.splitlines()[0]}")
    assert seen > 300
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Return the mean.", True),
        ("Names of all schemes.", True),
        ("Names the field.", False),
        ("Writes a file.", False),
        ("Whether it is on.", False),
        ("What a step adds.", False),
        ("As any module.", False),
    ],
)
def test_first_words(docstring: str, expected: bool) -> None:
    assert is_well_begun(docstring) is expected


def test_docstrings_of_every_kind_are_found() -> None:
    text = '"""Module."""\nA = 1\n"""Attribute."""\nclass B:\n    """Class."""\n    def c(self):\n        """Method."""'
    assert sorted(docstrings(text)) == [(1, "Module."), (3, "Attribute."), (5, "Class."), (7, "Method.")]
