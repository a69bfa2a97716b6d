"""Files that users write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from timesformer.config.yaml_text import parse_yaml
from timesformer.errors import InputError


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML file, which holds the fields of `what`.  Raises InputError that names the file."""
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a YAML file ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected the fields of {what}, got {type(values).__name__}")
    return values
