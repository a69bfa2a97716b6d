"""README and documentation: every code block is executed as it stands on the page, at a tiny size, or is listed here
with the reason why it is not."""

import json
import os
import pkgutil
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import typer.main
import yaml
from markdown.extensions import toc
from typer.testing import CliRunner

from timesformer import TimeSformerConfig
from timesformer.attention import load_file
from timesformer.config.cnn import CnnConfig
from timesformer.data import Preprocessing, read_annotations
from timesformer.data.probes import Difficulty, make_probe
from timesformer.training.recipe import Recipe
from timesformer_experiments.cli.main import app
from timesformer_experiments.paper.probes import ceiling_percent
from timesformer_experiments.specs.data import CsvData, ProbeData
from timesformer_experiments.specs.run import RunSpec, load_specs
from timesformer_experiments.specs.sweep import load_sweep, parse_sweep

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

NOT_RUN = {
    r"make reproduce": "trains for a quarter of an hour; its parts are run at `smoke` by tests/experiments/paper",
    r"make test": "is what runs this test",
    r"pip install": "installs from the network; tests/test_packaging.py builds the wheel",
    r"ray start|--ray HEAD:6379": "needs several machines; `test_the_slurm_recipe` starts two nodes on this one",
    r"#!/bin/bash": "is the recipe of `test_the_slurm_recipe`",
    r"--profile paper": "needs the real datasets; tests/experiments/paper/test_real.py has stand-ins for them",
    r"timesformer bench|timesformer_experiments\.bench\.gpu": "needs a GPU; tests/experiments/bench runs it, tiny",
}
"""Lines of ```bash blocks, or whole blocks by their first line, that are not executed, and why."""

TINY = {
    "timesformer cost --baseline": "--image-size 64 --num-frames 4",
    "timesformer cost --attention": "--image-size 32 --num-frames 4 --embed-dim 48 --depth 1 --num-heads 4",
    "timesformer probe": "--num-train 16 --num-test 8",
    "timesformer reproduce": "--jobs 1",
}
"""Options that make a command small, by how it begins."""
SMALLER = {"num_classes=400)": "num_classes=400, embed_dim=48, depth=2, num_heads=4)"}
"""What makes a ```python block small."""


@dataclass(frozen=True)
class Block:
    """A block of code on a page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def lines(self) -> list[str]:
        """Commands of a ```bash block, without comments."""
        stripped = (re.sub(r"(^|\s)#.*", "", line).strip() for line in self.text.splitlines())
        return [line for line in stripped if line]


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(str(page.relative_to(ROOT)), text.count("\n", 0, found.start()) + 1, found[1], found[2])
        for found in re.finditer(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def the_block(language: str, marker: str) -> Block:
    """The blocks with this marker, which are the same on every page."""
    found = [block for block in BLOCKS if block.language == language and marker in block.text]
    assert found, marker
    assert len({block.text for block in found}) == 1, [block.place for block in found]
    return found[0]


# Where pages are run


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
    (tmp_path / "examples").mkdir()
    for file in (ROOT / "examples").glob("*.yaml"):
        (tmp_path / "examples" / file.name).write_text(yaml.safe_dump(tiny(yaml.safe_load(file.read_text()))))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tiny(values: dict[str, Any]) -> dict[str, Any]:
    """A run or sweep with the same fields and less to do: few videos and steps, a small model, two values an axis."""
    if "base" in values:
        axes = {path: found[:1] if path == "seed" else found[:2] for path, found in values["axes"].items()}
        measure = [name for name in values["measure"] if name != "memory"]  # seconds a cell, whatever its size
        return {**values, "base": tiny(values["base"]), "axes": axes, "exclude": [], "measure": measure}
    data, model, recipe = (dict(values.get(name) or {}) for name in ("data", "model", "recipe"))
    if "probe" in data:
        data |= {"num_train": 16, "num_test": 8}
    if "attention" in model:
        model |= {"image_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    recipe = {key: value for key, value in recipe.items() if key != "epochs"}
    recipe |= {"steps": 2, "batch_size": 4, "accumulate": 1}
    return {**values, "data": data, "model": model, "recipe": recipe}


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


def run_yaml(block: Block, place: Path) -> None:
    """A file is validated as it stands, and written to be run at a tiny size; other blocks are part of a run."""
    named = re.match(r"# (\w+\.yaml)\n", block.text)
    values = yaml.safe_load(block.text)
    path = place / (named[1] if named else "part.yaml")
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
    assert found["left"] == 4  # 8 with both seeds
    assert not (place / "runs" / "frames").exists()


def check_sweep(found: dict[str, Any], place: Path) -> None:
    assert found["failed"] == 0


def check_status(found: dict[str, Any], place: Path) -> None:
    assert found["counts"]["done"] == 4


def check_report(found: dict[str, Any], place: Path) -> None:
    assert found["runs"] == 4
    assert {"summary.tex", "report.md", "report.html"} <= {Path(name).name for name in found["files"]}


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
    "timesformer train finetune.yaml": check_fine_tuning,
    "timesformer predict clips/test --checkpoint finetune.yaml": check_new_names,
}
"""By the command: what its JSON says."""


def result_first_model(scope: dict[str, Any], place: Path) -> None:
    assert scope["logits"].shape == (1, 400)


def result_scheme(scope: dict[str, Any], place: Path) -> None:
    assert len((place / "rows.py").read_text().splitlines()) < 20
    assert [scheme.name for scheme in load_file(place / "rows.py")] == ["rows"]


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
    "SCHEMES": result_scheme,
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
    (place / "rows.py").write_text(the_block("python", "SCHEMES").text)
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


# What pages say without a block


LINKING = [*PAGES, *(ROOT / name for name in ("kernels/README.md", "results/README.md"))]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return {
        toc.slugify(heading.replace("`", ""), "-") for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    }


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in LINKING])
def test_links_lead_somewhere(page: str) -> None:
    for address in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        if re.match(r"https://", address):
            continue
        path, _, anchor = address.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.is_file(), f"{page}: {address}"
        if anchor:
            assert anchor in anchors(target), f"{page}: {address}"


def test_the_pages_name_what_exists() -> None:
    """Dotted names of our packages can be imported, `make` targets and extras are there, folders of the map as well."""
    texts = "\n".join(page.read_text(encoding="utf-8") for page in LINKING)
    for name in set(re.findall(r"`((?:timesformer|timesformer_kernels|timesformer_experiments)(?:\.\w+)+)`", texts)):
        pkgutil.resolve_name(name)
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^)make ([a-z-]+)", texts, flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(rows_under("docs/install.md", "extra")) == set(extras)
    for folder in rows_under("README.md", "folder"):
        assert (ROOT / folder).is_dir(), folder


def rows_under(page: str, first: str, number: int = 0) -> dict[str, list[str]]:
    """The rows of a page's table whose first column is called so: names in the first column -> the other cells."""
    tables = re.findall(rf"^\| {first} \|.*\n\|[-|: ]+\|\n((?:\|.*\n)+)", (ROOT / page).read_text(), flags=re.MULTILINE)
    found = {}
    for line in tables[number].splitlines():
        name, *cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        for each in re.findall(r"`([^`]+)`", name):
            found[each] = cells
    return found


SECTIONS: list[tuple[str, int, dict[str, Any]]] = [
    ("docs/train.md", 0, {name: field.default for name, field in RunSpec.model_fields.items()}),
    (
        "docs/train.md",
        1,
        {name: field.default for kind in (ProbeData, CsvData) for name, field in kind.model_fields.items()},
    ),
    ("docs/train.md", 2, {field.name: field.default for field in fields(TimeSformerConfig)}),
    ("docs/train.md", 3, {field.name: field.default for field in fields(CnnConfig)}),
    ("docs/train.md", 4, {field.name: field.default for field in fields(Recipe) if field.name != "seed"}),
    ("docs/data.md", 0, {field.name: field.default for field in fields(Preprocessing)}),
    ("docs/probes.md", 0, {field.name: field.default for field in fields(Difficulty)}),
]


@pytest.mark.parametrize(("page", "number", "known"), SECTIONS, ids=[f"{page}-{n}" for page, n, _ in SECTIONS])
def test_tables_of_fields_are_complete(page: str, number: int, known: dict[str, Any]) -> None:
    """Every field has a row, no row has another name, and plain defaults are those of the code."""
    rows = rows_under(page, "field", number)
    assert set(rows) - {"train", "test"} == set(known)
    for name, default in known.items():
        stated = rows[name][0].strip("`")
        if isinstance(default, bool | int | float | str) and re.fullmatch(r"[\d.e-]+|true|false|[a-z0-9_]+", stated):
            assert str(default).lower() == stated or float(stated) == float(default), name


SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift 2; done
exec "$@"
"""


@pytest.mark.slow
def test_the_slurm_recipe(place: Path) -> None:
    """With a stand-in for Slurm: `srun` runs its command here, so that both nodes are on this machine."""
    recipe = the_block("bash", "#SBATCH").text
    sweep = tiny(yaml.safe_load(yaml_file("sweep.yaml", place).read_text()))
    (place / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    (place / "bin").mkdir()
    (place / "bin" / "srun").write_text(SRUN)
    (place / "bin" / "srun").chmod(0o755)
    told = {"SLURM_NNODES": "2", "SLURM_CPUS_ON_NODE": "1", "SLURMD_NODENAME": "first", "RAY_USAGE_STATS_ENABLED": "0"}
    path = f"{place / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    for _ in range(3):  # Ray gives its processes 30 seconds to start, which may be too few on a busy machine
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        (place / "ray.slurm").write_text(recipe.replace("6379", str(port)))
        code, out, err = in_a_group(["bash", "ray.slurm", "sweep.yaml", "shared"], os.environ | told | {"PATH": path})
        if code != 3:
            break
        assert "timed out during startup" in out + err
    assert code == 0, err
    assert "cluster: 2 nodes, 2 CPUs" in err
    assert "4 of 4 cells done" in out


def in_a_group(command: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
    """Exit code, standard output and error of a command; nothing that it has started lives on."""
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as process:
        try:
            out, err = process.communicate(timeout=600)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err
