"""Times of frames: the stamps rule, whatever the header says, wherever seconds are meant."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.video.made import encode, number_of, numbers_of, patch
from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.data import Preprocessing, Sample, Video, VideoDataset, VideoError, Views, open_video
from timesformer.data.sampling import dense_indices
from timesformer.data.survey import survey
from timesformer.data.video.clock import Clock
from timesformer.data.video.verdict import examine
from timesformer.evaluation.prediction import timelines
from timesformer.maps.seen import see

MS = Fraction(1, 1000)
SLOW = np.cumsum([0, *[100] * 19, *[20] * 20]).tolist()  # 19 frames of 100 ms, then 20 of 20 ms
DENSE = Preprocessing(num_frames=4, short_side=48, crop=48, sampling="dense", frame_rate=6, target_fps=30.0)
UNIFORM = Preprocessing(num_frames=4, short_side=48, crop=48, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(
        tmp_path_factory.mktemp("uneven") / "a.mp4", times=SLOW, time_base=MS, count=40, last=20, size=(48, 48)
    )


def shown_at(seconds: float) -> int:
    """The frame of `uneven` that is shown at this time, by counting."""
    return max(index for index, start in enumerate(SLOW) if start / 1000 <= seconds + 1e-9)


def browser(folder: Path, times: list[int], suffix: str = "webm") -> Path:
    """A recording without the default duration of a frame, as browsers write it."""
    raw = encode(folder / f"raw.{suffix}", "libvpx", times=times, time_base=MS, count=len(times), mux={"live": "1"})

    def undefault(content: bytearray) -> None:
        place = content.find(b"\x23\xe3\x83")
        content[place : place + 2] = bytes([0xEC, 0x80 | (content[place + 3] & 0x7F) + 2])

    return patch(raw, folder / f"browser.{suffix}", undefault)


def test_the_mean_rate_is_that_of_the_stamps(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    jitter = np.cumsum([0, *rng.integers(25, 45, 39)]).tolist()
    for times in (jitter, SLOW, [0, 1, *range(100, 1400, 33)]):
        with Video(browser(tmp_path, times)) as video:
            assert video.fps == pytest.approx((len(times) - 1) / (times[-1] / 1000))
            np.testing.assert_allclose(video.clock.starts, np.array(times) / 1000, atol=1e-9)


def test_the_audit_says_where_header_and_stamps_disagree(tmp_path: Path) -> None:
    times = np.cumsum([0, *[66] * 20, *[33] * 19]).tolist()
    found = {finding.kind: finding.reason for finding in examine(browser(tmp_path, times)).findings}
    with Video(tmp_path / "browser.webm") as video:
        stated, mean = video.stated_fps, 39 / (times[-1] / 1000)
    assert abs(stated / mean - 1) > 0.2
    assert found["stated-rate"] == f"{stated:.4g} frames per second in the header, {mean:.4g} by the time stamps"
    assert set(found) == {"stated-rate", "variable-rate"}
    plain = encode(tmp_path / "plain.mkv", rate=30)
    assert not examine(plain).findings


@pytest.mark.parametrize(("name", "rate"), [("a.mp4", 25), ("a.mp4", Fraction(30000, 1001)), ("a.mkv", 30)])
def test_an_even_video_is_sampled_as_by_its_rate(tmp_path: Path, name: str, rate: Fraction | int) -> None:
    path = encode(tmp_path / name, rate=rate, count=40)
    with Video(path) as video:
        assert video.clock.even
        assert video.fps == float(rate)
        np.testing.assert_allclose(video.clock.starts, np.arange(40) / float(rate), atol=1e-12)
        assert video.clock.lasting == pytest.approx(40 / float(rate))
        for views in (Views(), Views(3), Views(start="first"), Views("cover")):
            count = len(views.indices(DENSE, 40, float(rate), clock=video.clock))
            for clip, indices in enumerate(views.indices(DENSE, 40, float(rate), clock=video.clock)):
                covering = views.clips == "cover"
                by_rate = dense_indices(40, 4, 6, float(rate), None, clip, count, views.start, end_to_end=covering)
                assert indices.tolist() == by_rate.tolist()


def test_dense_frames_are_those_shown_at_their_seconds(uneven: Path) -> None:
    with Video(uneven) as video:
        assert video.fps == pytest.approx(39 / 2.3)
        assert video.clock.lasting == pytest.approx(2.32)
        (indices,) = Views().indices(DENSE, 40, video.fps, clock=video.clock)
    # A clip of 4 x 6 / 30 = 0.8 s in the middle of 2.3 s, frames 1/4 of it less one of 17 per second apart.
    first, step = (39 - 0.8 * 39 / 2.3) / 2, (0.8 * 39 / 2.3 - 1) / 3
    middle = [(np.floor(first + number * step + 0.5) + 0.5) / (39 / 2.3) for number in range(4)]
    assert indices.tolist() == [shown_at(second) for second in middle]
    starts = np.array(SLOW)[indices] / 1000
    assert np.abs(np.diff(starts) - 0.25).max() < 0.11  # evenly spaced in time, to the frames' own distance
    (by_count,) = Views(rule="mmaction2").indices(DENSE, 40, 17.0, clock=Clock.from_stamps(SLOW, 0.001, 20, 0))
    assert np.diff(by_count).tolist() == [6, 6, 6]  # counts the video's own frames


def test_training_and_caches_sample_by_the_same_seconds(uneven: Path, tmp_path: Path) -> None:
    from timesformer.data import FrameCache

    datasets = [
        VideoDataset([Sample(uneven, 0)], DENSE, train=True, cache=cache, seed=4)
        for cache in (None, FrameCache(tmp_path))
    ]
    for epoch in (*range(4), 0):
        clips = [dataset[epoch, 0]["clip"] for dataset in datasets]
        assert torch.equal(*clips)


def test_a_part_in_seconds_has_the_frames_shown_then(uneven: Path) -> None:
    seen = see(uneven, UNIFORM)
    assert seen.seconds.tolist() == pytest.approx([SLOW[number_of(frame)] / 1000 for frame in seen.frames])
    numbers = [number_of(frame) for frame in seen.film]
    assert seen.film_seconds.tolist() == pytest.approx([SLOW[number] / 1000 for number in numbers])
    for start, end in ((1.7, 2.0), (1.9, 2.0), (0.25, 0.45), (0.3, 0.30001), (2.29, 9.0), (0.0, 0.1)):
        seen = see(uneven, Preprocessing(num_frames=40, short_side=48, crop=48), start=start, end=end)
        last = shown_at(min(end, 2.32) - 1e-6)
        assert sorted(set(numbers_of(seen.frames))) == list(range(shown_at(start), last + 1)), (start, end)
        assert seen.seconds[0] == pytest.approx(SLOW[shown_at(start)] / 1000)
    with pytest.raises(InputError, match=r"expected a part of its 2\.32 seconds"):
        see(uneven, UNIFORM, start=2.4)


def test_a_timeline_counts_seconds(uneven: Path) -> None:
    model = TimeSformer(
        TimeSformerConfig(num_frames=4, image_size=48, patch_size=16, num_classes=2, embed_dim=16, depth=1, num_heads=2)
    )
    (found,) = timelines(model, [uneven], UNIFORM, ["a", "b"], seconds=1.0).videos
    assert found.seconds == pytest.approx(2.32)
    spans = [(stretch.start_seconds, stretch.end_seconds) for stretch in found.stretches]
    assert [round(second, 6) for span in spans for second in span] == [0.0, 1.0, 1.0, 2.32]
    # The part from 1.0 s on: frames 10 to 39.
    (alone,) = timelines(model, [uneven], UNIFORM, ["a", "b"], seconds=9.0).videos
    assert len(alone.stretches) == 1
    with open_video(Sample(uneven, 0, start_frame=10, end_frame=40)) as part:
        np.testing.assert_allclose(part.clock.starts, np.array(SLOW[10:]) / 1000 - 1.0, atol=1e-9)
        assert part.clock.lasting == pytest.approx(1.32)


def test_a_segment_in_frames_of_another_rate_is_taken_by_its_seconds(uneven: Path) -> None:
    sample = Sample(uneven, 0, start_frame=12, end_frame=20, fps=10.0)  # from 1.2 to 2.0 s
    with open_video(sample) as part:
        assert part.num_frames == shown_at(1.999) - 12 + 1
        assert number_of(part.frames([0])[0]) == 12
    late = Sample(uneven, 0, start_frame=12, end_frame=40, fps=10.0)
    with pytest.raises(VideoError, match="requested, but the video has frames 0 to 39"):
        open_video(late)
    verdicts = [found.verdict for found in survey([sample, late], workers=1).verdicts]
    assert verdicts == ["variable-rate", "unreadable"]


def test_a_last_picture_that_stands_long_lasts(tmp_path: Path) -> None:
    steady = [40 * index for index in range(20)]
    for suffix in ("mp4", "mkv", "flv"):
        path = encode(tmp_path / f"a.{suffix}", times=steady, time_base=MS, last=5000, options={"bf": "0"})
        with Video(path) as video:
            assert video.fps == pytest.approx(25.0)
            assert video.clock.lasting == pytest.approx(5.76, abs=0.05)
            assert video.clock.shown_at([0.5, 3.0, 5.7]).tolist() == [12, 19, 19]
        assert [finding.kind for finding in examine(path).findings][:1] == ["variable-rate"]


def test_clocks_of_few_and_of_untold_frames() -> None:
    still = Clock.from_stamps([7], 0.001, 10_000, 0.1)
    assert (still.lasting, still.starts.tolist()) == (10.0, [0.0])
    assert Clock.from_stamps([7], 0.001, 0, 25.0).lasting == pytest.approx(1 / 25)
    unknown = Clock.at_rate(3, 0.0)
    assert (unknown.fps, unknown.lasting) == (0.0, pytest.approx(0.1))
    rounded = Clock.from_stamps([round(1000 * index / 30) for index in range(90)], 0.001, 33, 30.0)
    assert (rounded.fps, rounded.even, rounded.lasting) == (30.0, True, 3.0)
    wrong = Clock.from_stamps([round(1000 * index / 30) for index in range(90)], 0.001, 33, 1000.0)
    assert (round(wrong.fps, 2), wrong.even) == (30.0, True)
    assert wrong.between(0.1, 0.2) == (3, 6)  # 0.1 x 30 is 3.0000000000000004
    assert wrong.part(10, 20).starts.tolist() == pytest.approx(np.arange(10) / 30, abs=2e-3)
