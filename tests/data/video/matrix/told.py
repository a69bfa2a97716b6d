"""The table of the documentation: what was tried, and what became of it."""

from collections.abc import Iterable

from tests.data.video.matrix.case import Case

EXACT = "every frame, in any order"
OUTCOMES = {
    "interlaced": "every frame; the two fields are not separated",
    "fields in packets of their own": "every picture once; its two fields are not separated",
    "edit list with several parts": "the frames that FFmpeg plays, by their times",
    "two programmes": "the one that FFmpeg would play",
    "time stamps begin anew": "every frame at its time",
    "hours between two pictures": "every frame at its time; the audit says `odd-rate`",
    "hidden reference frames": "frames that are shown; those that only serve as references are not counted",
    "variable frame rate": "every frame at its time; the rate is their mean; the audit says `variable-rate`",
    "first picture late": "every frame; seconds count from the first",
    "last picture stands long": "every frame; not taken for a file that is cut off",
    "a slide every ten seconds": "every frame at its time; the audit says `odd-rate`",
    "browser's recording without rate": "every frame at its time, by the time stamps",
    "dropped frames": "the frames that are there, at their times",
    "240 frames per second": "every frame; the audit says `odd-rate`",
    "one frame per second": "every frame; the audit says `odd-rate`",
    "edit list inside a group of pictures": "the frames that the edit list plays",
    "edit list beyond a group of pictures": "the frames that the edit list plays",
    "empty table of key frames": "every frame; decoded from the start if a seek ends elsewhere",
    "wrong table of key frames": "every frame; decoded from the start if a seek ends elsewhere",
    "begins inside a group of pictures": "from the first frame that FFmpeg shows",
    "thumbnail in front": "the video, not the thumbnail",
    "cover in front": "the video, not the cover",
    "sound in front": "the video",
    "rotated or mirrored": "upright; the audit says `rotated`",
    "EXIF orientation in every frame": "upright; the audit says `rotated`",
    "one frame": "that frame; the audit says `one-frame`",
    "odd size": "every frame; the audit says `odd-size`",
    "tiny": "every frame; the audit says `odd-size`",
    "10 bits": "every frame, in 8 bits",
    "transparent": "every frame, without transparency",
    "colour matrix and range": "BT.601, BT.709 and BT.2020, in limited and full range, as the file says",
    "pixels that are not square": "as coded; the audit says `not-square`; `square_pixels` corrects it",
    "odd name": "only the file of this name is opened",
}
"""What became of the kinds that need more words than `EXACT`."""


def table(cases: Iterable[Case], refused: Iterable[Case]) -> list[str]:
    """Return the lines of the two tables: containers and codecs, then the oddities."""
    cases = list(cases)
    codecs: dict[str, list[str]] = {}
    files: dict[str, list[str]] = {}
    for case in cases:
        codec, _, suffix = case.name.rpartition(".")
        if case.kind == "plain":
            codecs.setdefault(f".{suffix}", []).append(codec)
        else:
            files.setdefault(case.kind, []).append(_place(case))
    lines = ["| suffix | encoders whose files were read |", "|---|---|"]
    lines += [f"| `{suffix}` | {', '.join(names)} |" for suffix, names in sorted(codecs.items(), key=_by_name)]
    lines += ["", "| what is odd | tried in | what is read |", "|---|---|---|"]
    lines += [
        f"| {kind} | {', '.join(dict.fromkeys(places))} | {OUTCOMES.get(kind, EXACT)} |"
        for kind, places in files.items()
    ]
    lines += ["", "| what is wrong | tried in | reported as |", "|---|---|---|"]
    wrong: dict[tuple[str, str], list[str]] = {}
    for case in refused:
        wrong.setdefault((case.kind, case.reported), []).append(_place(case))
    return lines + [f"| {kind} | {', '.join(dict.fromkeys(p))} | “{said}” |" for (kind, said), p in wrong.items()]


def _by_name(row: tuple[str, list[str]]) -> str:
    return row[0].lower()


def _place(case: Case) -> str:
    if case.kind == "odd name":
        return f"`{case.name}`"
    suffix = case.name.rpartition(".")[2]
    return f"`.{suffix}`"
