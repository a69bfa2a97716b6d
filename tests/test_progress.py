"""Progress where there is no terminal, and the digest of weights."""

import pytest
import torch

from timesformer import TimeSformer, TimeSformerConfig, progress
from timesformer.checkpoints import weights_sha256


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_line_now_and_then(clock, capsys):
    with progress.step_bar("training", True) as on_step:
        on_step(1, 10, 2.5)
        clock[0] += progress.LINE_SECONDS
        on_step(2, 10, 2.25)
        on_step(3, 10, 2.0)
        clock[0] += progress.LINE_SECONDS
        on_step(4, 10, float("nan"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["training: 2 of 10, loss 2.250, 4 min left", "training: 4 of 10, 2 min left"]


def test_no_progress_where_none_is_wanted(clock, capsys):
    for wanted, main_process in ((False, True), (True, False)):
        with progress.step_bar("training", wanted, main_process) as on_step:
            clock[0] += progress.LINE_SECONDS
            on_step(1, 10, 1.0)
    assert capsys.readouterr().err == ""


def test_the_digest_changes_with_any_weight():
    model = TimeSformer(TimeSformerConfig(attention="divided", embed_dim=16, depth=1, num_heads=2, image_size=32))
    before = weights_sha256(model)
    assert weights_sha256(model) == before
    assert weights_sha256(model.double()) != before
    model.float()
    assert weights_sha256(model) == before
    with torch.no_grad():
        model.head.bias[0] += 1e-6
    assert weights_sha256(model) != before
