"""The gallery: rows that show what a scheme can see, clips whose licence is known, and where the pictures come from."""

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.errors import InputError
from timesformer_experiments.cli.main import app
from timesformer_experiments.paper.artefact import Folders
from timesformer_experiments.paper.gallery import make as making
from timesformer_experiments.paper.gallery import pictures
from timesformer_experiments.paper.gallery.clips import Shown, Still, file_sha256, read_shown

COMMITTED = Path(__file__).parents[3] / "results" / "gallery"
PLACE = (1, 0, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of noise, and an image model of a few weights."""
    folder = tmp_path_factory.mktemp("gallery")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 48, 3), dtype=np.uint8)
    with av.open(str(folder / "noise.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=6)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for frame in pixels:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        file.mux(stream.encode())
    image = TimeSformerConfig("space", num_frames=1, image_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2)
    TimeSformer(image).save_pretrained(folder / "image", labels=None)
    return folder


@pytest.fixture
def shown(folder: Path) -> Shown:
    sha256 = file_sha256(folder / "noise.mp4")
    still = Still("noise", "noise.mp4", sha256, "Noise", "nobody", "CC0", (0, 1), 3, PLACE, 1, 0)
    known = {file_sha256(folder / "image" / "model.safetensors"): {"title": "small", "licence": "MIT"}}
    return Shown(2, 2, (still,), known)


def test_the_pictures_and_where_they_come_from(
    folder: Path, shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "find_browser", lambda: None)
    drawn: dict[str, list[pictures.Row]] = {}

    def noted(frames: np.ndarray, seconds: np.ndarray, rows: list[pictures.Row], title: str, credit: str) -> object:
        drawn[title.split(".")[0]] = rows
        assert credit == "Frames: Noise, nobody; CC0"
        return pictures.draw_rows(frames, seconds, rows, title, credit)

    monkeypatch.setattr(making, "draw_rows", noted)
    said: list[str] = []
    folders = Folders(tmp_path / "out", tmp_path / "runs", tmp_path / "data")
    files = making.make(shown, folder, str(folder / "image"), folders, said.append)
    assert [path.name for path in files] == ["noise.jpg", "strip.jpg", "gallery.json"]
    of_class, flow, joint, time, space = (row.weights for row in drawn["Noise"])
    t, h, w = PLACE
    assert [row.query for row in drawn["Noise"]] == [None, None, PLACE, PLACE, PLACE]
    for everywhere in (of_class, joint):
        assert (everywhere > 0).all()
    assert flow.sum() > 0
    elsewhere = time.copy()
    elsewhere[:, h, w] = 0
    assert (time[:, h, w] > 0).all()
    assert not elsewhere.any()  # time attention stays at its place,
    assert (space[t] > 0).all()
    assert not space[1 - t].any()  # and space attention in its frame
    about = json.loads(files[-1].read_text())
    assert about["weights"]["licence"] == "MIT"
    assert about["weights"]["credit"] == "unknown"
    assert about["clips"][0]["sha256"] == shown.clips[0].sha256
    assert said[-1] == "no Chromium found: no pictures of the explorer"
    page = (tmp_path / "runs" / "gallery" / "noise.html").read_text()
    assert "nothing was trained on video. Frames: Noise, nobody; CC0." in page


def test_another_file_is_refused(folder: Path, shown: Shown, tmp_path: Path) -> None:
    """Its licence is not known."""
    folders = Folders(tmp_path / "out", tmp_path / "runs", tmp_path / "data")

    def made(**changes: object) -> None:
        clips = (replace(shown.clips[0], **changes),)  # type: ignore[arg-type]
        making.make(replace(shown, clips=clips), folder, str(folder / "image"), folders, print)

    with pytest.raises(InputError, match=r"noise.mp4: expected the file with sha256 abc, whose licence is known, got "):
        made(sha256="abc")
    with pytest.raises(InputError, match=r"other.mp4: no such file; the gallery shows Noise \(nobody\)"):
        made(file="other.mp4")
    with pytest.raises(InputError, match=r"--init-from .*image: expected at least 10 layers, got 2"):
        made(class_layer=9)


def test_the_command_wants_clips() -> None:
    done = CliRunner().invoke(app, ["reproduce", "gallery", "--data", "bunny=somewhere"])
    assert done.exit_code == 2
    assert "--data bunny=somewhere: expected clips=FOLDER" in done.stderr


def test_few_patches_do_not_hide_the_others() -> None:
    weights = np.full((1, 20, 20), 0.001)
    weights[0, 0, 0] = 0.6
    assert pictures.brightest(weights) == pytest.approx(0.001)
    weights = np.zeros((2, 2, 2))
    assert pictures.brightest(weights) == 0
    weights[:, 0, 0] = 0.9, 0.1
    assert pictures.brightest(weights) == 0.9


def test_the_committed_pictures_are_those_of_the_list() -> None:
    """Made from the registered clips and weights, from committed code, and small enough for a page."""
    about, shown = json.loads((COMMITTED / "gallery.json").read_text()), read_shown()
    assert [(one["sha256"], one["licence"]) for one in about["clips"]] == [
        (one.sha256, one.licence) for one in shown.clips
    ]
    assert set(about["weights"]["sha256"].values()) <= set(shown.weights)
    assert about["git_dirty"] is False
    names = {path.name for path in COMMITTED.iterdir()} - {"gallery.json"}
    assert names == {*about["files"]}
    sizes = [(COMMITTED / name).stat().st_size for name in names]
    assert max(sizes) < 400_000
    assert sum(sizes) < 1_500_000
    for name in names:
        with Image.open(COMMITTED / name) as picture:
            assert picture.width >= 1000
