"""Files of per-video scores, and their averages."""

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest

from tests.training.training_fakes import FakeDataset, FakeModel
from timesformer.errors import InputError
from timesformer.evaluation.evaluate import evaluate
from timesformer.evaluation.scores import merge_scores, read_scores, write_scores
from timesformer.intervals import wilson_interval


def file_of(path, scores, labels=None, paths=None, **stated):
    scores = np.asarray(scores, float)
    frame = pd.DataFrame(
        {
            "index": range(len(scores)),
            "path": paths or [f"{i}.mp4" for i in range(len(scores))],
            "label": labels or [0] * len(scores),
            "prediction": scores.argmax(1),
            "scores": scores.tolist(),
        }
    )
    write_scores(path, frame, {"protocol": "clip", "merge": "mean_softmax", **stated})
    return path


def test_what_is_written_is_read(tmp_path):
    result = evaluate(FakeModel(), FakeDataset(train=False), "clip")
    path = tmp_path / "scores.parquet"
    write_scores(path, result.per_video, {**result.statement(), "fingerprint": "abc"})
    found = read_scores(path)
    pd.testing.assert_frame_equal(found.per_video.drop(columns="scores"), result.per_video.drop(columns="scores"))
    assert [row.tolist() for row in found.per_video.scores] == result.per_video.scores.tolist()
    assert found.metadata == {**result.statement(), "fingerprint": "abc"}
    accuracy = found.accuracy()
    assert accuracy["top1_percent"] == result.top1_percent
    assert (accuracy["top1_low_percent"], accuracy["top1_high_percent"]) == result.top1_interval
    assert (accuracy["top5_percent"], accuracy["videos"]) == (None, 24)
    assert parquet.read_schema(path).names == ["index", "path", "label", "prediction", "scores"]


def test_accuracy_among_the_first_five(tmp_path):
    scores = [[7, 6, 5, 4, 3, 2], [7, 6, 5, 4, 3, 2]]
    accuracy = read_scores(file_of(tmp_path / "a.parquet", scores, labels=[4, 5])).accuracy()
    assert (accuracy["top1_percent"], accuracy["top5_percent"]) == (0.0, 50.0)
    assert (accuracy["top5_low_percent"], accuracy["top5_high_percent"]) == wilson_interval(1, 2)


def test_mean_of_two_files(tmp_path):
    one = file_of(tmp_path / "one.parquet", [[0.9, 0.1], [0.6, 0.4]], labels=[0, 1], protocol="paper")
    two = file_of(tmp_path / "two.parquet", [[0.2, 0.8], [0.7, 0.3]], [1, 0], ["1.mp4", "0.mp4"], protocol="4x3")
    merged = merge_scores([one, two])
    assert merged.per_video.path.tolist() == ["0.mp4", "1.mp4"]
    np.testing.assert_allclose(np.stack(merged.per_video.scores), [[0.8, 0.2], [0.4, 0.6]])
    assert merged.per_video.prediction.tolist() == [0, 1]
    assert merged.accuracy()["top1_percent"] == 100.0
    assert [part["protocol"] for part in merged.metadata["merged_from"]] == ["paper", "4x3"]
    # What was merged can be written, and merged again.
    write_scores(tmp_path / "both.parquet", merged.per_video, merged.metadata)
    again = merge_scores([tmp_path / "both.parquet", one])
    np.testing.assert_allclose(np.stack(again.per_video.scores), [[0.85, 0.15], [0.5, 0.5]])


def test_several_heads(tmp_path):
    """Two verbs and three nouns: a video is right where both are."""
    scores = [[0.9, 0.1, 0.2, 0.7, 0.1], [0.1, 0.9, 0.6, 0.3, 0.1]]
    for name in ("one", "two"):
        file_of(tmp_path / name, scores, labels=[[0, 1], [0, 0]], heads=[2, 3])
    found = read_scores(tmp_path / "one")
    assert found.heads == (2, 3)
    assert found.accuracy()["top1_percent"] == 50.0
    assert found.accuracy()["top5_percent"] is None
    merged = merge_scores([tmp_path / "one", tmp_path / "two"])
    assert merged.per_video.prediction.tolist() == [[0, 1], [1, 0]]
    assert merged.heads == (2, 3)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"paths": ["0.mp4", "2.mp4"]}, "two.parquet: expected scores of '1.mp4', as in .*one.parquet"),
        ({"scores": [[1, 0]] * 4}, r"one.parquet: expected scores of '2.mp4' and 1 more, as in .*two.parquet"),
        ({"paths": ["0.mp4", "0.mp4"]}, "two.parquet: expected each path once, '0.mp4' occurs twice"),
        ({"labels": [0, 1]}, "two.parquet: expected label 0 for '1.mp4', as in .*one.parquet, got 1"),
        ({"merge": "sum_logits"}, "two.parquet: expected merge mean_softmax, as in .*one.parquet, got sum_logits"),
        ({"scores": [[1, 0, 0]] * 2}, "two.parquet: expected scores of 2 classes, as in .*one.parquet, got 3"),
    ],
)
def test_files_that_do_not_belong_together(tmp_path, changed, said):
    one = file_of(tmp_path / "one.parquet", [[1, 0], [0, 1]])
    two = file_of(tmp_path / "two.parquet", **{"scores": [[1, 0], [0, 1]], **changed})
    with pytest.raises(InputError, match=said):
        merge_scores([one, two])


def test_files_that_hold_no_scores(tmp_path):
    with pytest.raises(InputError, match="nowhere: expected an existing file of scores"):
        read_scores(tmp_path / "nowhere")
    with pytest.raises(InputError, match="expected at least two files, got 1"):
        merge_scores([tmp_path / "nowhere"])
    (tmp_path / "text").write_text("no parquet")
    with pytest.raises(InputError, match="text: expected a readable parquet file"):
        read_scores(tmp_path / "text")
    pd.DataFrame({"path": ["a"]}).to_parquet(tmp_path / "other")
    with pytest.raises(InputError, match=r"expected a file of scores .*column 'label' is missing"):
        read_scores(tmp_path / "other")
    read_scores(file_of(tmp_path / "good", [[1, 0]])).per_video.to_parquet(tmp_path / "bare")
    with pytest.raises(InputError, match="metadata 'timesformer' is missing"):
        read_scores(tmp_path / "bare")
