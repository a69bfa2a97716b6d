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
            if not isinstance(key, yaml.ScalarNode):
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise RepeatedKey(line, f"{key.value!r} is given twice, first in line {lines[name]}")
            lines[name] = line
        return node

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        """A whole number; a zero before it changes nothing."""
        text = self.construct_scalar(node).replace("_", "").lower()
        return int(text, 0 if text.lstrip("+-").startswith(("0x", "0o", "0b")) else 10)


# YAML 1.1 asks for a point in the mantissa and a sign in the exponent, and reads 010 as 8 and 1:30 as 90.
# Sixteen hexadecimal digits are a run's hash.
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_NO_HASH = "(?![0-9a-f]{16}$)[-+]?"
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_INT, _FLOAT)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    _INT,
    re.compile(_NO_HASH + r"([0-9][0-9_]*|0x[0-9a-fA-F][0-9a-fA-F_]*|0o[0-7][0-7_]*|0b[01][01_]*)$"),
    list("-+0123456789"),
)
Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(_NO_HASH + r"((\.[0-9]|[0-9][0-9_]*\.?)[0-9_]*([eE][-+]?[0-9]+)?|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$"),
    list("-+.0123456789"),
)
Loader.add_constructor(_INT, Loader.construct_whole)


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
