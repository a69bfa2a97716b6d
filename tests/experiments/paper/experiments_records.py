"""Records of runs as tables, tests and pages read them, without any training."""

from typing import Any

from timesformer_experiments.specs.run import RunSpec


def record_of(spec: RunSpec, right: list[bool]) -> dict[str, Any]:
    """A record of a run with what tables, tests and the page read."""
    percent = 100 * sum(right) / len(right)
    bits = "".join("1" if each else "0" for each in right).ljust(-(-len(right) // 8) * 8, "0")
    return {
        "hash": spec.hash(),
        "name": spec.name,
        "outcome": "done",
        "seed": spec.seed,
        "spec": {"model": {"num_classes": spec.model.num_classes}, "data": spec.model_dump(mode="json")["data"]},
        "dataset": {"test": {"fingerprint": "of-the-test-set"}},
        "test_right": int(bits, 2).to_bytes(len(bits) // 8, "big").hex(),
        "metrics": {
            "top1_percent": percent,
            "top1_low_percent": percent - 3,
            "top1_high_percent": percent + 2,
            "test_videos": len(right),
        },
        "environment": {
            "cpu_model": "a cpu", "cpu_cores": 2, "platform": "Linux", "device": "cpu", "threads": 1,
            "git_commit": None, "git_dirty": None, "versions": {"torch": "2"},
        },
        "wall_seconds": 1.0,
        "finished_utc": "2026-01-01T00:00:00Z",
    }  # fmt: skip
