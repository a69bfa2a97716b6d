"""Table 1 at `smoke`, made once a session: others start from its runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from timesformer.config.counting import macs_per_view
from timesformer_experiments.cli.main import app
from timesformer_experiments.cost import count


@pytest.fixture(scope="session")
def table1_at_smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with `runs` and `results`, made through the command line from encoding the videos to the page; and what
    was printed. Without the second count of MACs, which is tested elsewhere and takes most of the time."""
    folder = tmp_path_factory.mktemp("table1")
    places = ["--out", str(folder / "results"), "--runs", str(folder / "runs")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(count, "fvcore_macs", lambda model, inputs, repeats=None: macs_per_view(model.model.config))
        words = ["reproduce", "table1", "--profile", "smoke", "--jobs", "1", "--json", *places]
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return folder, json.loads(done.stdout)
