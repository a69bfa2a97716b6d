"""The `timesformer` command.

Results go to standard output, progress and errors to standard error. With `--json`, standard output is exactly one JSON
object. Exit codes: 0 done, 1 failed, 2 bad usage or bad input.

Each command imports what it needs inside its function, so that `timesformer --help` does not wait for torch.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import warnings
from collections.abc import Callable
from inspect import cleandoc
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from timesformer_experiments import cli

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
GO_ON = {
    "train": "the same command goes on from the last checkpoint, and repeats no finished run",
    "sweep": "the same command goes on: finished runs are kept, the others resume from their checkpoints; `timesformer "
    "status` and `timesformer report` show what is there",
    "reproduce": "the same command goes on: finished runs are kept, the others resume from their checkpoints",
}
"""Advice on how to go on after Ctrl-C, by command; other commands start anew."""
_PLAIN_WARNING = warnings.formatwarning


class _Group(TyperGroup):
    """Command group that turns errors a user can fix into a message and an exit code; others keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, RuntimeError) as error:
            code = _exit_code(error)
            if code is None:
                raise
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(code) from error
        except KeyboardInterrupt as error:
            name = ctx.invoked_subcommand or ""
            print(f"\ninterrupted: {GO_ON.get(name, 'nothing half-written is left')}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from error


def _exit_code(error: Exception) -> int | None:
    from timesformer.errors import InputError
    from timesformer_experiments.jobs.plan import RunsFailed

    return BAD_INPUT if isinstance(error, InputError) else FAILED if isinstance(error, RunsFailed) else None


app = typer.Typer(
    cls=_Group,
    help="Attention ablations in video transformers: one backbone, every attention scheme, and the paper's tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the boxes of rich cut long names of options in a terminal of 80 columns
    context_settings={"help_option_names": ["-h", "--help"]},
)
FIRST = (
    "reproduce",
    "cost",
    "train",
    "evaluate",
    "probe",
    "draw",
    "report",
    "sweep",
    "status",
    "runs",
    "bench",
    "audit",
)
"""The order of `--help`; commands that are not named here follow in alphabetical order."""


def commands() -> list[Callable[..., None]]:
    """Commands: in each file of this folder, the function of the file's name."""
    names = sorted(module.name for module in pkgutil.iter_modules(cli.__path__) if module.name != "main")
    names = [*FIRST, *(name for name in names if name not in FIRST)]
    found = {name: getattr(importlib.import_module(f"{cli.__name__}.{name}"), name, None) for name in names}
    return [command for command in found.values() if callable(command)]


def _help(command: Callable[..., None]) -> str:
    """Return a command's docstring with one line per paragraph, which the terminal wraps at its own width."""
    paragraphs = cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"timesformer-ablations {version('timesformer-ablations')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Attention ablations in video transformers: one backbone, every attention scheme, and the paper's tables."""


for command in commands():
    app.command(help=_help(command))(command)


def main() -> None:
    """Run the command line: the entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be in no encoding
    warnings.formatwarning = _warning
    app()


def _warning(message: Warning | str, category: type[Warning], *where: Any, **rest: Any) -> str:
    """Return the line for a warning, without its place in the code where it is meant for the user."""
    return f"warning: {message}\n" if category is UserWarning else _PLAIN_WARNING(message, category, *where, **rest)


if __name__ == "__main__":
    main()
