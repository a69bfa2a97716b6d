"""Containers x codecs."""

from typing import Any

from tests.data.video.made import encode
from tests.data.video.matrix.case import B_FRAMES, DNX, JPEG, RGB, Case


def _plain(suffix: str, codec: str, *, told: float | None = 25.0, **how: Any) -> Case:
    name = f"{codec.removeprefix('lib')}.{suffix}"
    return Case(name, "plain", lambda folder: encode(folder / f"plain.{suffix}", codec, **how), rate=told)


def _group(codec: str, suffixes: str, **how: Any) -> list[Case]:
    return [_plain(suffix, codec, **how) for suffix in suffixes.split()]


PLAIN = [
    *_group("libx264", "mp4 mov m4v 3gp f4v mkv avi flv ts m2ts MTS asf mxf nut h264"),
    *_group("libx265", "mp4 mov mkv ts flv hevc"),
    *_group("libsvtav1", "mp4 mkv webm ivf obu flv avif"),
    *_group("libvpx", "webm mkv ogv avi ivf"),
    *_group("libvpx-vp9", "webm mkv mp4 ivf"),
    *_group("mpeg4", "mp4 avi mkv nut m4v", **B_FRAMES),
    *_group("mpeg2video", "mpg VOB ts mkv m2v avi mxf wtv", **B_FRAMES),
    *_group("mpeg1video", "mpg m1v mkv", **B_FRAMES),
    *_group("mjpeg", "avi mov mkv mjpeg", **JPEG),
    *_group("wmv2", "wmv asf"),
    *_group("wmv1", "wmv"),
    *_group("msmpeg4", "avi wmv"),
    *_group("msmpeg4v2", "avi"),
    *_group("flv", "flv swf avi"),
    *_group("h263", "3gp", size=(96, 128)),
    *_group("h261", "h261", size=(144, 176), told=None),
    *_group("rv20", "rm"),
    *_group("ffv1", "mkv avi"),
    *_group("huffyuv", "avi", pix_fmt="yuv422p"),
    *_group("utvideo", "avi"),
    *_group("rawvideo", "avi"),
    *_group("cinepak", "avi", **RGB),
    *_group("msvideo1", "avi", pix_fmt="rgb555le"),
    *_group("zmbv", "avi", pix_fmt="bgr0"),
    *_group("svq1", "mov", pix_fmt="yuv410p"),
    *_group("rpza", "mov", pix_fmt="rgb555le"),
    *_group("qtrle", "mov", **RGB),
    *_group("png", "mov", **RGB),
    *_group("prores", "mov mkv", pix_fmt="yuv422p10le"),
    *_group("cfhd", "mov", pix_fmt="yuv422p10le", size=(64, 96)),
    *_group("dnxhd", "mov mxf", **DNX),
    *_group("jpeg2000", "mov"),
    *_group("vc2", "mkv drc"),
    *_group("gif", "gif", pix_fmt="rgb8"),
    *_group("apng", "apng", **RGB),
    *_group("wrapped_avframe", "y4m"),
    *_group("dvvideo", "dv", size=(576, 720)),
    *_group("mpeg2video", "gxf", size=(576, 720), told=None),
    *_group("roqvideo", "roq", size=(64, 64), pix_fmt="yuvj444p", rate=30, told=30.0),
]
