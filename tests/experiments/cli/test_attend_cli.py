"""`timesformer attend` on encoded videos: what it writes, that it points at the right place, and what it refuses."""

import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from tests.maps.pointing import GRID, PATCH, PLACE, pointing_model
from timesformer.checkpoints import save_model
from timesformer.data.probes import make_probe
from timesformer.data.probes.encode import encode
from timesformer.maps import METHODS, AttentionMaps
from timesformer_experiments.cli.main import app

CHECKPOINT = str(Path(__file__).parents[3] / "results" / "checkpoints" / "divided-motion")
NAME = "a<img src=x onerror=alert(1)>$x^$\x1b[31m.mp4"


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["attend", *map(str, words)])


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    probe = make_probe("motion", tmp_path_factory.mktemp("probe"), num_train=1, num_test=2, seed=2)
    return sorted((probe.folder / "test").glob("*.mp4"))[0]


@pytest.fixture(scope="module")
def pointing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A video of three grey frames with one bright patch, and two models, joint and divided, that look at it."""
    folder = tmp_path_factory.mktemp("pointing")
    size = (GRID[1] * PATCH, GRID[2] * PATCH)
    luma = np.full((GRID[0], *size), 110, np.uint8)
    t, h, w = PLACE
    luma[t, h * PATCH : (h + 1) * PATCH, w * PATCH : (w + 1) * PATCH] = 230
    flat = np.full((GRID[0], size[0] // 2, size[1] // 2), 128, np.uint8)
    path = folder / NAME
    encode(path, luma, flat, flat, quantiser=4)
    models = []
    for attention in ("joint", "divided"):
        model, _, _ = pointing_model(attention)
        record = {"num_frames": GRID[0], "short_side": size[0], "crop": list(size), "sampling": "uniform"}
        labels = ["dark", "<b>bright</b>"]
        models.append(save_model(folder / attention, model, preprocessing=record, labels=labels))
    return path, models[0], models[1]


def page_data(path: Path) -> list[dict]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text())
    return json.loads(text)["models"]


def test_everything_is_written_and_points_at_the_patch(pointing: tuple[Path, Path, Path], tmp_path: Path) -> None:
    path, joint, divided = pointing
    out = tmp_path / "out"
    result = run(
        path, "--checkpoint", joint, "--compare", divided, "--out", out, "--method", "rollout,grad_cam", "--json"
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    stated = json.loads(result.stdout)
    names = {str(Path(file).relative_to(out)) for file in stated["files"]}
    first = {"attention.npz", "methods.npz", "layers-joint.png", "heads-joint.png", "time-joint.png", "methods.png"}
    assert first | {"rollout.mp4", "rollout.gif", "explorer.html"} <= names
    assert {"compare/layers-space.png", "compare/time-time.png", "compare/rollout.mp4"} <= names
    assert {"difference.npz", "difference.png"} <= names
    with np.load(out / "difference.npz") as changed:
        assert set(changed) == {"header", "seconds", "rollout", "grad_cam"}
        header = json.loads(str(changed["header"]))
        assert (header["first"], header["second"]) == (str(joint), str(divided))
        assert header["sign"].startswith("first minus second")
        ours, theirs = (np.load(place / "methods.npz")["rollout"] for place in (out, out / "compare"))
        np.testing.assert_allclose(changed["rollout"], ours / ours.sum() - theirs / theirs.sum(), atol=1e-6)
    said = stated["difference"]
    assert (said["first"], said["second"], set(said["methods"])) == ("joint", "divided", {"rollout", "grad_cam"})
    assert 0 < said["methods"]["rollout"]["moved"] < 1
    assert "compare/layers-time.png" not in names  # the class token takes no part in it, and that is said
    assert stated["models"][1]["left_out"] == [
        "time: the class token takes no part in it; --query t,h,w shows the attention of a patch"
    ]
    assert all((out / name).stat().st_size > 0 for name in names)
    assert not [file for file in out.rglob("*") if file.is_file() and str(file.relative_to(out)) not in names]
    assert [model["top"][0]["label"] for model in stated["models"]] == ["<b>bright</b>"] * 2
    maps = AttentionMaps.load(out / "attention.npz")
    weights = maps.get(0, "joint").weights
    assert weights.shape == (1, 2, 1, *GRID)
    assert np.unravel_index(weights[0, 0, 0].argmax(), GRID) == PLACE
    with np.load(out / "methods.npz") as methods:
        assert set(methods) == {"header", "seconds", "rollout", "grad_cam"}
        assert np.unravel_index(methods["rollout"].argmax(), GRID) == PLACE
    film = [frame.to_ndarray(format="rgb24") for frame in av.open(str(out / "rollout.mp4")).decode(video=0)]
    scale = film[0].shape[0] // (GRID[1] * PATCH)
    lit = [frame[2 * scale, (GRID[2] * PATCH + 1 + PLACE[2] * PATCH + 2) * scale] for frame in film]
    assert [int(pixel[0]) - int(pixel[2]) > 25 for pixel in lit] == [t == PLACE[0] for t in range(GRID[0])]
    text = (out / "explorer.html").read_text()
    assert "<img" not in text
    assert "\x1b" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;$x^$\\x1b[31m.mp4" in text
    assert [model["name"] for model in page_data(out / "explorer.html")] == ["joint", "divided"]
    assert [method["method"] for method in page_data(out / "explorer.html")[0]["methods"]] == ["rollout", "grad_cam"]


def test_the_committed_checkpoint(video: Path, tmp_path: Path) -> None:
    """A patch as the query, some layers, steps and heads, a part of the video, and no page."""
    words = [video, "--checkpoint", CHECKPOINT, "--out", tmp_path, "--no-explorer", "--start", 0.2, "--end", 0.8]
    result = run(*words, "--query", "3,1,2", "--layers", "0,2", "--steps", "time", "--heads", "1-3", "--smooth")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    written = {Path(line).name for line in result.stdout.split()}
    assert written == {"attention.npz", "methods.npz", "layers-time.png", "heads-time.png", "time-time.png",
                       "methods.png", "rollout.mp4", "rollout.gif"}  # fmt: skip
    maps = AttentionMaps.load(tmp_path / "attention.npz")
    assert [(one.layer, one.step, one.heads, one.queries) for one in maps] == [
        (layer, "time", (1, 2, 3), ((3, 1, 2),)) for layer in (0, 2)
    ]
    weights = maps.get(2, "time").weights[0, :, 0]
    assert not np.delete(weights.reshape(3, 8, 16), 6, -1).any()  # in time a patch sees its own place
    with Image.open(tmp_path / "layers-time.png") as image:
        assert min(image.size) > 300


def test_methods_frames_and_target(video: Path, tmp_path: Path) -> None:
    words = [video, "--checkpoint", CHECKPOINT, "--out", tmp_path, "--no-explorer", "--json"]
    result = run(*words, "--method", "all", "--frames", 4, "--target", "clockwise")
    assert result.exit_code == 0, result.output
    stated = json.loads(result.stdout)["models"][0]
    assert stated["methods"] == list(METHODS)
    assert stated["grid"] == [4, 4, 4]
    assert stated["explained"] == "clockwise"
    with np.load(tmp_path / "methods.npz") as first:
        explained = first["relevance"]
    assert run(*words, "--method", "relevance", "--frames", 4, "--target", "5").exit_code == 0
    with np.load(tmp_path / "methods.npz") as second:
        assert not np.allclose(second["relevance"], explained)  # another class


def test_a_second_model_without_what_was_chosen(pointing: tuple[Path, Path, Path], tmp_path: Path) -> None:
    path, joint, divided = pointing
    words = [path, "--checkpoint", divided, "--compare", joint, "--out", tmp_path, "--steps", "time", "--layers", "-1"]
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert "--compare: the second model does not have all of the requested steps; showing all" in result.stderr
    sides = page_data(tmp_path / "explorer.html")
    assert [[(one["layer"], one["step"]) for one in side["maps"]] for side in sides] == [[(1, "time")], [(1, "joint")]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--layers", "3"], "layers: expected numbers from 0 to 2, got 3"),
        (["--layers", "0-x"], "--layers 0-x: expected numbers and ranges"),
        (["--layers", "2-1"], "--layers 2-1: expected a range first-last"),
        (["--steps", "joint"], "steps: expected time, space for scheme 'divided', got 'joint'"),
        (["--heads", "4"], "heads: expected numbers from 0 to 3"),
        (["--query", "8,0,0"], "query: expected a patch inside the grid (t, h, w) = (8, 4, 4), got (8, 0, 0)"),
        (["--query", "middle"], "--query middle: expected `class`, or a patch"),
        (["--method", "magic"], "--method magic: expected some of attention, rollout"),
        (["--target", "jump"], "--target jump: unknown class; expected a number below 8, or one of left"),
        (["--start", "9"], "seconds, got 9 to"),
        (["--checkpoint", "nothing"], "nothing"),
        (["--compare", "nothing"], "nothing"),
        (["--out", "file"], "file"),
        (["--device", "cuda:77"], "--device cuda:77: not available on this machine"),
    ],
)
def test_bad_options(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    result = run(video, "--checkpoint", CHECKPOINT, "--out", "out", *words)
    assert (result.exit_code, said in result.output) == (2, True), result.output


@pytest.mark.parametrize(
    ("name", "said"), [("gone.mp4", "no such file"), ("cut.mp4", "cut.mp4"), ("frames", "without images")]
)
def test_bad_videos(video: Path, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:700])
    (tmp_path / "frames").mkdir()
    result = run(tmp_path / name, "--checkpoint", CHECKPOINT, "--out", tmp_path / "out", "--json")
    assert (result.exit_code, said in result.stderr, result.stdout) == (2, True, ""), result.output


def test_an_output_folder_is_needed(video: Path) -> None:
    assert run(video, "--checkpoint", CHECKPOINT).exit_code == 2


def test_a_model_of_two_heads(video: Path, tmp_path: Path) -> None:
    from timesformer import TimeSformer, TimeSformerConfig

    torch.manual_seed(0)
    sizes = {"num_frames": 2, "image_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    model = TimeSformer(
        TimeSformerConfig(attention="factorised_encoder", temporal_depth=1, num_classes=(2, 3), **sizes)
    )
    labels = {"verb": ["take", "put"], "noun": ["cup", "pan", "[i]lid"]}
    record = {"num_frames": 2, "short_side": 16, "crop": 16}
    folder = save_model(tmp_path / "model", model, preprocessing=record, labels=labels)
    result = run(video, "--checkpoint", folder, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    (side,) = page_data(tmp_path / "out" / "explorer.html")
    assert {guess["label"].split(": ")[0] for guess in side["top"]} == {"verb", "noun"}
    assert side["maps"][-1]["grid"] == [2, 1, 1]  # the second encoder: one token a frame
    assert side["maps"][-1]["cell"] == [1, 2, 2]
    assert run(video, "--checkpoint", folder, "--out", tmp_path / "out", "--target", "put").exit_code == 2


def test_a_used_folder_holds_the_new_look_alone_and_arrays_name_what_they_are_of(video: Path, tmp_path: Path) -> None:
    """Also, frames that a short video makes the clip repeat are told, and refused where they were asked for."""
    earlier = [video, "--checkpoint", CHECKPOINT, "--out", tmp_path, "--query", "0,1,1", "--method", "grad_cam"]
    assert run(*earlier, "--compare", CHECKPOINT).exit_code == 0
    stale = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {"layers-time.png", "time-time.png", "grad_cam.mp4", "explorer.html", "difference.png"} <= stale
    words = [video, "--checkpoint", CHECKPOINT, "--out", tmp_path, "--no-explorer", "--json"]
    refused = run(*words, "--frames", 500)
    assert refused.exit_code == 2
    assert re.search(r"--frames 500: .* has \d+ frames to look at", " ".join(refused.stderr.split()))
    assert (tmp_path / "layers-time.png").exists()
    done = run(*words, "--end", "0.1", "--steps", "space", "--target", "clockwise")
    assert done.exit_code == 0, done.output
    written = {str(path) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == set(json.loads(done.stdout)["files"])
    repeated = json.loads(done.stdout)["models"][0]["frames_repeated"]
    assert repeated > 0
    assert f"of the clip's 8 frames {repeated} are repeated" in " ".join(done.stderr.split())
    for name in ("attention.npz", "methods.npz"):
        with np.load(tmp_path / name) as arrays:
            header = json.loads(str(arrays["header"]))
        assert {"checkpoint": str(CHECKPOINT), "video": str(video)}.items() <= header.items()
    assert header["explained"] == "clockwise"


def test_files_that_no_look_has_written_stay(video: Path, tmp_path: Path) -> None:
    own = ["time-lapse.png", "layers-old.png", "compare/attention.npz", "compare/methods.png", "compare/rollout.mp4"]
    for name in own:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    for _ in range(2):
        words = [video, "--checkpoint", CHECKPOINT, "--out", tmp_path, "--no-explorer", "--steps", "space"]
        assert run(*words).exit_code == 0
        assert [(tmp_path / name).read_text() for name in own] == ["mine"] * len(own)
    (tmp_path / "compare/attention.npz").write_bytes(b"")
    assert run(*words).exit_code == 0
