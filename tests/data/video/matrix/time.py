"""Files that are odd in the order or the times of their frames."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from tests.data.video.made import encode, patch
from tests.data.video.matrix.case import JPEG, MS, made, odd, x264

REORDERED = [
    made("no B-frames", "bf0.mp4", options={"bf": "0", "g": "6"}),
    made("pyramid of B-frames", "pyramid.mkv", options={"g": "18", **x264(bframes=5, b_pyramid="normal")}),
    *(
        made("open groups of pictures", f"open.{suffix}", options=x264(open_gop=1, keyint=8, bframes=3))
        for suffix in ("mp4", "mkv", "ts", "flv")
    ),
    made("intra refresh instead of key frames", "refresh.mkv", options={"g": "8", **x264(intra_refresh=1)}),
    made("interlaced", "interlaced.mp4", options=x264(interlaced=1), size=(64, 64)),
    made("interlaced", "interlaced.mpg", "mpeg2video", options={"flags": "+ildct+ilme", "bf": "2"}, size=(64, 64)),
    made("one key frame", "one_key.mp4", options={"g": "250"}),
    made("every frame a key frame", "keys.mp4", options={"g": "1"}),
    made("hidden reference frames", "hidden.webm", "libvpx", options={"auto-alt-ref": "1", "lag-in-frames": "8"}),
    made("hidden reference frames", "hidden9.webm", "libvpx-vp9", options={"auto-alt-ref": "1", "lag-in-frames": "8"}),
]

UNEVEN = [0, 40, 80, 81, 120, 400, 410, 420, 1000, 1040, 1080, 1500, 1501, 1502, 1900, 2300, 2340, 2380, 2420, 2460]
STEADY = [40 * index for index in range(20)]


def _undefault(content: bytearray) -> None:
    """Overwrite the default duration of Matroska's tracks by an element without meaning, as browsers leave it out."""
    place = content.find(b"\x23\xe3\x83")
    content[place : place + 2] = bytes([0xEC, 0x80 | (content[place + 3] & 0x7F) + 2])


def _browser(folder: Path, times: list[int]) -> Path:
    raw = encode(folder / "raw.webm", "libvpx", times=times, time_base=MS, mux={"live": "1"})
    return patch(raw, folder / "browser.webm", _undefault)


def _dropped(codec: str, **how: Any) -> Callable[[Path], Path]:
    times = [index + 2 * (index >= 7) + 3 * (index >= 14) for index in range(20)]
    return lambda folder: encode(folder / "dropped.avi", codec, times=times, time_base=Fraction(1, 25), **how)


TIMED = [
    *(
        made("variable frame rate", f"uneven.{suffix}", codec, {"rate": 19 / 2.46}, times=UNEVEN, time_base=MS)
        for suffix, codec in (
            ("mp4", "libx264"),
            ("mkv", "libx264"),
            ("webm", "libvpx"),
            ("flv", "libx264"),
            ("mov", "mpeg4"),
        )
    ),
    *(
        made("first picture late", f"late.{suffix}", times=[5000 + time for time in STEADY], time_base=MS)
        for suffix in ("mp4", "mkv", "flv")
    ),
    *(
        made(
            "last picture stands long",
            f"still.{suffix}",
            codec,
            times=STEADY,
            time_base=MS,
            last=5000,
            options={"bf": "0"} if codec == "libx264" else {},
        )
        for suffix, codec in (
            ("mp4", "libx264"),
            ("mov", "libx264"),
            ("mkv", "libx264"),
            ("webm", "libvpx"),
            ("flv", "libx264"),
        )
    ),
    made(
        "a slide every ten seconds",
        "slides.mkv",
        expected={"rate": 0.1},
        times=[10_000 * i for i in range(20)],
        time_base=MS,
        last=30_000,
        options={"bf": "0"},
    ),
    odd("browser's recording without rate", "browser.webm", lambda folder: _browser(folder, UNEVEN), rate=19 / 2.46),
    odd("browser's recording without rate", "browser_steady.webm", lambda folder: _browser(folder, STEADY), rate=25.0),
    odd("dropped frames", "dropped_mpeg4.avi", _dropped("mpeg4"), rate=19 / (24 / 25)),
    odd("dropped frames", "dropped_mjpeg.avi", _dropped("mjpeg", **JPEG), rate=19 / (24 / 25)),
    odd("dropped frames", "dropped_h264.avi", _dropped("libx264", options={"bf": "0"}), rate=19 / (24 / 25)),
    made("240 frames per second", "fast.mp4", expected={"rate": 240.0}, rate=240),
    made("one frame per second", "slow.mp4", expected={"rate": 1.0}, rate=1),
    made("23.976 frames per second", "film.mkv", expected={"rate": 24000 / 1001}, rate=Fraction(24000, 1001)),
    made("29.97 frames per second", "ntsc.mpg", "mpeg2video", {"rate": 30000 / 1001}, rate=Fraction(30000, 1001)),
    made(
        "microseconds as time base",
        "micro.mp4",
        times=[40_000 * i for i in range(20)],
        time_base=Fraction(1, 1_000_000),
    ),
]
