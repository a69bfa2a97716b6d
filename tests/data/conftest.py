"""Small real video files, made once a session."""

from pathlib import Path

import av
import numpy as np
import pytest

from timesformer.data.probes import ProbeInfo, make_probe


def write_video(
    path: Path,
    frames: int = 30,
    size: tuple[int, int] = (48, 64),
    codec: str = "libx264",
    gop: int = 10,
    rate: int = 30,
) -> Path:
    """An ordinary video (B-frames, several key frames) whose frame i is grey at 4 * i + 20, with a white corner."""
    with av.open(str(path), "w") as container:
        options = {"qp": "10", "g": str(gop)} if codec == "libx264" else {"g": str(gop)}
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = size
        stream.pix_fmt, stream.bit_rate = "yuv420p", 8_000_000
        for index in range(frames):
            image = np.full((*size, 3), 4 * index + 20, np.uint8)
            image[:16, :16] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def motion(tmp_path_factory: pytest.TempPathFactory) -> ProbeInfo:
    return make_probe("motion", tmp_path_factory.mktemp("motion"), num_train=32, num_test=32, seed=3)


@pytest.fixture(scope="session")
def appearance(tmp_path_factory: pytest.TempPathFactory) -> ProbeInfo:
    return make_probe("appearance", tmp_path_factory.mktemp("appearance"), num_train=32, num_test=16, seed=3)


@pytest.fixture(scope="session")
def plain_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "plain.mp4")
