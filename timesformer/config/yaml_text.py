"""YAML as users write it: `1e-3` is a number, and a key that is given twice is an error."""

import re
from typing import Any

import yaml

from timesformer.errors import InputError


class RepeatedKey(yaml.YAMLError):
    """A mapping has a key twice; YAML would take the last one without a word."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line, self.problem = line, problem


class Loader(yaml.SafeLoader):
    """Plain data alone, with the numbers of YAML 1.2."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise RepeatedKey(line, f"{key.value!r} is given twice, first in line {lines[name]}")
            lines[name] = line
        return node


# YAML 1.1 asks for a point in the mantissa and a sign in the exponent. Sixteen hexadecimal digits are a run's hash.
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"(?![0-9a-f]{16}$)[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str, where: str) -> Any:
    """Plain data from YAML.

    Raises:
        InputError: a key that is given twice; the message names `where` and the line.
        yaml.YAMLError: no YAML.
    """
    try:
        return yaml.load(text, Loader)
    except RepeatedKey as error:
        raise InputError(f"{where}:{error.line}: {error.problem}") from error
