"""Annotation files to write, and what is read from them."""

import json
from pathlib import Path
from typing import Any


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def facts(samples: Any) -> list[tuple[Any, ...]]:
    return [(str(s.path), s.label, s.name, s.start_frame, s.end_frame) for s in samples]
