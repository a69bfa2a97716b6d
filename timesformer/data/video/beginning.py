"""Decoding of the first pictures of a stream whose packets do not tell which pictures are shown.

A recording may begin within a group of pictures, or with pictures that refer to earlier ones; what a decoder leaves out
is not numbered.  Where pictures are only counted, a packet may hold none (MPEG-4) or one of the two fields of a
picture.
"""

from collections.abc import Iterator
from dataclasses import replace

import av
import numpy as np
from av.error import FFmpegError
from av.video.stream import VideoStream

from timesformer.data.video.index import FrameTable, IndexFault

_ENOUGH = 24  # pictures after which their order is known


def settled(table: FrameTable, container: av.container.InputContainer, stream: VideoStream) -> FrameTable:
    """Return the table with the pictures that a decoder shows; the container is at its start before, used up after.

    The result still has doubts if its stamps were dropped, because they are not those of the pictures.

    Raises IndexFault for a stream of which no picture can be decoded.
    """
    if table.stamps is None:
        return _counted(table, container, stream)
    first_key = next((key for key in table.key_frames if key > 0), 0)
    numbers: list[int] = []
    for frame in decoded(container, stream):
        number = table.number(frame.pts)
        if number < 0:
            continue
        if numbers and number < numbers[-1]:  # the stamps are in decoding order: not those of the pictures
            return replace(table, stamps=None, key_frames=[0], targets=[None], doubts=True)
        numbers.append(number)
        if len(numbers) >= _ENOUGH and number >= first_key:
            break
    if not numbers:
        raise IndexFault("no frame can be decoded", "damaged")
    begun = numbers[0]
    keys = [(key - begun, target) for key, target in zip(table.key_frames, table.targets, strict=True) if key > begun]
    stamps = table.stamps[begun:]
    return replace(
        table,
        num_frames=len(stamps),
        doubts=False,
        stamps=stamps,
        times=stamps,
        key_frames=[0, *(key for key, _ in keys)],
        targets=[None, *(target for _, target in keys)],
    )


def decoded(container: av.container.InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Yield the frames from the start of a stream; errors before the first one are left out."""
    begun = False
    for packet in container.demux(stream):
        if not packet.size:
            continue
        try:
            found = stream.codec_context.decode(packet)
        except FFmpegError:
            if begun:
                raise
            continue
        for frame in found:
            begun = True
            yield frame
    yield from stream.codec_context.decode(None)


def _counted(table: FrameTable, container: av.container.InputContainer, stream: VideoStream) -> FrameTable:
    stamps = [frame.pts for frame in decoded(container, stream)]
    if not stamps:
        raise IndexFault("no frame can be decoded", "damaged")
    told = np.array([-1 if stamp is None else stamp for stamp in stamps], np.int64)
    rising = None not in stamps and bool((np.diff(told) > 0).all())
    if not rising:
        told = np.unique(told)
        rising = None not in stamps and len(told) == len(stamps)
    return replace(table, num_frames=len(stamps), times=told if rising else None, doubts=False)
