"""H.264 encoding of a probe's clips such that a clip and its reversal decode to the same set of frames."""

from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags

Array = np.ndarray

FRAME_RATE = 15


def encode(path: Path, luma: Array, cb: Array, cr: Array, quantiser: int) -> None:
    """Write (t, H, W) luma and (t, H/2, W/2) chroma planes, uint8, as an mp4 of t intra-coded frames.

    Every frame is coded on its own (keyint 1) at a fixed quantiser without rate control, so its decoded pixels depend
    only on its own content: reversing the frames reverses the video exactly.  With one thread and no time stamps or
    version strings in the container, the same planes give the same bytes.
    """
    frames, height, width = luma.shape
    planes = np.concatenate([luma.reshape(frames, -1), cb.reshape(frames, -1), cr.reshape(frames, -1)], axis=1)
    with av.open(str(path), "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(
            "libx264",
            rate=FRAME_RATE,
            options={"preset": "veryfast", "qp": str(quantiser), "x264-params": "keyint=1:bframes=0:scenecut=0"},
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= Flags.bitexact
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(planes[index].reshape(-1, width), format="yuv420p")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
