"""Images of every kind that is read as frames, whole, cut and with something behind them."""

import resource
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.data.video.made import number_of, numbered
from timesformer.data import VideoError, open_video, read_annotations
from timesformer.data.video.verdict import examine
from timesformer_experiments.cli.main import app

PIXELS = numbered(4)[3]


def saved(form: str, mode: str = "RGB", pixels: np.ndarray = PIXELS, **how: Any) -> bytes:
    data = BytesIO()
    Image.fromarray(pixels).convert(mode).save(data, form, **how)
    return data.getvalue()


def turned(form: str, **how: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(form, pixels=np.ascontiguousarray(np.rot90(PIXELS)), exif=exif, **how)


def deep(form: str) -> bytes:
    data = BytesIO()
    Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257).save(data, form)
    return data.getvalue()


EXACT: dict[str, Callable[[], bytes]] = {
    "a.png": lambda: saved("PNG"),
    "alpha.png": lambda: saved("PNG", "RGBA"),
    "turned.png": lambda: turned("PNG"),
    "a.webp": lambda: saved("WEBP", lossless=True),
    "alpha.webp": lambda: saved("WEBP", "RGBA", lossless=True),
    "turned.webp": lambda: turned("WEBP", lossless=True),
    "a.bmp": lambda: saved("BMP"),
    "a.tif": lambda: saved("TIFF"),
    "lzw.tiff": lambda: saved("TIFF", compression="tiff_lzw"),
    "deflate.TIF": lambda: saved("TIFF", compression="tiff_deflate"),
    "turned.tif": lambda: turned("TIFF"),
    "a.ppm": lambda: saved("PPM"),
    "webp.jpg": lambda: saved("WEBP", lossless=True),  # the content rules
}
NEARLY: dict[str, tuple[Callable[[], bytes], str, float]] = {
    "a.jpg": (lambda: saved("JPEG", quality=95), "RGB", 4),
    "progressive.jpeg": (lambda: saved("JPEG", quality=95, progressive=True), "RGB", 4),
    "restarts.jfif": (lambda: saved("JPEG", quality=95, restart_marker_blocks=2), "RGB", 4),
    "cmyk.jpg": (lambda: saved("JPEG", "CMYK", quality=95), "RGB", 4),
    "turned.jpe": (lambda: turned("JPEG", quality=95), "RGB", 4),
    "lossy.webp": (lambda: saved("WEBP", quality=95), "RGB", 4),
    "grey.jpg": (lambda: saved("JPEG", "L", quality=95), "L", 2),
    "grey.png": (lambda: saved("PNG", "L"), "L", 0),
    "grey.pgm": (lambda: saved("PPM", "L"), "L", 0),
    "palette.bmp": (lambda: saved("BMP", "P"), "P", 0),
    "palette.png": (lambda: saved("PNG", "P"), "P", 0),
    "cmyk.tif": (lambda: saved("TIFF", "CMYK"), "RGB", 2),
}


def read(folder: Path, name: str, data: bytes) -> np.ndarray:
    (folder / name).write_bytes(data)
    with open_video(folder) as video:
        return video.frames([0])[0]


@pytest.mark.parametrize("name", EXACT)
def test_images_without_loss(tmp_path: Path, name: str) -> None:
    np.testing.assert_array_equal(read(tmp_path, name, EXACT[name]()), PIXELS)


@pytest.mark.parametrize("name", NEARLY)
def test_images_with_loss(tmp_path: Path, name: str) -> None:
    make, mode, most = NEARLY[name]
    right = np.asarray(Image.fromarray(PIXELS).convert(mode).convert("RGB")).astype(int)
    assert np.abs(read(tmp_path, name, make()) - right).mean() <= most


@pytest.mark.parametrize(("form", "name"), [("PNG", "a.png"), ("TIFF", "a.tif"), ("PPM", "a.pgm")])
def test_16_bits_are_reduced_to_8(tmp_path: Path, form: str, name: str) -> None:
    right = np.repeat(PIXELS[..., :1], 3, -1).astype(int)
    assert np.abs(read(tmp_path, name, deep(form)) - right).max() <= 1


@pytest.mark.parametrize("name", [*EXACT, *NEARLY])
def test_a_cut_image_is_refused(tmp_path: Path, name: str) -> None:
    data = EXACT[name]() if name in EXACT else NEARLY[name][0]()
    for share in (0.3, 0.6, 0.97):
        with pytest.raises(VideoError, match=name):
            read(tmp_path, name, data[: int(share * len(data))])


def test_what_lies_behind_an_image_does_not_matter(tmp_path: Path) -> None:
    """Telephones append a film, a depth map or a second picture to a photograph."""
    noise = np.random.default_rng(0).bytes(3000)
    behind = {"film": noise + b"\xff\xda" + noise, "picture": saved("JPEG", pixels=numbered(6)[5]), "half": b"\xff\xd8"}
    for name, more in behind.items():
        assert number_of(read(tmp_path, f"{name}.jpg", saved("JPEG", quality=95) + more)) == 3
        (tmp_path / f"{name}.jpg").unlink()
    np.testing.assert_array_equal(read(tmp_path, "a.png", saved("PNG") + noise), PIXELS)


def test_kinds_that_are_not_read_say_so(tmp_path: Path) -> None:
    more = [Image.fromarray(numbered(2)[1])]
    refused = {
        "animated.webp": (saved("WEBP", save_all=True, append_images=more), "an animated WebP"),
        "jpeg.tif": (saved("TIFF", compression="jpeg"), "TIFF with compression 7"),
        "jpeg2000.png": (saved("JPEG2000"), "no image of a kind that is read"),
    }
    for name, (data, reason) in refused.items():
        folder = tmp_path / name[:-4]
        folder.mkdir()
        with pytest.raises(VideoError, match=reason):
            read(folder, name, data)
    with (
        pytest.raises(VideoError, match="an animated WebP"),
        open_video(tmp_path / "animated." / "animated.webp") as film,
    ):
        film.frames([0])


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    """A file of some kilobytes may hold any number of pixels."""
    side = 12_000

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    large = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes((1 + side // 8) * side)))
    large += chunk(b"IEND", b"")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(VideoError, match="more than 134,217,728 pixels"):
        read(tmp_path, "large.png", large)
    with pytest.raises(VideoError, match="12000 x 12000 pixels, more than"):
        open_video(tmp_path / "large.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_classes_of_folders_of_images(tmp_path: Path) -> None:
    for label, suffix in (("up", "webp"), ("down", "tif")):
        for clip in ("one", "two"):
            folder = tmp_path / label / clip
            folder.mkdir(parents=True)
            for index, pixels in enumerate(numbered(3)):
                Image.fromarray(pixels).save(folder / f"{index}.{suffix}", lossless=True)
    (tmp_path / "up" / "one" / "x.heic").write_bytes(b"x")
    samples = read_annotations("folder", tmp_path)
    assert [sample.name for sample in samples] == ["down/one", "down/two", "up/one", "up/two"]
    for sample in samples:
        with open_video(sample) as video:
            assert [number_of(frame) for frame in video.frames(range(3))] == [0, 1, 2]
    (finding,) = examine(tmp_path / "up" / "one", decode=True).findings
    assert finding.kind == "passed-over"
    assert finding.reason.endswith("no images by their suffix: x.heic")
    said = CliRunner().invoke(app, ["audit", str(tmp_path), "--decode", "--state", str(tmp_path / "state")])
    assert "x.heic" in said.output
    assert said.exit_code == 0


def test_a_folder_of_other_files_names_their_kinds(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(VideoError, match=r"without images \(they end in \.jpg,.*only files with \.heic"):
        open_video(tmp_path)
