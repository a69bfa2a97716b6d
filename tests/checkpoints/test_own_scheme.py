"""A user's own scheme travels with its model: its source is kept, and run only where it is trusted or named."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.experiments import own_scheme
from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.attention import Encoder, Scheme, load_file, names, register, registry, source_of
from timesformer.checkpoints import load_model, save_model, settings_of

SOURCE = Path(own_scheme.__file__)
SIZES = {"num_frames": 2, "image_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry without users' schemes, as in a new process."""
    for table in ("_added", "_sources", "_files"):
        monkeypatch.setattr(registry, table, {})


def saved(folder: Path, file: Path = SOURCE, name: str = "checkers") -> Path:
    load_file(file)
    torch.manual_seed(0)
    return save_model(folder, TimeSformer(TimeSformerConfig(attention=name, num_classes=3, **SIZES)))


def forget() -> None:
    for table in (registry._added, registry._sources, registry._files):
        table.clear()


@pytest.mark.usefixtures("forgetful")
def test_the_folder_keeps_the_source_and_runs_it_only_where_it_is_trusted(tmp_path: Path) -> None:
    model = saved(tmp_path / "model")
    weights = load_model(model).model.head.weight
    assert (model / "scheme.py").read_bytes() == SOURCE.read_bytes()
    stated = json.loads((model / "config.json").read_text())["scheme"]
    assert stated == {"name": "checkers", "file": "scheme.py", "sha256": source_of("checkers").sha256}  # type: ignore[union-attr]
    forget()
    for refused in (load_model, settings_of, TimeSformer.from_pretrained):
        with pytest.raises(InputError, match=r"'checkers'.*scheme\.py.*--trust.*trust=True.*--scheme-file") as error:
            refused(model)
        assert str(model / "scheme.py") in str(error.value)
    assert "checkers" not in names()
    for options in ({"trust": True}, {"scheme_file": SOURCE}):
        assert torch.equal(load_model(model, **options).model.head.weight, weights)
        forget()
    again = TimeSformer.from_pretrained(model, trust=True).save_pretrained(tmp_path / "again")
    assert (again / "scheme.py").read_bytes() == SOURCE.read_bytes()


@pytest.mark.usefixtures("forgetful")
def test_a_source_that_was_changed_is_not_run(tmp_path: Path) -> None:
    model = saved(tmp_path / "model")
    forget()
    (model / "scheme.py").write_text(SOURCE.read_text() + "\nraise SystemExit('run')\n")
    with pytest.raises(InputError, match="sha256 differs"):
        load_model(model, trust=True)
    (model / "scheme.py").unlink()
    with pytest.raises(InputError, match="no such file"):
        load_model(model, trust=True)
    assert load_model(model, scheme_file=SOURCE)


@pytest.mark.usefixtures("forgetful")
def test_another_file_is_used_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = saved(tmp_path / "model")
    forget()
    other = tmp_path / "other.py"
    other.write_text("# a comment\n" + SOURCE.read_text())
    with caplog.at_level(logging.WARNING):
        found = load_model(model, scheme_file=other)
    assert any("other.py" in note and "differs" in note for note in found.report.notes)
    assert "differs from the model's own scheme.py" in caplog.text


@pytest.mark.usefixtures("forgetful")
def test_models_without_a_source_say_what_is_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A scheme that was registered in Python, and a folder from before sources were kept."""
    register(Scheme("unfiled", (Encoder(block=own_scheme.SCHEMES[0].encoders[0].block),)))
    model = TimeSformer(TimeSformerConfig(attention="unfiled", num_classes=3, **SIZES))
    with caplog.at_level(logging.WARNING):
        folder = save_model(tmp_path / "model", model)
    assert "cannot keep its source" in caplog.text
    assert not (folder / "scheme.py").exists()
    assert load_model(folder)
    forget()
    with pytest.raises(InputError, match=r"config\.json: unknown attention scheme 'unfiled'.*--scheme-file"):
        load_model(folder, trust=True)


RULES = """
from timesformer.attention import Encoder, Scheme, Step, Tiles, Window
from timesformer.attention.rules import Size


def {name}(window: Size = (1, 1, 1)) -> Scheme:
    step = Step("{name}", (Tiles((1, 1, 1), Window(window)),), cls="global")
    return Scheme("{name}", (Encoder(block=((step,),)),))


SCHEMES = [{name}]
"""


@pytest.mark.usefixtures("forgetful")
def test_options_and_schedules_of_ones_own(tmp_path: Path) -> None:
    """Sources follow the names in attention and schedule, whatever options they have; loading asks for trust."""
    for name in ("mine", "other"):
        (tmp_path / f"{name}.py").write_text(RULES.format(name=name))
        load_file(tmp_path / f"{name}.py")
    given = {"name": "mine", "window": [2, 1, 1]}
    cases: dict[str, dict[str, Any]] = {
        "shipped": {"attention": {"name": "swin", "window": [2, 1, 1]}},
        "options": {"attention": given},
        "schedule": {"attention": "divided", "schedule": {"1": given}},
        "both": {"attention": "mine", "schedule": ["mine(window=[2,2,1])", "other"]},
    }
    files = {"shipped": [], "options": ["scheme.py"], "schedule": ["scheme.py"], "both": ["scheme.py", "scheme_2.py"]}
    folders = {}
    for case, fields in cases.items():
        config = TimeSformerConfig.from_dict(SIZES | {"depth": 2, "num_classes": 3} | fields)
        folders[case] = save_model(tmp_path / case, TimeSformer(config)), config
        assert sorted(path.name for path in (tmp_path / case).glob("scheme*.py")) == files[case]
        text = config.attention if config.schedule is None else config.label
        assert f"`{text}`" in (tmp_path / case / "README.md").read_text()
    for case, (folder, config) in folders.items():
        forget()
        if files[case]:
            with pytest.raises(InputError, match="attention scheme of its own, 'mine'"):
                load_model(folder)
        assert load_model(folder, trust=bool(files[case])).model.config == config
    (folders["both"][0] / "scheme_2.py").write_text("raise SystemExit")
    forget()
    with pytest.raises(InputError, match=r"scheme_2\.py: not the file"):
        load_model(folders["both"][0], trust=True)


@pytest.mark.usefixtures("forgetful")
def test_predicates_and_a_file_that_is_read_twice(tmp_path: Path) -> None:
    """A predicate's function is a new object each time that a file is run; a copy of a file is not run again."""
    file = tmp_path / "causal.py"
    file.write_text(
        "from timesformer.attention import Encoder, Predicate, Scheme, Step\n\n\n"
        "def earlier(query, key, grid):\n    return key[0] <= query[0]\n\n\n"
        "step = Step('causal', (Predicate(earlier),), cls='global')\n"
        "SCHEMES = [Scheme('causal_of_mine', (Encoder(block=((step,),)),))]\n"
    )
    model = saved(tmp_path / "model", file, "causal_of_mine")
    assert load_file(file) == load_file(model / "scheme.py")
    assert load_model(model, trust=True, scheme_file=file)


@pytest.mark.usefixtures("forgetful")
def test_a_library_scheme_needs_no_source_and_every_command_takes_the_options(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from tests.data.conftest import write_video
    from timesformer_experiments.cli.main import app

    plain = save_model(tmp_path / "plain", TimeSformer(TimeSformerConfig(num_classes=3, **SIZES)))
    assert not (plain / "scheme.py").exists()
    assert "scheme" not in json.loads((plain / "config.json").read_text())
    model = saved(tmp_path / "model")
    (tmp_path / "videos").mkdir()
    video = write_video(tmp_path / "videos" / "video.mp4", 4)
    (tmp_path / "list.csv").write_text(f"{video},1\n")
    words = {
        "predict": [str(video)],
        "features": [str(video), "--out", str(tmp_path / "features.npz")],
        "attend": [str(video), "--out", str(tmp_path / "look"), "--no-explorer"],
        "evaluate": [str(tmp_path / "list.csv"), "--classes", "number"],
        "export": [str(model), "--out", str(tmp_path / "out"), "--format", "timesformer-ablations"],
    }
    for command, given in words.items():
        chosen = [command, *given, *([] if command == "export" else ["--checkpoint", str(model)])]
        for options, code in (([], 2), (["--trust"], 0), (["--scheme-file", str(SOURCE)], 0)):
            forget()
            result = CliRunner().invoke(app, [*chosen, *options])
            assert result.exit_code == code, (command, options, result.output, result.exception)
            if code:
                said = " ".join(result.output.split())
                assert "--trust" in said
                assert "--scheme-file" in said
