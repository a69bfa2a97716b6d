"""What is shown while runs go on."""

import io
import json
import math
import re

import pytest
from rich.console import Console

from tests.experiments.spec_fakes import small
from timesformer_experiments.jobs import watching
from timesformer_experiments.jobs.watching import Watch, duration, number, outcome_text
from timesformer_experiments.specs.job import Job


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""

    class Clock:
        now = 100.0

        def perf_counter(self):
            return self.now

        def __getattr__(self, name):
            import time

            return getattr(time, name)

    made = Clock()
    monkeypatch.setattr(watching, "time", made)
    return made


def on_terminal():
    return Console(file=io.StringIO(), force_terminal=True, width=120)


def shown(watch):
    console = Console(file=io.StringIO(), width=160)
    console.print(watch.table())
    return console.file.getvalue()


def test_the_table_shows_rates_and_what_is_left(clock, tmp_path):
    watch = Watch(10, console=on_terminal(), runs_dir=tmp_path, slots=2, elsewhere=1, began=clock.now)
    jobs = {name: Job(small(name=name)) for name in ("one", "two")}
    for name, job in jobs.items():
        watch.begin(name, job)
    assert re.search(r"one\s+…\s+–\s+–\s+0 s\s+–", shown(watch))
    watch.step("one", 20, 120, 2.0)
    clock.now += 10
    watch.step("one", 40, 120, 1.25)  # 20 steps of 8 clips in 10 s
    watch.step("late", 1, 2, 0.0)  # of a run that has ended
    assert re.search(r"one\s+40/120\s+1.250\s+16.0\s+10 s\s+40 s", shown(watch))
    written = json.loads((tmp_path / "one" / "progress.json").read_text())
    assert (written["step"], written["steps"], written["loss"], written["clips_per_second"]) == (40, 120, 1.25, 16.0)
    with watch.showing():
        watch.end("one", jobs["one"], {"outcome": "done", "metrics": {"top1_percent": 50.0}}, (1, 0))
    text = watch.console.file.getvalue()
    assert "[1/10] one: top-1 50.0 %, 10 s" in text
    assert not (tmp_path / "one" / "progress.json").exists()
    text = shown(watch)
    assert "1 done, 0 failed, 1 running, 1 running elsewhere, 7 waiting; 360 per hour; expected end" in text
    assert watch.seconds_left() == 9 * 10 / 2
    watch.end("elsewhere", jobs["two"], {"outcome": "failed", "reason": "gone", "metrics": {}}, (1, 1))
    assert watch.failed == 1


def test_many_runs_are_cut_short(clock):
    watch = Watch(30)
    for number_ in range(25):
        watch.begin(str(number_), Job(small(name=f"run {number_}")))
    text = shown(watch)
    assert "25 running (5 not shown)" in text
    assert "run 19" in text
    assert "run 20" not in text


def test_lines_where_there_is_no_terminal(clock, capsys):
    watch = Watch(3, console=Console(file=io.StringIO()))
    with watch.showing():
        watch.begin("one", Job(small()))
        clock.now += 100
        watch.end("one", Job(small()), {"outcome": "done", "metrics": {}}, (1, 0))
    assert capsys.readouterr().err == "[1/3] small: done, 100 s; about 3 min left in total\n"
    silent = Watch(1, shown=False)
    silent.say("nothing")
    assert capsys.readouterr().err == ""


def test_without_a_terminal_running_runs_tell_where_they_are(clock, capsys):
    watch = Watch(3, console=Console(file=io.StringIO()), began=clock.now, told=clock.now)
    with watch.showing():
        watch.begin("one", Job(small(name="one")))
        watch.begin("two", Job(small(name="two")))
        watch.step("one", 20, 120, 2.0)
        clock.now += 29
        watch.step("one", 30, 120, 1.5)
        assert capsys.readouterr().err == ""
        clock.now += 1
        watch.step("one", 40, 120, 1.25)  # 20 steps in 30 s
        clock.now += 30
        watch.tick()  # nobody reports: still a line
    first, second, third, fourth = capsys.readouterr().err.splitlines()
    assert first == "[0/3] one: step 40/120, loss 1.250, 2 min left"
    assert second == "[0/3] two: running for 30 s"
    assert third == "[0/3] one: step 40/120, loss 1.250, 2 min left"
    assert fourth == "[0/3] two: running for 60 s"


def test_what_cannot_be_written_is_left_out(clock, tmp_path):
    (tmp_path / "one").write_text("")
    watch = Watch(1, runs_dir=tmp_path, shown=False)
    watch.begin("one", Job(small()))
    watch.step("one", 1, 2, math.nan)
    watch.stop("one")
    assert watch.seconds_left() != watch.seconds_left()
    watch.done = 1
    assert watch.seconds_left() == 0


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ({"top1_percent": 12.34, "macs_per_view": 1}, "top-1 12.3 %"),
        ({"macs_per_view": 2e9, "train_peak_memory_bytes": 2**31}, "2.0 GMACs, 2.0 GiB to train"),
        ({"latency_seconds": 0.0123}, "12.3 ms"),
        ({"params": 3}, "done"),
    ],
)
def test_outcomes_in_a_few_words(metrics, text):
    assert outcome_text({"outcome": "done", "metrics": metrics}) == text


def test_numbers_and_durations():
    assert [duration(s) for s in (0.4, 42, 300, 11520, 180000, math.nan)] == [
        "0 s",
        "42 s",
        "5 min",
        "3.2 h",
        "2.1 days",
        "–",
    ]
    assert number(1234.5, 1) == "1,234.5"
    assert number(math.nan, 1) == "–"
