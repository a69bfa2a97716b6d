"""Colours against a conversion written out from the recommendations ITU-R BT.601, BT.709 and BT.2020."""

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from tests.data.video.made import encode
from timesformer.data import Video, VideoError
from timesformer.data.video.colour import rgb

WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""(red, blue) in luma, by the number of the matrix in ITU-T H.273."""


def reference(luma: np.ndarray, blue: np.ndarray, red: np.ndarray, matrix: int, full: bool) -> np.ndarray:
    """Return RGB from 0 to 255 of 8-bit luma and colour differences."""
    red_weight, blue_weight = WEIGHTS[matrix]
    y = luma / 255 if full else (luma - 16.0) / 219
    b, r = ((plane - 128.0) / (255 if full else 224) for plane in (blue, red))
    reds, blues = y + 2 * (1 - red_weight) * r, y + 2 * (1 - blue_weight) * b
    greens = (y - red_weight * reds - blue_weight * blues) / (1 - red_weight - blue_weight)
    return np.clip(255 * np.stack([reds, greens, blues], -1), 0, 255)


def painted(pix_fmt: str) -> tuple[av.VideoFrame, list[np.ndarray]]:
    """A frame of 6 x 8 patches of 8 x 8 pixels in random colours, and each patch's (luma, blue, red)."""
    rng = np.random.default_rng(1)
    frame, patches = av.VideoFrame(64, 48, pix_fmt), []
    for number, plane in enumerate(frame.planes):
        patch = rng.integers(*((30, 220) if number == 0 else (70, 186)), (6, 8)).astype(np.uint8)
        pixels = np.zeros((plane.height, plane.line_size), np.uint8)
        pixels[:, : plane.width] = np.kron(patch, np.ones((plane.height // 6, plane.width // 8), np.uint8))
        plane.update(pixels.tobytes())
        patches.append(patch)
    return frame, patches


@pytest.mark.parametrize("matrix", [*WEIGHTS, 2])
@pytest.mark.parametrize(
    ("pix_fmt", "stated"), [(f, r) for f in ("yuv420p", "yuv444p") for r in (0, 1, 2)] + [("yuvj420p", 2)]
)
def test_matrix_and_range_are_those_that_the_file_states(pix_fmt: str, stated: int, matrix: int) -> None:
    frame, patches = painted(pix_fmt)
    frame.colorspace, frame.color_range = matrix, stated
    found = rgb(frame, VideoReformatter())[4::8, 4::8].astype(float)  # where neighbouring patches have no influence
    right = reference(*patches, matrix if matrix in WEIGHTS else 6, full=stated == 2)
    # FFmpeg resizes the colours of 4:2:0 with 7 bits a weight.
    assert np.abs(found - right).max() <= (1.0 if pix_fmt == "yuv444p" else 3.5)


@pytest.mark.parametrize("matrix", [1, 5, 9])
@pytest.mark.parametrize("full", [False, True])
def test_colours_survive_a_file(tmp_path: Path, matrix: int, full: bool) -> None:
    source, patches = painted("yuv444p")

    def paint(frame: av.VideoFrame) -> None:
        for plane, whole in zip(frame.planes, source.planes, strict=True):
            plane.update(bytes(whole))

    def state(stream: av.VideoStream) -> None:
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1

    path = encode(tmp_path / "a.mp4", pix_fmt="yuv444p", count=2, options={"qp": "0"}, prepare=state, paint=paint)
    with Video(path) as video:
        found = video.frames([1])[0][4::8, 4::8].astype(float)
    assert np.abs(found - reference(*patches, matrix, full)).max() <= 1.5


@pytest.mark.parametrize(
    ("primaries", "transfer", "matrix"), [(3, 3, 3), (0, 0, 2), (22, 18, 2), (9, 16, 9), (1, 1, 77)]
)
def test_reserved_and_unusual_tags_do_no_harm(primaries: int, transfer: int, matrix: int) -> None:
    frame, _ = painted("yuv420p")
    plain = rgb(painted("yuv420p")[0], VideoReformatter())
    frame.color_primaries, frame.color_trc, frame.colorspace = primaries, transfer, matrix
    assert np.array_equal(rgb(frame, VideoReformatter()), plain) == (matrix != 9)


def test_a_matrix_that_ffmpeg_does_not_convert_is_an_error(tmp_path: Path) -> None:
    def state(stream: av.VideoStream) -> None:
        stream.codec_context.colorspace = 8

    path = encode(tmp_path / "a.mp4", prepare=state)
    with pytest.raises(VideoError, match=r"a\.mp4: cannot be decoded .*YCgCo"), Video(path) as video:
        video.frames([0])
