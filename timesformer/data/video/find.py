"""Search for videos that are given one by one or by their folder."""

import os
from collections.abc import Iterable
from pathlib import Path

from timesformer.data.annotations.reading import VIDEO_SUFFIXES, suffixes_of, tell_passed_over
from timesformer.data.natural import natural_key
from timesformer.data.video.image import IMAGE_SUFFIXES
from timesformer.errors import InputError
from timesformer.text import path_text


def find_videos(sources: Iterable[Path | str]) -> list[Path]:
    """List the given files, and for each given folder all videos in it, in the order of their names.

    In a folder, at any depth, a video is a file with a video suffix, or a folder with images but without videos (its
    images are the frames).  Links to folders are followed, but no folder is entered twice.  Other files are passed
    over, with a warning; names that begin with a dot are ignored.  Files are not opened here.

    Raises InputError for a folder without videos.
    """
    found: list[Path] = []
    for source in map(Path, sources):
        if not os.path.isdir(source):
            found.append(source)
            continue
        inside, passed_over = _inside(source)
        if not inside:
            raise InputError(f"{path_text(source)}: this folder contains no video{suffixes_of(passed_over)}")
        tell_passed_over(source, passed_over)
        found += inside
    return found


def class_folders(folder: Path, videos: Iterable[Path]) -> list[str] | None:
    """Return the classes of a folder with one folder per class, as the annotation format `folder` numbers them.

    videos: all videos in the folder (`find_videos`).  None where one of them lies elsewhere than directly in a folder
    of the folder, so that its place names no class.
    """
    if not folder.is_dir() or any(video.parent.parent != folder for video in videos):
        return None
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _inside(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the videos in a folder, and the files that are passed over."""
    found, passed_over = list[Path](), list[Path]()
    entered = {os.path.realpath(folder)}
    unlisted: list[OSError] = []
    for path, folders, names in os.walk(folder, onerror=unlisted.append, followlinks=True):
        folders[:] = [
            name for name in sorted(folders) if not name.startswith(".") and _enter(os.path.join(path, name), entered)
        ]
        shown = [name for name in names if not name.startswith(".")]
        videos = [name for name in shown if name.lower().endswith(VIDEO_SUFFIXES)]
        images = [name for name in shown if name.lower().endswith(IMAGE_SUFFIXES)]
        found += [Path(path, name) for name in videos]
        if images and not videos:
            found.append(Path(path))
        taken = {*videos, *(() if videos else images)}
        passed_over += [Path(path, name) for name in sorted(shown) if name not in taken]
    found += [Path(error.filename) for error in unlisted]  # reported when they are read
    return sorted(found, key=lambda video: natural_key(str(video))), passed_over


def _enter(folder: str, entered: set[str]) -> bool:
    """Return True for a folder that was not entered before, under whatever name."""
    real = os.path.realpath(folder)
    new = real not in entered
    entered.add(real)
    return new
