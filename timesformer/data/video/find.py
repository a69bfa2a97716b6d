"""Search for videos that are given one by one or by their folder."""

import os
from collections.abc import Iterable
from pathlib import Path

from timesformer.data.annotations.reading import VIDEO_SUFFIXES
from timesformer.data.natural import natural_key
from timesformer.data.video.open import IMAGE_SUFFIXES
from timesformer.errors import InputError


def find_videos(sources: Iterable[Path | str]) -> list[Path]:
    """List the given files, and for each given folder all videos in it, in the order of their names.

    In a folder, at any depth, a video is a file with a video suffix, or a folder with images but without videos (its
    images are the frames).  Names that begin with a dot are ignored.  Files are not opened here.

    Raises InputError for a folder without videos.
    """
    found: list[Path] = []
    for source in map(Path, sources):
        if not source.is_dir():
            found.append(source)
            continue
        inside = _inside(source)
        if not inside:
            raise InputError(f"{source}: this folder contains no video ({', '.join(VIDEO_SUFFIXES)})")
        found += inside
    return found


def _inside(folder: Path) -> list[Path]:
    found = []
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = [name for name in names if not name.startswith(".")]
        videos = [name for name in shown if name.lower().endswith(VIDEO_SUFFIXES)]
        found += [Path(path, name) for name in videos]
        if not videos and any(name.lower().endswith(IMAGE_SUFFIXES) for name in shown):
            found.append(Path(path))
    return sorted(found, key=lambda video: natural_key(str(video)))
