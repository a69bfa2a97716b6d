"""What the commands of the `timesformer` command line share: options, output, errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    import torch

    from timesformer_experiments.paper import Folders, Profile

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
Out = Annotated[Path, typer.Option(help="Folder of the results.")]
Runs = Annotated[Path, typer.Option(help="Folder of the runs: checkpoints, models, records.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of probes and decoded frames; `.cache` beside the runs.")]
Jobs = Annotated[int, typer.Option(min=0, help="Runs at a time; 0: one for each core.")]
SchemeFile = Annotated[Path | None, typer.Option(help="A scheme of your own: a Python file, which is run.")]


def bad_input(text: str) -> ValueError:
    """An `InputError`; the library, and with it torch, is imported when it is needed."""
    from timesformer.errors import InputError

    return InputError(text)


def print_json(value: Any) -> None:
    """The one JSON object of `--json`."""
    print(json.dumps(value, allow_nan=False))


def progress(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


def plain_text(text: str) -> Text:
    """Text from outside for a table: no markup, and nothing that a terminal would act on."""
    from timesformer.text import printable

    return Text(printable(text))


def console() -> Console:
    """Tables on standard output; wide enough where the output is no terminal."""
    return Console() if sys.stdout.isatty() else Console(width=160)


def folders(out: Path, runs: Path, data_dir: Path | None) -> Folders:
    """The folders of a command; probes and frames lie in `.cache` beside the runs unless said otherwise."""
    from timesformer_experiments.paper import Folders
    from timesformer_experiments.run.train import default_data_dir

    return Folders(data=data_dir if data_dir is not None else default_data_dir(runs), runs=runs, out=out)


def profile_named(name: str) -> Profile:
    """The profile of a name; InputError with the names there are."""
    from timesformer_experiments.paper import PROFILES

    for profile in PROFILES:
        if name == profile:
            return profile
    raise bad_input(f"--profile {name}: expected one of {', '.join(PROFILES)}, paper")


def model_source(checkpoint: str, runs: Path) -> str | Path:
    """What `--checkpoint` names: a source as it is, or the model of a finished run, by its YAML file or its folder."""
    path = Path(checkpoint)
    if (path / "model" / "config.json").is_file():
        return path / "model"
    if path.suffix not in (".yaml", ".yml"):
        return checkpoint
    from timesformer_experiments.specs.run import load_specs

    specs = load_specs(path)
    if len(specs) != 1:
        raise bad_input(f"--checkpoint {path}: expected a file with one run, this has {len(specs)}")
    folder = runs / specs[0].hash() / "model"
    if not folder.is_dir():
        raise bad_input(
            f"--checkpoint {path}: {folder} is not there; `timesformer train {path}` makes it (--runs names the folder "
            "of the runs)"
        )
    return folder


def chosen_device(name: str | None) -> torch.device:
    """The device of a name; without one an accelerator, if there is one.  InputError for one that is not here."""
    import torch

    if name is None:
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise bad_input(f"--device {name}: there is no such device here ({str(error).splitlines()[0]})") from error
    return device
