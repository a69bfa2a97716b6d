"""The matrix of files: container x codec, and files that are odd in one way.

`docs/videos.md` tells what became of each kind.  A case is made in a folder of its own; what FFmpeg decodes of it in
sequence is the standard.
"""

from tests.data.video.matrix.camera import RECORDED
from tests.data.video.matrix.case import Case
from tests.data.video.matrix.container import CONTAINED, NAMED, REFUSED, STREAMS
from tests.data.video.matrix.picture import PICTURED
from tests.data.video.matrix.plain import PLAIN
from tests.data.video.matrix.time import REORDERED, TIMED
from tests.data.video.matrix.told import table

ODD = [*REORDERED, *TIMED, *RECORDED, *CONTAINED, *STREAMS, *PICTURED, *NAMED]
CASES = [*PLAIN, *ODD, *REFUSED]

DOCUMENTED = table([*PLAIN, *ODD], REFUSED)
"""Lines of `docs/videos.md`."""

__all__ = ["CASES", "DOCUMENTED", "ODD", "PLAIN", "REFUSED", "Case"]
