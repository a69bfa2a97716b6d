"""A disk that fills up during a sweep: `full_disk.py FILE DATA DISK KEPT`, in a mount namespace of its own.

Mounts a small file system on the folder DISK, starts a sweep there, fills it once a cell is finished, lets the sweep go
on to its end, makes room again, and retries. The folder is copied to KEPT; standard output is one JSON object."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

SIZE = "24m"


def sweep(file: str, data: str, out: Path, *words: str) -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        "-m",
        "timesformer_experiments.cli.main",
        "sweep",
        file,
        "--out",
        str(out),
        "--data-dir",
        data,
        *words,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def records(out: Path) -> list[dict]:
    log = out / "records.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def fill(disk: Path) -> Path:
    """Takes every byte that is free."""
    path = disk / "filler"
    with path.open("ab", buffering=0) as file:
        for size in (2**20, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return path


def main(file: str, data: str, disk: Path, kept: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(disk)], check=True)
    out = disk / "out"
    process = sweep(file, data, out, "--jobs", "1")
    give_up = time.monotonic() + 300
    while not any(record["outcome"] == "done" for record in records(out)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.05)
    filler = fill(disk)
    _, err = process.communicate(timeout=300)
    during = {"code": process.returncode, "err": err, "records": records(out)}
    stat = os.statvfs(disk)
    during["free_bytes"] = stat.f_bavail * stat.f_frsize
    filler.unlink()
    process = sweep(file, data, out, "--retry", "failed", "--jobs", "1")
    _, err = process.communicate(timeout=300)
    shutil.copytree(out, kept)
    print(json.dumps({"during": during, "code": process.returncode, "err": err}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
