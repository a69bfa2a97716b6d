"""The pages of the documentation and their blocks of code."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A block of code on a page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def lines(self) -> list[str]:
        """Commands of a ```bash block, without comments."""
        stripped = (re.sub(r"(^|\s)#.*", "", line).strip() for line in self.text.splitlines())
        return [line for line in stripped if line]


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(str(page.relative_to(ROOT)), text.count("\n", 0, found.start()) + 1, found[1], found[2])
        for found in re.finditer(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def the_block(language: str, marker: str) -> Block:
    """The blocks with this marker, which are the same on every page."""
    found = [block for block in BLOCKS if block.language == language and marker in block.text]
    assert found, marker
    assert len({block.text for block in found}) == 1, [block.place for block in found]
    return found[0]


def tiny(values: dict[str, Any]) -> dict[str, Any]:
    """A run or sweep with the same fields and less to do: few videos and steps, a small model, few values an axis."""
    if "base" in values:
        kept = {path: 2 if path in ("model.attention", "seed") else 1 for path in values["axes"]}
        axes = {path: found[: kept[path]] for path, found in values["axes"].items()}
        measure = [name for name in values["measure"] if name != "memory"]  # seconds a cell, whatever its size
        for name, less in (("tune", {"budget": 2}), ("until", {"seeds": [5]})):
            if name in values:
                values = {**values, name: values[name] | less}
        return {**values, "base": tiny(values["base"]), "axes": axes, "exclude": [], "measure": measure}
    data, model, recipe = (dict(values.get(name) or {}) for name in ("data", "model", "recipe"))
    if "probe" in data:
        data |= {"num_train": 16, "num_test": 8} | ({"num_val": 8} if "num_val" in data else {})
    if "attention" in model:
        model |= {"image_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    recipe = {key: value for key, value in recipe.items() if key != "epochs"}
    recipe |= {"steps": 2, "batch_size": 4, "accumulate": 1}
    return {**values, "data": data, "model": model, "recipe": recipe}
