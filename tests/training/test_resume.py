"""A run that is killed and resumed equals an undisturbed one, bit for bit."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.training.resumable_run import STEPS, train
from tests.training.training_fakes import FakeDataset, FakeModel
from timesformer.errors import InputError
from timesformer.training.loop import fit
from timesformer.training.recipe import Recipe
from timesformer.training.state import FILE

RECIPE = Recipe(steps=60, batch_size=6, lr=0.05, checkpoint_every=1000)
SCRIPT = Path(__file__).with_name("resumable_run.py")


@pytest.fixture(autouse=True)
def threads():
    """The number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """The folder of a run without interruption, which loads in its own process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train(data, folder, workers=0)
    return folder


def start(*args: object) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, str(SCRIPT), *map(str, args)], stdout=subprocess.PIPE, text=True)


def same_bits(a: Path, b: Path) -> None:
    """All tensors of two checkpoints: model, optimiser, losses and accuracies of all steps."""
    first, second = load_file(a / FILE), load_file(b / FILE)
    assert first.keys() == second.keys()
    assert {name.split(".")[0] for name in first} == {"model", "optimiser", "curves"}
    for name, value in first.items():
        assert value.numpy().tobytes() == second[name].numpy().tobytes(), name


@pytest.mark.integration
def test_a_killed_run_resumes_exactly(data, undisturbed, tmp_path):
    # It is killed in its third epoch, after step 12 and before the checkpoint of it: steps 9 to 12 are done again.
    with start(data, tmp_path, 12) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "12":
                process.kill()
                break
        assert process.wait() == -9
    with safe_open(tmp_path / FILE, framework="pt") as file:
        assert json.loads(file.metadata()["state"])["step"] == 8
    with start(data, tmp_path) as process:
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "resumed from 8" in output
    same_bits(tmp_path, undisturbed)


def test_every_checkpoint_resumes_exactly(data, undisturbed, tmp_path):
    class Stop(Exception):
        pass

    import resumable_run

    def stop(_: float) -> None:
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resumable_run.time, "sleep", stop)
        for at in (8, 12, STEPS):
            with pytest.raises(Stop):
                train(data, tmp_path, stop=at, workers=0)
    assert train(data, tmp_path, workers=0).resumed_from == 12
    same_bits(tmp_path, undisturbed)


def test_a_finished_run_is_not_repeated(data, undisturbed, tmp_path):
    shutil.copy(undisturbed / FILE, tmp_path / FILE)
    result = train(data, tmp_path, workers=0)
    assert result.resumed_from == STEPS == len(result.losses)
    assert all(loss == loss for loss in result.losses)
    same_bits(tmp_path, undisturbed)


def test_a_damaged_checkpoint_is_bad_input(data, undisturbed, tmp_path):
    (tmp_path / FILE).write_bytes((undisturbed / FILE).read_bytes()[:1000])
    with pytest.raises(InputError, match="expected a readable checkpoint"):
        train(data, tmp_path, workers=0)


def test_a_checkpoint_after_some_minutes_resumes_exactly(tmp_path, capfd, caplog):
    """Long before `checkpoint_every`, without a validation, and the resumed run says from where."""
    whole = fit(FakeModel(dropout=0.1), FakeDataset(), RECIPE, tmp_path / "whole", progress=False)
    seen = []

    def stop(done: int, total: int, loss: float) -> None:
        if done == 40:
            raise KeyboardInterrupt

    def validate(model):
        seen.append(1)
        return {}

    often = replace(RECIPE, checkpoint_minutes=1e-9)
    with pytest.raises(KeyboardInterrupt):
        fit(FakeModel(dropout=0.1), FakeDataset(), often, tmp_path / "cut", progress=stop, validation=validate)
    assert seen == []
    capfd.readouterr()
    with caplog.at_level("INFO", "timesformer"):
        again = fit(FakeModel(dropout=0.1), FakeDataset(), RECIPE, tmp_path / "cut", progress=True)
    assert again.resumed_from == 39
    said = f"resumed from step 39 of 60, the checkpoint in {tmp_path / 'cut'}"
    assert said in capfd.readouterr().err
    assert said in caplog.messages
    assert again.losses == whole.losses
    same_bits(tmp_path / "cut", tmp_path / "whole")
