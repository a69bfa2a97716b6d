"""Every file of the matrix, frame by frame: what FFmpeg decodes in sequence, in whatever order it is asked for."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.data.video.made import in_sequence, numbers_of
from tests.data.video.matrix import CASES, DOCUMENTED, PLAIN, Case
from tests.data.video.matrix.told import OUTCOMES
from timesformer.data import Sample, Video, VideoError
from timesformer.data.survey import survey
from timesformer.data.video.verdict import UNREADABLE, examine

_QUICK = r"""
x264.mp4 x264.avi x264.asf x264.h264 x265.ts svtav1.webm vpx.webm vpx-vp9.mkv mpeg4.avi mpeg2video.mpg mjpeg.mov
gif.gif open.ts hidden.webm uneven.mkv uneven.flv still.mkv slides.mkv browser.webm dropped_mpeg4.avi edit6.mp4
stss_empty.mp4 inside.ts thumbnail.mkv thumbnail.mp4 turned90m.mp4 exif6.mkv single.gif 12:30.mp4 http:z.mp4
fields.ts two2.mp4 packed.avi drawn.apng
n\udcffo.mp4 cut.mkv cut.avi resized.ts list.m3u8
"""
QUICK = frozenset(_QUICK.split())
"""Cases of the quick suite; the others are slow only in sum."""


def test_the_matrix_is_large() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 60
    assert len(PLAIN) >= 45
    assert set(names) >= QUICK


def test_the_documentation_has_the_table() -> None:
    page = Path(__file__).parents[3] / "docs" / "videos.md"
    assert "\n".join(DOCUMENTED) in page.read_text(encoding="utf-8")
    assert set(OUTCOMES) <= {case.kind for case in CASES}


def marked(case: Case) -> object:
    return pytest.param(case, id=case.name, marks=() if case.name in QUICK else pytest.mark.slow)


@pytest.mark.parametrize("case", [marked(case) for case in CASES if not case.reported])
def test_frames_are_those_of_a_decode_in_sequence(case: Case, tmp_path: Path) -> None:
    path = case.make(tmp_path)
    right = in_sequence(path, case.stream)
    turns, mirrored = case.turn
    frames = np.rot90(right.frames, turns, axes=(1, 2))
    frames = np.ascontiguousarray(frames[:, :, ::-1] if mirrored else frames)
    count = len(frames)
    if case.numbers is not None:
        assert numbers_of(frames) == list(case.numbers)
    rng = np.random.default_rng(0)
    with Video(path) as video:
        assert video.num_frames == count
        assert (video.height, video.width) == frames.shape[1:3]
        np.testing.assert_array_equal(video.all_frames(), frames)
        if (
            None not in right.stamps and (np.diff(right.stamps) > 0).all()
        ):  # AVI, ASF and MXF know the decoding order alone
            if video.stamps is not None:
                assert video.stamps.tolist() == right.stamps
            if video.reader.table.times is not None:  # Dirac's number the frames, in units of nothing
                seconds = (np.array(right.stamps) - right.stamps[0]) * video.time_base
                np.testing.assert_allclose(video.clock.starts, seconds, atol=max(0.002, 1.6 * video.time_base))
        if case.rate is not None:
            assert video.fps == pytest.approx(case.rate, rel=0.01)
        for index in [*range(count - 1, -1, -1), *rng.permutation(count)]:
            np.testing.assert_array_equal(video.frames([index])[0], frames[index], err_msg=f"frame {index}")
        for _ in range(4):
            wanted = np.sort(rng.integers(0, count, 6))
            np.testing.assert_array_equal(video.frames(wanted), frames[wanted], err_msg=f"frames {wanted}")
    for index in sorted({0, count // 2, count - 1}):  # each first in a file that was just opened
        with Video(path) as video:
            np.testing.assert_array_equal(video.frames([index])[0], frames[index], err_msg=f"frame {index} alone")
    for decode in (False, True):
        (verdict,) = survey([Sample(path, 0)], decode=decode).verdicts
        kinds = {finding.kind for finding in verdict.findings}
        assert not kinds & set(UNREADABLE), verdict.reason
        assert set(re.findall("audit says `(.*?)`", OUTCOMES.get(case.kind, ""))) <= kinds


@pytest.mark.parametrize("case", [marked(case) for case in CASES if case.reported])
def test_what_cannot_be_read_is_reported(case: Case, tmp_path: Path) -> None:
    path = case.make(tmp_path)
    with pytest.raises(VideoError, match=case.reported) as caught, Video(path) as video:
        video.all_frames()
    assert caught.value.kind in UNREADABLE
    (finding,) = [found for found in examine(path, decode=True).findings if found.kind in UNREADABLE]
    assert case.reported in finding.reason
