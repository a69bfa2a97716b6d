"""Annotations of Epic-Kitchens: segments of long videos, each with a verb and a noun."""

from functools import cache
from pathlib import Path

from timesformer.data.annotations.classes import read_class_names
from timesformer.data.annotations.reading import check_label, find_video, read_table, require_some, whole_number
from timesformer.data.annotations.sample import Annotations, Labels, NumClasses, Sample
from timesformer.errors import InputError

HEADS = ("verb", "noun")
COLUMNS = ("participant_id", "video_id", "start_frame", "stop_frame", "verb_class", "noun_class")


def read_epic_kitchens(
    path: Path, root: Path | None = None, num_classes: NumClasses | None = None, labels: Labels | None = None
) -> Annotations:
    """Read `EPIC_100_{train,validation}.csv`, which has at least the columns `COLUMNS`.

    A sample is a segment of `video_id`: frames start_frame to stop_frame, counted from 1, both included.  Its label is
    (verb, noun), its group `video_id`; its name is narration_id if the file has that column.  Under `root` (by default
    the folder of the csv) a video is `P01/videos/P01_01.MP4`, the folder `P01/rgb_frames/P01_01/` with images
    `frame_0000000001.jpg` and so on, or a file or folder of images `P01/P01_01` or `P01_01`.

    Frame numbers refer to 60 frames per second in the videos of Epic-Kitchens-55 and to 50 in the others (whose
    video_id ends in three digits).  If stop_timestamp implies a rate that differs by at least 10 %, the implied rate is
    used.  For a video file with another rate, for example after re-encoding, frame numbers are converted.

    Class names are `labels` ({verb: …, noun: …}), or come from `EPIC_100_{verb,noun}_classes.csv` in the same folder.

    Raises InputError naming file, line and column.
    """
    if labels is None:
        files = {head: path.with_name(f"EPIC_100_{head}_classes.csv") for head in HEADS}
        if all(file.is_file() for file in files.values()):
            labels = {head: read_class_names(file) for head, file in files.items()}
    limits = _limits(path, num_classes, labels)
    base, samples = root if root is not None else path.parent, []
    where = cache(lambda person, video: _video(base, person, video))
    for place, row in read_table(path, COLUMNS):
        start, stop = (whole_number(row[name], name, place) for name in ("start_frame", "stop_frame"))
        if not 1 <= start <= stop:
            raise InputError(f"{place}: stop_frame: expected 1 <= start_frame <= stop_frame, got {start} and {stop}")
        classes = (whole_number(row[f"{head}_class"], f"{head}_class", place) for head in HEADS)
        label = tuple(
            check_label(number, limit, place, f"{head}_class")
            for number, limit, head in zip(classes, limits, HEADS, strict=True)
        )
        video = row["video_id"]
        if not video:
            raise InputError(f"{place}: video_id: expected the name of a video, got an empty field")
        samples.append(
            Sample(
                where(row["participant_id"], video),
                label,
                row.get("narration_id") or f"{video}[{start}:{stop}]",
                start - 1,
                stop,
                _rate(video, stop, row.get("stop_timestamp", ""), place),
                group=video,
            )
        )
    return Annotations(require_some(samples, path), labels, HEADS)


def _limits(path: Path, num_classes: NumClasses | None, labels: Labels | None) -> tuple[int | None, int | None]:
    """Return the number of verbs and of nouns."""
    if labels is not None and (not isinstance(labels, dict) or tuple(labels) != HEADS):
        raise InputError(f"{path}: expected class names for the heads verb and noun, in this order")
    if num_classes is not None and (not isinstance(num_classes, tuple) or len(num_classes) != len(HEADS)):
        raise InputError(f"{path}: num_classes: expected two numbers, of verbs and nouns, got {num_classes!r}")
    if isinstance(labels, dict):
        counts = len(labels["verb"]), len(labels["noun"])
        if num_classes not in (None, counts):
            raise InputError(f"{path}: num_classes is {num_classes}, but there are {counts} class names")
        return counts
    return (num_classes[0], num_classes[1]) if isinstance(num_classes, tuple) else (None, None)


def _video(base: Path, person: str, video: str) -> Path:
    usual = base / person / "videos"
    for folder in (usual, base / person / "rgb_frames", base / person, base):
        found = find_video(folder, video, ".MP4")
        if found.exists():
            return found
    return usual / f"{video}.MP4"


def _rate(video: str, stop: int, timestamp: str, place: str) -> float:
    """Return the frame rate to which the frame numbers refer."""
    usual = 50.0 if len(video.rpartition("_")[2]) == 3 else 60.0
    if not timestamp:
        return usual
    try:
        hours, minutes, seconds = (float(part) for part in timestamp.split(":"))
    except ValueError as error:
        raise InputError(f"{place}: stop_timestamp: expected hours:minutes:seconds, got {timestamp!r}") from error
    lasting = 3600 * hours + 60 * minutes + seconds
    # A segment that ends within the first second says little about the rate.
    if lasting < 1 or abs(stop / lasting / usual - 1) < 0.1:
        return usual
    return round(stop / lasting, 3)


READERS = {"epic_kitchens": read_epic_kitchens}
