"""The examples of CONTRIBUTING.md: written to where it says, in a copy of the packages, and each used once."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.integration
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
PACKAGES = ("timesformer", "kernels/timesformer_kernels", "experiments/timesformer_experiments")

USE = {
    "Scheme": "out(shape('rows'))",
    "Predicate": "out(shape('causal'))",
    "Mixer": """
torch.manual_seed(0)
model = TimeSformer(TimeSformerConfig("average", num_frames=2, **SIZES)).double()
from timesformer.attention import MixerInputs
inputs = MixerInputs(*torch.randn(3, 1, 2, 8, 4, dtype=torch.double), (2, 2, 2), torch.nn.ModuleDict())
mixer = model.scheme.encoders[0].steps[0].over[0]
same = torch.allclose(mixer.forward(inputs), mixer.reference(inputs))
out([*shape('average'), same])
""",
    "Dataset format": """
from timesformer.data import read_annotations
pathlib.Path("list.tsv").write_text("1\\ta b.mp4\\n0\\tc.mp4\\n")
out([[sample.name, sample.label] for sample in read_annotations("tabbed", "list.tsv", num_classes=2)])
""",
    "Checkpoint format": """
from safetensors.torch import save_file
settings = {"attention": "joint", "num_frames": 2, **SIZES}
model = TimeSformer(TimeSformerConfig(**settings))
pathlib.Path("foreign").mkdir()
save_file({f"net.{name}": value for name, value in model.state_dict().items()}, "foreign/model.safetensors")
pathlib.Path("foreign/config.json").write_text(json.dumps({"model_type": "prefixed", "settings": settings}))
clip = torch.randn(1, 2, 3, 16, 16)
out(torch.equal(TimeSformer.from_pretrained("foreign")(clip), model.eval()(clip)))
""",
    "Probe": """
from timesformer.data.probes import make_probe
out(list(make_probe("growth", "probes", num_train=2, num_test=2).labels))
""",
    "Measure": """
from timesformer_experiments.specs.sweep import parse_sweep
from timesformer_experiments.cost.measures import measured
base = {"model": {"attention": "joint", "num_frames": 2, **SIZES}}
(job,) = parse_sweep({"name": "s", "base": base, "measure": ["tokens"]}).jobs().values()
out(measured(job.cost, job.measure))
""",
    "Table or figure": """
from timesformer_experiments.paper.registry import load, names
table = load("mlp_width")
out(["mlp_width" in names(), sorted({run.model.mlp_ratio for run in table.plan("smoke")})])
""",
    "Command": """
from typer.testing import CliRunner
from timesformer_experiments.cli.main import app
out(json.loads(CliRunner().invoke(app, ["schemes", "--json"]).stdout)["schemes"])
""",
}

PROGRAM = """
import json, pathlib, traceback
import torch
from timesformer import TimeSformer, TimeSformerConfig
SIZES = {"image_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2, "num_classes": 3}
def shape(name):
    return list(TimeSformer(TimeSformerConfig(name, num_frames=2, **SIZES))(torch.zeros(1, 2, 3, 16, 16)).shape)
found = {}
for name, code in json.loads(pathlib.Path("use.json").read_text()).items():
    def out(value):
        found[name] = value
    try:
        exec(code, globals() | {"out": out})
    except Exception:
        found[name] = traceback.format_exc()
pathlib.Path("found.json").write_text(json.dumps(found))
"""


def sections() -> dict[str, str]:
    """The text of each kind of extension."""
    parts = re.split(r"^### (.+)$", TEXT.split("## Extensions")[1], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def apply(block: str, root: Path) -> None:
    """Change a file as a block says: a run of `-` lines, which occurs once, becomes the `+` lines after it."""
    name, _, changes = block.partition("\n")
    path = root / name
    text = path.read_text()
    for old, new in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)+)", changes, flags=re.MULTILINE):
        before, after = ("\n".join(line[1:] for line in part.splitlines()) for part in (old, new))
        assert text.count(before) == 1, f"{name}: {before}"
        text = text.replace(before, after)
    path.write_text(text)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the uses gave, by section."""
    root = tmp_path_factory.mktemp("contributing")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package)
    for text in sections().values():
        for block in re.findall(r"```python\n# (\S+\.py)\n(.*?)```", text, flags=re.DOTALL):
            path = root / block[0]
            assert path.parent.is_dir()
            assert not path.exists()
            path.write_text(block[1])
        for block in re.findall(r"```diff\n(.*?)```", text, flags=re.DOTALL):
            apply(block, root)
    (root / "use.json").write_text(json.dumps(USE))
    path = ":".join(str(root / folder) for folder in ("", "kernels", "experiments"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=root,
        env={"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((root / "found.json").read_text())


EXPECTED = {
    "Scheme": [1, 3],
    "Predicate": [1, 3],
    "Mixer": [1, 3, True],
    "Dataset format": [["a b.mp4", 1], ["c.mp4", 0]],
    "Checkpoint format": True,
    "Probe": ["growing", "shrinking"],
    "Measure": {"tokens": 8},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_example(name: str, found: Any) -> None:
    assert found[name] == EXPECTED[name], found[name]


def test_table(found: Any) -> None:
    """It is listed, and plans a run for each variant."""
    assert found["Table or figure"] == [True, [2, 4]], found["Table or figure"]


def test_command(found: Any) -> None:
    assert {"rows", "causal", "average", "divided"} <= set(found["Command"]), found["Command"]


def test_every_kind_of_extension_has_an_example() -> None:
    assert set(sections()) == set(USE)
    assert all("```" in text for text in sections().values())


def test_folders_that_are_named_exist() -> None:
    for name in re.findall(r"`((?:timesformer|experiments|kernels)/[\w/]+(?:\.\w+)?)`", TEXT):
        path = ROOT / name
        assert path.exists() or (path.name.startswith("NAME") and path.parent.is_dir()), name
