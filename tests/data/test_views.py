"""Views of a video at test time: named protocols' frames, clips that cover a video, batches of unequal numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.conftest import write_video
from timesformer import InputError
from timesformer.data import Preprocessing, Sample, Unreadable, VideoDataset, Views, collate, dense_indices
from timesformer.data.transforms import test_geometry as geometry_at_test
from timesformer.evaluation.evaluate import PROTOCOLS

K400 = Preprocessing(sampling="dense", frame_rate=32)
SSV2 = Preprocessing(sampling="uniform")
SMALL = Preprocessing(num_frames=4, short_side=48, crop=32, sampling="dense", frame_rate=4)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("paper", [22, 58, 95, 131, 168, 204, 241, 277]),
        ("fair-code", [0, 36, 72, 109, 145, 182, 218, 255]),
        ("mmaction2", [37, 69, 101, 133, 165, 197, 229, 261]),
        ("clip", [22, 58, 95, 131, 168, 204, 241, 277]),
    ],
)
def test_frames_of_each_protocol_at_8x32_of_ten_seconds(protocol: str, expected: list[int]) -> None:
    (clip,) = PROTOCOLS[protocol].views.indices(K400, 300, 30.0)
    assert clip.tolist() == expected


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("paper", [1, 5, 9, 13, 16, 20, 24, 28]),
        ("fair-code", [2, 5, 9, 12, 16, 20, 23, 27]),
        ("mmaction2", [2, 5, 9, 12, 16, 20, 23, 27]),
        ("clip", [1, 5, 9, 13, 16, 20, 24, 28]),
    ],
)
def test_frames_of_each_protocol_with_uniform_sampling(protocol: str, expected: list[int]) -> None:
    (clip,) = PROTOCOLS[protocol].views.indices(SSV2, 30, 12.0)
    assert clip.tolist() == expected


def test_a_video_without_a_rate_counts_as_30_a_second() -> None:
    views = PROTOCOLS["fair-code"].views
    assert views.indices(K400, 300, 0.0)[0].tolist() == views.indices(K400, 300, 30.0)[0].tolist()


def test_stills_take_the_middle_frame() -> None:
    assert Views().indices(K400, 31, 30.0, stills=True)[0].tolist() == [15]


@pytest.mark.parametrize("crops", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(100, 167), (167, 100), (100, 100)])
def test_crops_lie_along_the_long_side(crops: int, size: tuple[int, int]) -> None:
    record = Preprocessing(short_side=100, crop=60)
    corners = geometry_at_test(*size, record, crops).crops
    long, short = (0, 1) if size[0] > size[1] else (1, 0)
    assert {corner[short] for corner in corners} == {20}
    room = max(size) - 60
    places = [corner[long] for corner in corners]
    if crops == 1:
        assert places == [(room + 1) // 2]
    else:
        assert (places[0], places[-1]) == (0, room)
        assert np.ptp(np.diff(places)) <= 1
    floor = [corner[long] for corner in geometry_at_test(*size, replace(record, centre="floor"), crops).crops]
    assert floor == ([room // 2] if crops == 1 else [room // (crops - 1) * i for i in range(crops)])


def test_three_crops_of_an_odd_room_by_either_rule() -> None:
    """224 x 299, a room of 75: FAIR takes 0, 38, 75, mmaction2 0, 37, 74."""
    record = Preprocessing()
    assert geometry_at_test(224, 299, record, 3).crops == ((0, 0), (0, 38), (0, 75))
    assert geometry_at_test(224, 299, replace(record, centre="floor"), 3).crops == ((0, 0), (0, 37), (0, 74))


@pytest.fixture(scope="module")
def lengths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Videos of 10, 34 and 58 frames: 1, 2 and 4 clips of 16 frames."""
    folder = tmp_path_factory.mktemp("lengths")
    return [write_video(folder / f"{frames}.mp4", frames=frames) for frames in (10, 34, 58)]


def level(clip: torch.Tensor) -> list[int]:
    """The numbers of the frames of a clip (t, 3, H, W), which their grey tells."""
    return [round((float(frame[:, -8:, -8:].mean()) * 255 - 20) / 4) for frame in clip]


def test_clips_that_cover_each_video(lengths: list[Path]) -> None:
    samples = [Sample(path, label) for label, path in enumerate(lengths)]
    record = replace(SMALL, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    dataset = VideoDataset(samples, record, train=False, views=Views("cover", 3))
    assert dataset.clip_shape == (-1, 4, 3, 32, 32)
    items = [dataset[index] for index in range(3)]
    assert [item["views"] for item in items] == [3, 6, 12]
    assert [tuple(item["clip"].shape) for item in items] == [(views, 4, 3, 32, 32) for views in (3, 6, 12)]
    for number in range(4):
        expected = dense_indices(58, 4, 4, clip=number, clips=4, end_to_end=True).tolist()
        assert level(items[2]["clip"][3 * number]) == pytest.approx(expected, abs=1)

    batch = dataset.__getitems__([0, 1, 2])
    assert batch["clip"].shape == (21, 4, 3, 32, 32)
    assert batch["views"].tolist() == [3, 6, 12]
    assert torch.equal(batch["clip"], torch.cat([item["clip"] for item in items]))
    assert torch.equal(collate(items)["clip"], batch["clip"])


def test_unreadable_videos_among_those_that_are_covered(lengths: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"")
    samples = [Sample(lengths[0], 0), Sample(tmp_path / "bad.mp4", 1), Sample(lengths[2], 2)]
    dataset = VideoDataset(samples, SMALL, train=False, views=Views("cover", 1), allow_unreadable=True)
    assert isinstance(dataset[1], Unreadable)
    batch = dataset.__getitems__([0, 1, 2])
    assert batch["views"].tolist() == [1, 4]
    assert batch["label"].tolist() == [0, 2]
    assert [path for path, _ in batch["unreadable"]] == [str(tmp_path / "bad.mp4")]
    assert len(dataset.__getitems__([1])["label"]) == 0


def test_views_that_cannot_be_taken() -> None:
    for changed, said in (
        ({"clips": 0}, "clips must be at least 1"),
        ({"clips": "all"}, "clips must be at least 1, or \"cover\", got 'all'"),
        ({"crops": 0}, "crops must be at least 1"),
        ({"start": "end"}, "start"),
        ({"rule": "best"}, "rule must be one of symmetric, fair, mmaction2"),
        ({"clips": "cover", "rule": "mmaction2"}, "not available with the rule"),
    ):
        with pytest.raises(InputError, match=said):
            Views(**changed)  # type: ignore[arg-type]
    samples = [Sample(Path("a.mp4"), 0)]
    with pytest.raises(InputError, match="needs dense sampling"):
        VideoDataset(samples, SSV2, train=False, views=Views("cover"))
    with pytest.raises(InputError, match="needs dense sampling"):
        VideoDataset(samples, K400, train=False, views=Views("cover"), stills=True)
    with pytest.raises(InputError, match="the rule 'fair' supports one clip with uniform sampling, got 2"):
        VideoDataset(samples, SSV2, train=False, views=Views(2, 1, "first", "fair"))
