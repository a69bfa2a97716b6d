"""The `timesformer` command.

Standard output carries results, standard error progress and errors. With `--json` standard output is exactly one JSON
object. Exit codes: 0 done, 1 failed, 2 bad usage or bad input.

What a command needs is imported inside it, so that `timesformer --help` does not wait for torch.
"""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from timesformer_experiments.cli.attend import attend
from timesformer_experiments.cli.audit import audit
from timesformer_experiments.cli.bench import bench
from timesformer_experiments.cli.cost import cost
from timesformer_experiments.cli.draw import draw
from timesformer_experiments.cli.evaluate import evaluate
from timesformer_experiments.cli.export import export
from timesformer_experiments.cli.features import features
from timesformer_experiments.cli.predict import predict
from timesformer_experiments.cli.probe import probe
from timesformer_experiments.cli.report import report
from timesformer_experiments.cli.reproduce import reproduce
from timesformer_experiments.cli.sweep import status, sweep
from timesformer_experiments.cli.train import train

FAILED, BAD_INPUT = 1, 2


class _Group(TyperGroup):
    """Turns the errors that a user can do something about into a message and an exit code; others keep their trace."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, RuntimeError) as error:
            code = _exit_code(error)
            if code is None:
                raise
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(code) from error


def _exit_code(error: Exception) -> int | None:
    from timesformer.errors import InputError
    from timesformer_experiments.jobs.plan import RunsFailed

    return BAD_INPUT if isinstance(error, InputError) else FAILED if isinstance(error, RunsFailed) else None


app = typer.Typer(
    cls=_Group,
    help="Attention ablations in video transformers: one backbone, every scheme, and the paper's tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    reproduce,
    cost,
    train,
    evaluate,
    probe,
    draw,
    report,
    sweep,
    status,
    bench,
    audit,
    export,
    predict,
    features,
    attend,
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
