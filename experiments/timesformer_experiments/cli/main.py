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

from timesformer_experiments.cli import attend as cli_attend
from timesformer_experiments.cli import audit as cli_audit
from timesformer_experiments.cli import bench as cli_tools
from timesformer_experiments.cli import cost as cli_cost
from timesformer_experiments.cli import evaluate as cli_evaluate
from timesformer_experiments.cli import export as cli_export
from timesformer_experiments.cli import predict as cli_predict
from timesformer_experiments.cli import report as cli_report
from timesformer_experiments.cli import reproduce as cli_runs
from timesformer_experiments.cli import sweep as cli_sweep

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
for command in (cli_runs.reproduce, cli_cost.cost, cli_runs.train):
    app.command()(command)
app.command()(cli_evaluate.evaluate)
app.command()(cli_tools.probe)
app.command()(cli_tools.draw)
app.command()(cli_report.report)
app.command()(cli_sweep.sweep)
app.command()(cli_sweep.status)
app.command()(cli_tools.bench)
app.command()(cli_audit.audit)
app.command()(cli_export.export)
app.command()(cli_predict.predict)
app.command()(cli_predict.features)
app.command()(cli_attend.attend)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
