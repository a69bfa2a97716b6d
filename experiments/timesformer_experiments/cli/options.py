"""Options, output and errors shared by the commands of the `timesformer` command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from timesformer_experiments.report.terminal import plain_text, progress

if TYPE_CHECKING:
    import torch

    from timesformer.data import Preprocessing
    from timesformer.evaluation.protocols import Protocol
    from timesformer.training.recipe import Precision
    from timesformer_experiments.paper.artefact import Folders, Profile

Json = Annotated[bool, typer.Option("--json", help="Print only one JSON object on standard output.")]
Out = Annotated[Path, typer.Option(help="Folder of the results.")]
Runs = Annotated[Path, typer.Option(help="Folder of the runs: checkpoints, models, records.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of probes and decoded frames. Default: `.cache` beside the folder of the runs."),
]
Jobs = Annotated[int, typer.Option(min=0, help="Number of runs in parallel; 0: one per core.")]
SchemeFile = Annotated[
    Path | None, typer.Option(help="Python file that declares your own scheme. The file is executed.")
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Run the attention scheme that the model's folder keeps as Python code."),
]

SchemeOptions = Annotated[
    list[str] | None,
    typer.Option("--option", help="Option of the scheme, such as window=3,3,3; repeatable."),
]
ScheduleText = Annotated[
    str | None,
    typer.Option(
        "--schedule", help="Schemes by depth, such as '0-5: space, 6-11: divided', or a pattern: '[divided, joint]'."
    ),
]

Checkpoint = Annotated[
    str, typer.Option(help="Folder, file or hub name of a model, or the YAML file of a finished run.")
]
ProtocolName = Annotated[
    str | None,
    typer.Option(help="Test protocol: paper, fair-code, mmaction2, clip, or clips x crops such as 10x3."),
]
Clips = Annotated[
    str | None, typer.Option(help="Clips per video, overriding the protocol: a number, or `cover` for the whole video.")
]
Crops = Annotated[int | None, typer.Option(min=1, help="Crops per clip, overriding the protocol.")]
AllowUnreadable = Annotated[
    bool, typer.Option("--allow-unreadable", help="Do not fail if a video cannot be read; it is still listed.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Views per batch.")]
Workers = Annotated[int, typer.Option(min=0, help="Number of processes that read videos; 0: the main process.")]
PrecisionName = Annotated[
    str, typer.Option("--precision", help="fp32, or bf16: about as exact, faster with AVX512-BF16, AMX or a GPU.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, … Default: an accelerator if there is one.")]


def bad_input(text: str) -> ValueError:
    """Return an `InputError`; the library, and with it torch, is imported only here."""
    from timesformer.errors import InputError

    return InputError(text)


def attention_named(name: str, options: list[str] | None) -> str:
    """Return the text of a scheme with the options of a command line, such as `window=3,3,3`.

    Raises InputError for an option without a value, or one that the scheme does not have.
    """
    from timesformer.attention import spelling
    from timesformer.attention.options import unspell

    name, given = unspell(name)
    for text in options or ():
        option, equals, value = text.partition("=")
        if not equals or not value:
            raise bad_input(f"--option {text}: expected an option and its value, such as window=3,3,3")
        if option.strip() in given:
            raise bad_input(f"--option {text}: {option.strip()} is given twice")
        parts = [_plain(part, text) for part in value.strip("[]()").split(",")]
        given[option.strip()] = parts if len(parts) > 1 or value[0] in "[(" else parts[0]
    return spelling({"name": name, **given}) if given else spelling(name)


def _plain(text: str, option: str) -> object:
    import yaml

    from timesformer.config.yaml_text import parse_yaml

    try:
        value: object = parse_yaml(text, f"--option {option}")
    except yaml.YAMLError as error:
        raise bad_input(f"--option {option}: expected an option and its value, such as window=3,3,3") from error
    return value


def schedule_of(text: str | None) -> object:
    """Return a schedule from the text of a command line.  Raises InputError for no such text."""
    import yaml

    from timesformer.config.yaml_text import parse_yaml

    if text is None:
        return None
    inner = text.strip()
    try:
        value: object = parse_yaml(inner if inner[:1] in "{[" else f"{{{inner}}}", "--schedule")
    except yaml.YAMLError as error:
        raise bad_input(
            f"--schedule {text}: expected schemes by depth, such as '0-5: space, 6-11: divided', or '[divided, joint]'"
            "; options as in '0-5: {name: swin, window: [2, 7, 7]}'"
        ) from error
    return value


def folders(out: Path, runs: Path, data_dir: Path | None) -> Folders:
    """Folders of a command; without `data_dir`, probes and frames are stored in `.cache` beside the runs."""
    from timesformer_experiments.paper.artefact import Folders
    from timesformer_experiments.records.folder import default_data_dir

    return Folders(data=data_dir if data_dir is not None else default_data_dir(runs), runs=runs, out=out)


def profile_named(name: str) -> Profile:
    """Return the profile with this name.  Raises InputError that lists the known names."""
    from timesformer_experiments.paper.artefact import PROFILES

    for profile in PROFILES:
        if name == profile:
            return profile
    raise bad_input(f"--profile {name}: expected one of {', '.join(PROFILES)}, paper")


def model_source(checkpoint: str, runs: Path) -> str | Path:
    """Return the source named by `--checkpoint`; for the YAML file or folder of a finished run, its model's folder."""
    path = Path(checkpoint)
    if (path / "model" / "config.json").is_file():
        return path / "model"
    if path.suffix not in (".yaml", ".yml"):
        return checkpoint
    from timesformer_experiments.records.folder import RunFolder
    from timesformer_experiments.specs.run import load_specs

    specs = load_specs(path)
    if len(specs) != 1:
        raise bad_input(f"--checkpoint {path}: expected a file with one run, got {len(specs)}")
    folder = RunFolder(runs, specs[0].hash()).model
    if not folder.is_dir():
        raise bad_input(
            f"--checkpoint {path}: {folder} does not exist; train it with `timesformer train {path}`, or name the "
            "folder of the runs with --runs"
        )
    return folder


def run_name(checkpoint: str, runs: Path) -> str | None:
    """Return the name of the run whose file or folder `--checkpoint` names; None for another checkpoint."""
    folder = Path(model_source(checkpoint, runs))
    if folder.name != "model" or not (folder / "provenance.json").is_file():
        return None
    import json

    name = json.loads((folder / "provenance.json").read_text(encoding="utf-8")).get("name")
    return None if name is None else str(name)


def chosen_device(name: str | None) -> torch.device:
    """Return the device with this name, or without a name an accelerator if there is one.

    Raises InputError for a device that this machine does not have.
    """
    import torch

    if name is None:
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise bad_input(f"--device {name}: not available on this machine ({str(error).splitlines()[0]})") from error
    return device


def chosen_precision(name: str, device: torch.device, quiet: bool = False) -> Precision:
    """Return the precision with this name; unless `quiet`, propose bf16 where the device is faster with it.

    Raises InputError for another name.
    """
    from timesformer.evaluation.forward import fast_bf16
    from timesformer.training.recipe import Precision

    for known in get_args(Precision):
        if name == known:
            if name == "fp32" and not quiet and (found := fast_bf16(device)) is not None:
                progress(f"this {'GPU' if device.type == 'cuda' else 'processor'} has {found}: try --precision bf16")
            return known
    raise bad_input(f"--precision {name}: expected one of {', '.join(get_args(Precision))}")


def chosen_protocol(name: str, clips: str | None, crops: int | None) -> Protocol:
    """Return the protocol with this name, with other clips or crops where they are given."""
    from timesformer.evaluation.protocols import protocol_named

    return protocol_named(name, clips=clips, crops=crops)


def loaded_model(
    checkpoint: str, runs: Path, trust: bool = False, scheme_file: Path | None = None
) -> tuple[Any, Preprocessing, Any]:
    """Load model, preprocessing and labels of the source that `--checkpoint` names."""
    from timesformer.checkpoints import load_model
    from timesformer.data import Preprocessing

    loaded = load_model(model_source(checkpoint, runs), trust=trust, scheme_file=scheme_file)
    return loaded.model, Preprocessing.from_dict(loaded.preprocessing), loaded.labels


def listed(unreadable: list[tuple[str, str]]) -> list[dict[str, str]]:
    """Return unreadable videos as plain data for JSON."""
    return [{"path": path, "reason": reason} for path, reason in unreadable]


def finish(unreadable: list[tuple[str, str]], any_read: bool, allowed: bool, enlarged: Sequence[str] = ()) -> None:
    """List enlarged and unreadable videos on standard error.

    Exit with code 1 if there are any, unless they are allowed and at least one video could be read.
    """
    for path in enlarged:
        progress(f"enlarged until the crop fits: {plain_text(path)}")
    for path, reason in unreadable:
        progress(f"unreadable: {plain_text(path)}: {plain_text(reason)}")
    if unreadable and not (allowed and any_read):
        raise typer.Exit(1)
