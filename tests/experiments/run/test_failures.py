"""What kind of failure an error is, and what a dead process died of."""

import errno
import pickle
import signal

import pytest
import torch

from timesformer.data.video.error import VideoError
from timesformer.errors import InputError
from timesformer.training.loop import TrainingDiverged
from timesformer_experiments.run import failures
from timesformer_experiments.run.failures import Failed, died, kind_of, oom_kills, reason_of


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk_full"),
        (OSError(errno.EFBIG, "File too large"), "disk_full"),
        (caused(InputError("cannot write x"), OSError(errno.ENOSPC, "")), "disk_full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk_full"),
        (MemoryError(), "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out_of_memory"),
        (TrainingDiverged("the loss of step 3 is nan"), "diverged"),
        (VideoError("a.mp4", "cut off"), "decode"),
        (caused(InputError("test set"), VideoError("a.mp4", "cut off")), "decode"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Segmentation fault."), "decode"),
        (InputError("seed: expected 0 or more"), "bad_input"),
        (Failed("its machine was lost", "node_lost"), "node_lost"),
        (OSError(errno.EACCES, "Permission denied"), "error"),
        (ValueError("out of memory is a word here"), "error"),
    ],
)
def test_kinds(error, kind):
    assert kind_of(error) == kind
    assert kind in failures.KINDS


def test_a_circle_of_causes_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert kind_of(first) == "error"


def test_reasons_are_one_line():
    assert reason_of(ValueError("two\n  lines")) == "ValueError: two lines"
    assert reason_of(InputError("seed: no")) == "seed: no"
    again = pickle.loads(pickle.dumps(Failed("gone", "killed")))
    assert (reason_of(again), again.kind) == ("gone", "killed")


def test_deaths():
    assert died(3, 0) == ("its process ended with exit code 3", "error")
    assert died(-signal.SIGKILL, oom_kills()) == ("its process ended by signal SIGKILL", "killed")
    reason, kind = died(-signal.SIGKILL, oom_kills() - 1)
    assert (reason, kind) == ("its process ended by signal SIGKILL: the kernel ran out of memory", "out_of_memory")
    other = 'Thread 0x1 (most recent call first):\n  File "/a/selectors.py", line 9 in select\n\n'
    current = (
        'Current thread 0x2 (most recent call first):\n  File "/a/timesformer/data/video/video.py", line 3 in frames\n'
    )
    stack = f"Fatal Python error: Segmentation fault\n\n{other}{current}"
    reason, kind = died(-signal.SIGSEGV, 0, stack)
    assert (reason, kind) == ("its process ended by signal SIGSEGV in video/video.py, line 3 in frames", "decode")
    assert died(-signal.SIGSEGV, 0, stack.replace("data", "maps"))[1] == "killed"


def test_where_the_kernel_does_not_say(monkeypatch, tmp_path):
    assert oom_kills() >= 0
    monkeypatch.setattr(failures, "Path", lambda path: tmp_path / "missing")
    assert oom_kills() == 0
