"""What the commands of the `timesformer` command line share: options, output, errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from timesformer_experiments.report.terminal import plain_text, progress

if TYPE_CHECKING:
    import torch

    from timesformer.data import Preprocessing
    from timesformer.evaluation.protocols import Protocol
    from timesformer_experiments.paper.artefact import Folders, Profile

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
Out = Annotated[Path, typer.Option(help="Folder of the results.")]
Runs = Annotated[Path, typer.Option(help="Folder of the runs: checkpoints, models, records.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of probes and decoded frames; `.cache` beside the runs.")]
Jobs = Annotated[int, typer.Option(min=0, help="Runs at a time; 0: one for each core.")]
SchemeFile = Annotated[Path | None, typer.Option(help="A scheme of your own: a Python file, which is run.")]

Checkpoint = Annotated[
    str, typer.Option(help="Folder, file or hub name of a model, or the .yaml file of a run that is finished.")
]
ProtocolName = Annotated[str | None, typer.Option(help="Views of a video: paper, fair-code, mmaction2, clip or 10x3.")]
Clips = Annotated[str | None, typer.Option(help="Clips of each video instead of the protocol's: a number or `cover`.")]
Crops = Annotated[int | None, typer.Option(min=1, help="Crops of each clip instead of the protocol's.")]
AllowUnreadable = Annotated[bool, typer.Option(help="Do not fail where a video cannot be read; it is still listed.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Views that the model sees at a time.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read videos; 0: none beside this one.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, …; by default an accelerator if there is one.")]


def bad_input(text: str) -> ValueError:
    """An `InputError`; the library, and with it torch, is imported when it is needed."""
    from timesformer.errors import InputError

    return InputError(text)


def folders(out: Path, runs: Path, data_dir: Path | None) -> Folders:
    """The folders of a command; probes and frames lie in `.cache` beside the runs unless said otherwise."""
    from timesformer_experiments.paper.artefact import Folders
    from timesformer_experiments.records.folder import default_data_dir

    return Folders(data=data_dir if data_dir is not None else default_data_dir(runs), runs=runs, out=out)


def profile_named(name: str) -> Profile:
    """The profile of a name; InputError with the names there are."""
    from timesformer_experiments.paper.artefact import PROFILES

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
    from timesformer_experiments.records.folder import RunFolder
    from timesformer_experiments.specs.run import load_specs

    specs = load_specs(path)
    if len(specs) != 1:
        raise bad_input(f"--checkpoint {path}: expected a file with one run, this has {len(specs)}")
    folder = RunFolder(runs, specs[0].hash()).model
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


def chosen_protocol(name: str, clips: str | None, crops: int | None) -> Protocol:
    """The protocol of a name, with other clips or crops where they are given."""
    from timesformer.evaluation.protocols import protocol_named

    return protocol_named(name, clips=clips, crops=crops)


def loaded_model(checkpoint: str, runs: Path) -> tuple[Any, Preprocessing, Any]:
    """Model, preprocessing and labels of what `--checkpoint` names."""
    from timesformer.checkpoints import load_model
    from timesformer.data import Preprocessing

    loaded = load_model(model_source(checkpoint, runs))
    return loaded.model, Preprocessing.from_dict(loaded.preprocessing), loaded.labels


def listed(unreadable: list[tuple[str, str]]) -> list[dict[str, str]]:
    """Unreadable videos for JSON."""
    return [{"path": path, "reason": reason} for path, reason in unreadable]


def finish(unreadable: list[tuple[str, str]], any_read: bool, allowed: bool) -> None:
    """Unreadable videos on standard error; exit code 1 for them unless allowed, and always where none could be read."""
    for path, reason in unreadable:
        progress(f"unreadable: {plain_text(path)}: {plain_text(reason)}")
    if unreadable and not (allowed and any_read):
        raise typer.Exit(1)
