"""What a terminal of 80 columns shows: no number, unit or option is broken, and no line is too long."""

import importlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner, Result

from tests.data.conftest import write_video
from tests.experiments.sweep_records import write_sweep
from timesformer_experiments.cli import evaluate, main, predict, train
from timesformer_experiments.cli import report as report_command
from timesformer_experiments.cli.main import app
from timesformer_experiments.paper.registry import load
from timesformer_experiments.paper.show import show_artefact
from timesformer_experiments.records.log import read_records
from timesformer_experiments.report.fitted import Fitted
from timesformer_experiments.report.tables import Column, Table, to_latex, to_markdown, to_rich
from timesformer_experiments.report.terminal import print_markdown, print_text
from timesformer_experiments.sweep.forecast import Forecast, RunForecast
from timesformer_experiments.sweep.forecast import show as show_forecast
from timesformer_experiments.sweep.status import RunStatus, SweepStatus
from timesformer_experiments.sweep.status import show as show_status

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
RESULTS = Path(__file__).parents[3] / "results"
COMMITTED_BENCHES = sorted(path.stem for path in (RESULTS / "bench").glob("*.json") if "gpu" not in path.stem)


def run(*words: object, columns: int = 80) -> Result:
    return CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": str(columns)})


def rendered(shown: Any, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(shown)
    return console.export_text()


def cells(text: str) -> set[str]:
    """Numbers with their intervals and marks, as they stand in tables."""
    return set(
        re.findall(
            r"(?<!\S)[−\d][\d.,]*(?: (?:± [\d.,]+|\([−\d.,–]+\)))?(?: [cmep])?(?= *│)", text.replace("\xa0", " ")
        )
    )


def same_numbers(narrow: str, wide: str) -> None:
    assert max(cell_len(line) for line in narrow.splitlines()) <= 80
    assert cells(wide) <= cells(narrow)
    assert cells(wide)
    assert cells(narrow) - cells(wide) <= set(words(wide))  # words of a text at the end of its line


@pytest.mark.parametrize("command", COMMANDS)
def test_help_breaks_no_option(command: str) -> None:
    shown = run(command, "--help").stdout
    assert max(map(cell_len, shown.splitlines())) <= 80
    for parameter in typer.main.get_command(app).commands[command].params:  # type: ignore[attr-defined]
        if parameter.param_type_name == "option":
            for name in (*parameter.opts, *parameter.secondary_opts):
                assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", shown), f"{command}: {name}"


def test_costs() -> None:
    words = ["cost", "--attention", "factorised_self_attention", "--num-frames", 2, "--image-size", 32]
    words += ["--num-classes", 8, "--embed-dim", 48, "--num-heads", 2, "--depth", 2, "--batch", 2]
    narrow, wide = (run(*words, columns=columns) for columns in (80, 200))
    assert narrow.exit_code == wide.exit_code == 0, narrow.output
    same_numbers(narrow.stdout, wide.stdout)
    assert "factorised_self_attention" in narrow.stdout


def test_a_report_of_a_sweep(tmp_path: Path) -> None:
    axes: dict[str, list[Any]] = {"model.attention": ["space", "divided"], "model.num_frames": [4], "seed": [0, 1]}
    write_sweep(tmp_path, axes)
    narrow, wide = (run("report", tmp_path, columns=columns).stdout for columns in (80, 250))
    tables = [text.split("\n- ")[0] for text in (narrow, wide)]
    same_numbers(*tables)
    assert "corrected together for 1 comparison;" in " ".join(wide.split())
    assert report_command


def test_accuracies_predictions_status_and_forecast(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    long = "a-run-with-a-long-name attention=factorised_self_attention and-more-words of-its-name"
    metrics = {"top1_percent": 71.5, "top1_low_percent": 62.25, "top1_high_percent": 80.25, "test_videos": 12345}
    shown = {}
    for columns in ("80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        train._print_accuracies([(long, metrics, Path("runs/abcdefabcdefabcd"))])
        shown[columns] = capsys.readouterr().out
    same_numbers(shown["80"], shown["200"])
    table = predict._table("protocol paper", "Video")
    table.add_row("a/very/long/path/of/a/video/" * 4, "a class with a long name " * 4, "0.125")
    assert "0.125" in rendered(table, 80)
    running = RunStatus("0" * 16, long * 2, "cell", "running", None, None, 12345, 200000, 1.234, 4567.8)
    text = rendered(show_status(SweepStatus("sweep", (running,), None, None)), 80)
    for number in ("12345/200000", "1.234", "4,567.8"):
        assert number in text
    macs = (123_456_789 * 10**9, 2_345_678 * 10**9)
    left = RunForecast("0" * 16, long * 2, "left", *macs, 34 * 2**30, 90.0)
    text = rendered(show_forecast(Forecast("sweep", 1, (left,), 1, "assumed")), 80)
    for number in ("123,456,789.0", "2,345,678.0", "34.00"):
        assert number in text


def words(text: str) -> list[str]:
    """What is read, wherever lines end."""
    return text.replace("\xa0", " ").split()


def test_evaluations(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    accuracy = {f"{part}{name}_percent": value for part in ("top1", "top5")
                for name, value in (("", 71.53), ("_low", 62.25), ("_high", 80.25))}  # fmt: skip
    groups = {f"group_{name}": value for name, value in accuracy.items() if name.startswith("top1")}
    measured: dict[str, Any] = {
        "name": "a-run-with-a-long-name attention=factorised_self_attention, protocol paper 10x3",
        "model": "runs/0123456789abcdef/model",
        "clips": 10,
        "crops": 3,
        "merge": "mean_softmax",
        "classes": "by number: the classes of the data have no names, and there are 1234567 videos in 123456 groups",
        **accuracy,
        **groups,
        "groups": 123456,
        "group_note": "conditional on these 123456 groups of test videos, too few to speak of others (12345678 videos)",
        "test_videos": 1234567,
        "test_videos_unreadable": 1,
        "test_videos_substituted": 0,
        "unreadable": [{"path": "a/video.mp4", "reason": "frame 123456 of 1234567 cannot be decoded, 12345678 bytes"}],
    }
    shown = {}
    for columns in ("80", "300"):
        monkeypatch.setenv("COLUMNS", columns)
        evaluate._show([measured])
        shown[columns] = capsys.readouterr().out
    same_numbers(shown["80"], shown["300"])
    assert words(shown["80"].split("here", 1)[1])[-40:] == words(shown["300"].split("here", 1)[1])[-40:]


def test_audits(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / "data" / "class").mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / "data" / "class" / f"{number}.mp4", frames=3 + number, size=(16, 16))
    (tmp_path / "data" / "class" / "broken.mp4").write_bytes(b"nothing")
    narrow, wide = (
        run("audit", tmp_path / "data", "--state", tmp_path / f"{columns}.jsonl", columns=columns).stdout
        for columns in (80, 300)
    )
    assert all(cell_len(line) <= 80 or len(line.split()) <= 3 for line in narrow.splitlines())  # a digest is a word
    assert cells(narrow) == cells(wide)
    texts = [words(shown.split("┘")[-1].split("speed")[0]) for shown in (narrow, wide)]
    assert texts[0] == texts[1]
    assert "known from an earlier audit" in " ".join(words(narrow))


@pytest.mark.parametrize("name", COMMITTED_BENCHES)
def test_benchmarks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the committed measurements in the place of new ones."""
    only = {"cpu_vs_transformers": "transformers"}.get(name, name.removesuffix("_cpu"))
    record = json.loads((RESULTS / "bench" / f"{name}.json").read_text())
    module = importlib.import_module(f"timesformer_experiments.bench.{only}")
    monkeypatch.setattr(module, "run", lambda *args, **options: record)
    narrow, wide = (run("bench", "--only", only, "--out", tmp_path, columns=each) for each in (80, 400))
    assert (narrow.exit_code, narrow.stderr) == (0, "")
    same_numbers(narrow.stdout, wide.stdout)


def test_benchmarks_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from timesformer_experiments.bench.gpu import __main__ as gpu

    row = "| time step, T = 8, bf16, forward + backward: against the best other provider | 12,345.678 times |"
    text = (
        f"# Targets\n\nMeasured on {'a GPU ' * 20}with 1234567 MiB.\n\n| Target [x] | Measured |\n|---|---:|\n{row}\n"
    )

    def main(given: list[str]) -> int:
        (tmp_path / "gpu_targets.md").write_text(text)
        return 0

    monkeypatch.setattr(gpu, "main", main)
    shown = run("bench", "--only", "kernels", "--out", tmp_path).stdout
    assert max(map(cell_len, shown.splitlines())) <= 80
    assert "12,345.678 times" in shown
    assert "1234567 MiB." in shown
    assert "Target [x]" in shown
    committed = (RESULTS / "bench" / "gpu_targets.md").read_text()
    monkeypatch.setenv("COLUMNS", "80")
    print_markdown(committed)


def test_artefacts_and_the_list_of_them(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    narrow, wide = (run("reproduce", "--list", columns=columns).stdout for columns in (80, 300))
    assert max(map(cell_len, narrow.splitlines())) <= 80
    assert words(narrow) == words(wide)
    report = load("pretraining").report(read_records(RESULTS / "pretraining" / "quick" / "records.jsonl"), "quick")
    shown = {}
    for columns in ("80", "300"):
        monkeypatch.setenv("COLUMNS", columns)
        show_artefact(report, [Path("results/pretraining/quick/pretraining.md")], "quick", False)
        shown[columns] = capsys.readouterr().out
    same_numbers(shown["80"], shown["300"])
    texts = [each[each.index("\n- ") :] for each in shown.values()]
    assert words(texts[0]) == words(texts[1])


def test_runs_of_a_folder(tmp_path: Path) -> None:
    axes: dict[str, list[Any]] = {"model.attention": ["space", "divided"], "model.num_frames": [4], "seed": [0, 1]}
    for key, job in write_sweep(tmp_path, axes).items():
        model = {"attention": job.spec.model.attention, "num_frames": 4, "image_size": 123456}
        stated = {"name": f"{job.spec.name} with-a-long-name", "model": model, "seed": job.spec.seed}
        (tmp_path / key / "spec.json").write_text(json.dumps(stated))
    narrow, wide = (run("runs", tmp_path, columns=columns).stdout for columns in (80, 300))
    same_numbers(narrow, wide)
    assert "attention=space" in " ".join(words(wide))  # said by the name, and not once more


def test_text_is_wrapped_between_words_where_the_width_is_known(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    line = "- a difference of 13.1 points " * 5 + "in /a/long/path/" + "of-a-video/" * 9 + "v.mp4"
    monkeypatch.setenv("COLUMNS", "80")
    print_text(line, indent=2)
    first, *others = capsys.readouterr().out.splitlines()
    assert len(first) <= 80
    assert all(other.startswith("  ") for other in others)
    assert " ".join(words("\n".join([first, *others]))) == line
    monkeypatch.delenv("COLUMNS")
    print_text(line, "\x1b[31mred\nnot")
    assert capsys.readouterr().out == f"{line}\n\\x1b[31mred\\nnot\n"


def test_a_narrow_table_is_cut_into_parts_with_the_first_columns() -> None:
    frame = pd.DataFrame([{"name": "divided", **{f"x{place}": -1234567.5 - place for place in range(12)}}])
    columns = (
        Column("name", "Scheme", "label"),
        *(Column(f"x{place}", f"Number {place} [GMACs]", "counted") for place in range(12)),
    )
    shown = to_rich(Table(frame, columns, "A caption"))
    assert isinstance(shown, Fitted)
    narrow, wide = rendered(shown, 80), rendered(shown, 400)
    same_numbers(narrow, wide)
    assert narrow.count("divided") > wide.count("divided") == 1
    assert narrow.count("A caption") == narrow.count("c counted here, exactly") == 1
    assert all(f"−1,234,5{67 + place + 0.5:.1f}" in narrow.replace("\xa0", " ") for place in range(12))


def test_minus_signs_are_typeset_and_zero_has_none() -> None:
    columns = (Column("x", "X", "measured", bounds=("low", "high")), Column("y", "Y", "label"))
    frame = pd.DataFrame([{"x": -2.3, "low": -3.0, "high": -1.0, "y": -0.04}])
    table = Table(frame, columns, "c")
    assert "| −2.3 (−3.0–−1.0)<sup>m</sup> | 0.0 |" in to_markdown(table)
    assert "$-$2.3" in to_latex(table, "t")


def test_version_and_interruption(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from importlib.metadata import version

    found = run("--version")
    assert (found.exit_code, found.stdout) == (0, f"timesformer-ablations {version('timesformer-ablations')}\n")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    from timesformer_experiments.specs import run as specs
    from timesformer_experiments.sweep import carry_out

    monkeypatch.setattr(specs, "load_specs", interrupted)
    monkeypatch.setattr(carry_out, "open_sweep", interrupted)
    for words, said in (
        (("train", "run.yaml"), "interrupted: the same command goes on from the last checkpoint"),
        (("sweep", "sweep.yaml", "--out", tmp_path), "interrupted: the same command goes on: finished runs are kept"),
    ):
        stopped = run(*words)
        assert (stopped.exit_code, stopped.stdout) == (main.INTERRUPTED, "")
        assert said in stopped.stderr
