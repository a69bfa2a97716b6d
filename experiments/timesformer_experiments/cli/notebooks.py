"""Execution of the notebooks in place: `python -m timesformer_experiments.cli.notebooks`, run by `make notebooks`.

A notebook stores the outputs of its last execution and, in its metadata, a digest of the sources that produced them, so
that a test can tell whether they have changed since. Needs nbclient and ipykernel (the `notebooks` or `dev` extra).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timesformer_experiments.cli.options import bad_input

FOLDER = Path(__file__).parents[3] / "notebooks"
DIGEST = "executed_sha256"
LIMIT_SECONDS = 1200
"""Time limit of one cell."""
SURROUNDINGS = {
    "OMP_NUM_THREADS": "1",  # on a busy machine, threads that wait for one another are many times slower
    "PYTHONWARNINGS": "ignore:IProgress not found,ignore:Consider using IPython.display.IFrame",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}
"""Environment of a kernel where the caller's does not set these; hides warnings unrelated to the notebook."""
LARGEST_BYTES = 2**20
MACHINE_PATH = re.compile(r"/(?:home|root|tmp|work|Users|mnt)/\S*|\b[A-Z]:\\\\\S*")
VOLATILE = ("execution", "widgets")
"""Metadata that differ between executions: times and states of widgets."""


def find_notebooks(folder: Path = FOLDER) -> list[Path]:
    """All notebooks of a folder, in the order of their names."""
    return sorted(folder.glob("*.ipynb"))


def read(path: Path) -> Any:
    """Read a notebook as nbformat 4.  Raises InputError for any other file."""
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise bad_input(f"{path}: expected a notebook ({type(error).__name__}: {error})") from error


def digest(notebook: Any) -> str:
    """SHA-256 of the sources of the code cells, in order."""
    sources = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def execute(path: Path, folder: Path | None = None) -> Any:
    """Execute a notebook in a fresh kernel and return it with outputs, execution counts and digest.

    The file is not changed.  folder: working directory of the kernel, by default the notebook's folder.

    Raises:
        InputError: the file is not a notebook.
        nbclient.exceptions.CellExecutionError: a cell failed; the message holds its source and the traceback.
    """
    from nbclient import NotebookClient

    notebook = read(path)
    place = {"metadata": {"path": str(folder or path.parent)}}
    client = NotebookClient(notebook, timeout=LIMIT_SECONDS, kernel_name="python3", resources=place)
    client.execute(env={**SURROUNDINGS, **os.environ})
    for cell in notebook["cells"]:
        for name in VOLATILE:
            cell["metadata"].pop(name, None)
        if cell["cell_type"] == "code":
            cell["outputs"] = _joined(cell["outputs"])
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "timesformer": {DIGEST: digest(notebook)},
    }
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """Join consecutive texts of one stream, which the kernel splits at arbitrary points."""
    found: list[Any] = []
    for output in outputs:
        before = found[-1] if found else {}
        if output["output_type"] == "stream" and before.get("name") == output["name"]:
            before["text"] += output["text"]
        else:
            found.append(output)
    return found


def problems(path: Path) -> list[str]:
    """Problems of a stored notebook: sources changed since execution, missing outputs, errors, paths of a machine, a
    large file.  Raises InputError if the file is not a notebook."""
    notebook, found = read(path), []
    if path.stat().st_size >= LARGEST_BYTES:
        found.append(f"{path.stat().st_size / 1024:.0f} KiB, expected less than {LARGEST_BYTES / 1024:.0f}")
    if notebook["metadata"].get("timesformer", {}).get(DIGEST) != digest(notebook):
        found.append("its sources have changed since it was executed: run `make notebooks`")
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        found.append(f"not executed once from top to bottom: execution counts {counts}")
    if not any(cell["outputs"] for cell in cells):
        found.append("it has no outputs")
    for number, cell in enumerate(cells, start=1):
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                found.append(f"code cell {number} failed: {output['ename']}")
            shown = {kind: value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")}
            for text in MACHINE_PATH.findall(json.dumps([output.get("text"), shown])):
                found.append(f"code cell {number} shows a path of a machine: {text[:60]}")
    return found


def text_of(notebook: Any) -> str:
    """Text of a notebook as it is stored: JSON of nbformat 4, keys in order, a newline at the end."""
    import nbformat

    return str(nbformat.writes(notebook)) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Execute all notebooks, or those named, in place."""
    from timesformer.files import write_atomic

    parser = argparse.ArgumentParser(prog="python -m timesformer_experiments.cli.notebooks", description=main.__doc__)
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks; by default those of notebooks/")
    for path in parser.parse_args(arguments).paths or find_notebooks():
        began = time.perf_counter()
        text = text_of(execute(path))
        write_atomic(path, text)
        print(f"{path.name}: {time.perf_counter() - began:.0f} s, {len(text.encode()) / 1024:.0f} KiB", flush=True)


if __name__ == "__main__":
    main()
