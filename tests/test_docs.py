"""README and documentation: every code block is executed as it stands on the page, at a tiny size, or is listed here
with the reason why it is not."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from tests.pages import BLOCKS, PAGES, ROOT, Block, blocks_of, the_block, tiny
from timesformer.attention import build, load_file
from timesformer.data import read_annotations
from timesformer.data.probes import make_probe
from timesformer_experiments.cli.main import app
from timesformer_experiments.paper.own_data import lists
from timesformer_experiments.paper.probes import ceiling_percent
from timesformer_experiments.paper.recipes import read_recipes
from timesformer_experiments.paper.skills import registered
from timesformer_experiments.specs.run import load_specs
from timesformer_experiments.specs.sweep import load_sweep, parse_sweep

NOT_RUN = {
    r"make reproduce": "trains for a quarter of an hour; its parts are run at `smoke` by tests/experiments/paper",
    r"make test": "is what runs this test",
    r"pip install": "installs from the network; tests/test_packaging.py builds the wheel",
    r"ray start|--ray HEAD:6379": "needs several machines; tests/test_docs_slurm.py starts two nodes on this one",
    r"#!/bin/bash": "is the recipe of tests/test_docs_slurm.py",
    r"examples/\w+\.yaml": "is run by tests/test_examples.py",
    r"reproduce skills": "trains 36 models; tests/experiments/paper/test_ablation.py runs it at `smoke`, slowly",
    r"reproduce real ": "tunes and trains ten models; tests/experiments/paper/test_own_data.py runs it on tiny videos",
    r"reproduce gallery": "needs real clips; tests/experiments/paper/test_gallery.py has stand-ins for them",
    r"--profile paper": "needs the real datasets; tests/experiments/paper/test_real.py has stand-ins for them",
    r"runs/joint/model": "needs a model of joint attention; tests/experiments/cli/test_recall.py makes one",
    r"--compare OTHER": "needs a second model; tests/experiments/cli/test_attend_cli.py makes one",
    r"--break-even": "compares dozens of sizes; tests/experiments/cost/test_break_even.py runs it over fewer",
    r"timesformer bench|timesformer_experiments\.bench\.gpu": "needs a GPU; tests/experiments/bench runs it, tiny",
}
"""Lines of ```bash blocks, or whole blocks by their first line, that are not executed, and why."""

TINY = {
    "timesformer cost --baseline": "--image-size 64 --num-frames 4",
    "timesformer cost --attention": "--image-size 32 --num-frames 4 --embed-dim 48 --depth 3 --num-heads 4",
    "timesformer probe": "--num-train 16 --num-test 8",
    "timesformer reproduce": "--jobs 1",
}
"""Options that make a command small, by how it begins."""
SMALLER = {"num_classes=400)": "num_classes=400, embed_dim=48, depth=2, num_heads=4)"}
"""What makes a ```python block small."""


NEW_CLASSES = {
    "left": "sideways", "right": "sideways", "up": "up and down", "down": "up and down",
    "clockwise": "turning", "anticlockwise": "turning", "growing": "zooming", "shrinking": "zooming",
}  # fmt: skip


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small videos of four classes in folders and in annotation files, and a longer one."""
    folder = tmp_path_factory.mktemp("docs")
    probe = make_probe("motion", folder / "probe", num_train=32, num_test=16, seed=11)
    for part, csv in (("train", probe.train_csv), ("test", probe.test_csv)):
        for number, sample in enumerate(read_annotations("kinetics", csv)):
            assert isinstance(sample.label, int)
            target = folder / "clips" / part / NEW_CLASSES[probe.labels[sample.label]] / f"{number:03}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(sample.path, target)
    shutil.copytree(probe.folder, folder / "videos")
    shutil.copy(probe.test_csv, folder / "val.csv")
    shutil.copy(probe.train_csv, folder / "videos" / "train.csv")
    shutil.copy(probe.test_csv, folder / "videos" / "val.csv")
    with av.open(str(folder / "long.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=4)
        stream.height, stream.width, stream.pix_fmt = 40, 60, "yuv420p"
        for number in range(48):
            pixels = np.full((40, 60, 3), 5 * number, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))
    return folder


@pytest.fixture
def place(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with all that commands and files of the pages name."""
    for name in ("clips", "videos", "val.csv", "long.mp4"):
        (tmp_path / name).symlink_to(videos / name)
    (tmp_path / "VIDEO").symlink_to(videos / "long.mp4")
    (tmp_path / "results").symlink_to(ROOT / "results")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Running a block


def run(line: str, *more: str) -> str:
    result = CliRunner().invoke(app, [*shlex.split(line)[1:], *more])
    assert result.exit_code == 0, result.output
    return result.stdout


def why_not(line: str) -> str | None:
    return next((reason for pattern, reason in NOT_RUN.items() if re.search(pattern, line)), None)


def run_bash(block: Block, place: Path) -> None:
    if block.text.startswith("#!"):
        assert why_not(block.text) is not None, block.place
        return
    for line in block.lines:
        if why_not(line) is not None:
            check_options(line)
            continue
        assert line.startswith("timesformer "), f"{block.place}: {line}: run it, or state in NOT_RUN why not"
        small = " ".join(options for start, options in TINY.items() if line.startswith(start))
        if line in DONE:
            continue
        check = CHECKS.get(line)
        out = run(line, *shlex.split(small), *(["--json"] if check else []))
        if check:
            check(json.loads(out), place)
        if not re.search(NOT_ALIKE, line):
            DONE.add(line)
        for name in re.findall(r"--(?:out|plot|scores) (\S+)", line):
            if "--dry-run" not in line:
                written = place / name
                assert any(written.iterdir()) if written.is_dir() else written.stat().st_size > 0, line


DONE: set[str] = set()
"""Commands that leave nothing behind and have succeeded: on a further page they would do the same."""
NOT_ALIKE = r"--out|--plot|--scores|\b(train|sweep|predict|report|status|evaluate|audit)\b|--scheme-file"


def check_options(line: str) -> None:
    """A command that is not run: its name and options exist, or its target in the Makefile does."""
    name, *words = shlex.split(line)
    if name == "timesformer":
        command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
        command.make_context(words[0], words[1:], resilient_parsing=True)
    elif name == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), line


def run_python(block: Block, place: Path) -> None:
    scope: dict[str, Any] = {}
    text = block.text
    for long, short in SMALLER.items():
        text = text.replace(long, short)
    exec(compile(text, block.place, "exec"), scope)
    named = re.match(r"# (\w+\.py)\b", block.text)
    if named:
        (place / named[1]).write_text(block.text)
    for marker, check in RESULTS.items():
        if marker in block.text:
            check(scope, place)


BASE = {
    "name": "part",
    "data": {"probe": "appearance", "num_train": 16, "num_test": 8},
    "model": {"attention": "divided"},
    "recipe": {"steps": 2},
}


SKILLS: dict[str, Callable[[Path], object]] = {
    "skills.yaml": registered.read_skills,
    "skills_recipes.yaml": read_recipes,
    "lists.yaml": lists.read_file,
}
"""Files of `timesformer reproduce skills`, of which the first block shows a part, and of `reproduce real`."""


def run_yaml(block: Block, place: Path) -> None:
    """A file is validated as it stands, and written to be run at a tiny size; other blocks are part of a run."""
    named = re.match(r"# (\w+\.yaml)\n", block.text)
    values = yaml.safe_load(block.text)
    path = place / (named[1] if named else "part.yaml")
    if path.name in SKILLS:
        committed = yaml.safe_load(registered.SKILLS.read_text()) if path.name == "skills.yaml" else {}
        path.write_text(yaml.safe_dump(committed | values, sort_keys=False))
        SKILLS[path.name](path)
        return
    path.write_text(block.text if named else yaml.safe_dump(BASE | values))
    if "base" in values:
        load_sweep(path).jobs(path)
    else:
        load_specs(path)
    if path.name not in AS_IT_STANDS:
        path.write_text(yaml.safe_dump(tiny(values)))


RUN: dict[str, Callable[[Block, Path], None]] = {"bash": run_bash, "python": run_python, "yaml": run_yaml}
AS_IT_STANDS = ("finetune.yaml",)
"""Files whose runs are small."""


# What blocks show beyond running


def check_dry_run(found: dict[str, Any], place: Path) -> None:
    assert found["left"] == 4
    assert not (place / "runs" / "frames").exists()


def check_sweep(found: dict[str, Any], place: Path) -> None:
    assert found["failed"] == 0


def check_status(found: dict[str, Any], place: Path) -> None:
    assert found["counts"]["done"] == 4


def check_report(found: dict[str, Any], place: Path) -> None:
    assert found["runs"] == 4
    assert {"summary.tex", "report.md", "report.html"} <= {Path(name).name for name in found["files"]}


def check_fair_dry_run(found: dict[str, Any], place: Path) -> None:
    assert found["phases"]["tuning"]["left"] == 4
    assert found["phases"]["final"]["left"] == 10


def check_fair_status(found: dict[str, Any], place: Path) -> None:
    assert found["phases"]["tuning"]["done"] == 4
    assert found["claims"][0]["seeds"] == 5


def check_fair_report(found: dict[str, Any], place: Path) -> None:
    names = {Path(name).name for name in found["files"]}
    assert {"tuning.csv", "tuning_best_of_draws.png", "equal_cost.csv", "claims.csv"} <= names


def check_fine_tuning(found: dict[str, Any], place: Path) -> None:
    """From the committed checkpoint to other classes."""
    (record,) = found["records"]
    assert record["metrics"]["test_videos"] == 16
    assert record["metrics"]["top1_percent"] >= 50  # chance is 25
    started = json.loads((place / "runs" / record["hash"] / "model" / "provenance.json").read_text())["started_from"]
    assert started["weights"]["left_out"] == 2  # the head of the eight old classes


def check_new_names(found: dict[str, Any], place: Path) -> None:
    """The videos get the new classes' names, as often right as the record of the training says."""
    records = [json.loads(line) for line in (place / "runs" / "records.jsonl").read_text().splitlines()]
    (record,) = [record for record in records if record["name"] == "gestures"]
    assert {guess["label"] for guess in found["videos"][0]["top"]} == set(NEW_CLASSES.values())
    right = sum(video["top"][0]["label"] == Path(video["path"]).parent.name for video in found["videos"])
    assert 100 * right / 16 == record["metrics"]["top1_percent"]


CHECKS: dict[str, Callable[[dict[str, Any], Path], None]] = {
    "timesformer sweep sweep.yaml --out runs/frames --dry-run": check_dry_run,
    "timesformer sweep sweep.yaml --out runs/frames": check_sweep,
    "timesformer status runs/frames": check_status,
    "timesformer report runs/frames": check_report,
    "timesformer sweep fair.yaml --out runs/fair --dry-run": check_fair_dry_run,
    "timesformer sweep fair.yaml --out runs/fair": check_sweep,
    "timesformer status runs/fair": check_fair_status,
    "timesformer report runs/fair": check_fair_report,
    "timesformer train finetune.yaml": check_fine_tuning,
    "timesformer predict clips/test --checkpoint finetune.yaml": check_new_names,
}
"""By the command: what its JSON says."""


def result_first_model(scope: dict[str, Any], place: Path) -> None:
    assert scope["logits"].shape == (1, 400)


def result_scheme(scope: dict[str, Any], place: Path) -> None:
    assert len((place / "rows.py").read_text().splitlines()) < 20
    assert [scheme.name for scheme in load_file(place / "rows.py")] == ["rows"]


def result_options(scope: dict[str, Any], place: Path) -> None:
    (scheme,) = load_file(place / "sinks.py")
    assert build({"name": scheme.name, "every": 2}) != build(scheme.name) == scheme


def result_export(scope: dict[str, Any], place: Path) -> None:
    assert scope["longer"].config.grid == (16, 4, 6)
    assert json.loads((place / "exported" / "config.json").read_text())["model_type"] == "timesformer"


def result_features(scope: dict[str, Any], place: Path) -> None:
    assert scope["vectors"].shape == (2, 96)
    assert scope["patches"].shape == (2, 8, 4, 4, 96)
    assert scope["cls"].shape == (2, 96)


def result_maps(scope: dict[str, Any], place: Path) -> None:
    assert scope["weights"].shape == (1, scope["model"].config.num_heads, 2, 8, 4, 4)
    assert scope["flow"].shape == scope["why"].shape == (1, 1, 8, 4, 4)
    assert len(scope["heads"]) == 2 * 3 * scope["model"].config.num_heads


RESULTS: dict[str, Callable[[dict[str, Any], Path], None]] = {
    "logits = model(": result_first_model,
    "# rows.py": result_scheme,
    "# sinks.py": result_options,
    "export(": result_export,
    "forward_features": result_features,
    "attention_maps": result_maps,
}
"""By a word in the block: what its variables hold."""


# The tests


@pytest.mark.integration
@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in PAGES if blocks_of(page)])
def test_page_from_top_to_bottom(page: str, place: Path) -> None:
    """As a reader would follow it: what one block makes, the next ones find."""
    for block in blocks_of(ROOT / page):
        assert block.language in RUN, f"{block.place}: expected one of {', '.join(RUN)}, got {block.language!r}"
        try:
            RUN[block.language](block, place)
        except BaseException as error:
            error.add_note(f"in the block at {block.place}")
            raise


def test_every_exception_and_check_is_needed() -> None:
    lines = [
        line for block in BLOCKS if block.language == "bash" for line in (block.text.partition("\n")[0], *block.lines)
    ]
    for pattern in NOT_RUN:
        assert any(re.search(pattern, line) for line in lines), pattern
    for start in (*TINY, *CHECKS):
        assert any(line.startswith(start) for line in lines), start
    for marker in RESULTS:
        assert any(marker in block.text for block in BLOCKS if block.language == "python"), marker


def test_no_command_hides_outside_the_blocks() -> None:
    """Commands that are indented would look like blocks and not be run."""
    for page in PAGES:
        assert not re.search(r"^ {4,}(timesformer|python|pip) ", page.read_text(), flags=re.MULTILINE), page


@pytest.mark.slow
def test_costs_at_the_sizes_that_the_pages_name(place: Path) -> None:
    (place / "rows.py").write_text(the_block("python", "# rows.py").text)
    lines = {line for block in BLOCKS for line in block.lines if line.startswith("timesformer cost")}
    assert len(lines) >= 4
    for line in sorted(lines):
        run(line)


def yaml_file(name: str, place: Path) -> Path:
    """The file of this name, as the pages have it."""
    (place / name).write_text(the_block("yaml", f"# {name}\n").text)
    return place / name


def test_run_files(place: Path) -> None:
    (spec,) = load_specs(yaml_file("run.yaml", place))
    assert spec.name == "mine"
    assert spec.recipe.total_steps(64) == 15
    (spec,) = load_specs(yaml_file("i3d.yaml", place))
    assert (spec.name, spec.protocol) == ("i3d-on-order", "coverx1")
    assert ceiling_percent(spec) == 75  # clips of 4 frames span half of the video


def test_several_gpus_are_three_lines(place: Path) -> None:
    sweep = yaml.safe_load(yaml_file("sweep.yaml", place).read_text())
    for block in BLOCKS:
        if block.language == "yaml" and block.text.startswith("processes:"):
            more = yaml.safe_load(block.text)
            assert more == {"processes": 2, "strategy": "fsdp", "tracker": "tensorboard"}
            assert len(block.text.splitlines()) == 3
    specs = [job.spec for job in parse_sweep(sweep | {"base": sweep["base"] | more}).jobs().values()]
    assert len(specs) == 8
    assert {(spec.processes, spec.strategy, spec.tracker) for spec in specs} == {(2, "fsdp", "tensorboard")}
    # They are how a run is made, not what it is.
    assert [spec.hash() for spec in specs] == list(parse_sweep(sweep).jobs())
