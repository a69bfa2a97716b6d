"""Evaluation protocols by name: the views of a video and the rule that merges their scores."""

import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast, get_args

from timesformer.data import Views
from timesformer.errors import InputError

Merge = Literal["mean_softmax", "sum_logits", "mean_logits"]
MERGES: tuple[Merge, ...] = get_args(Merge)


@dataclass(frozen=True)
class Protocol:
    """Views of a video and the rule that merges their scores into the video's score."""

    name: str
    views: Views
    merge: Merge

    def __post_init__(self) -> None:
        if self.merge not in MERGES:
            raise InputError(f"merge: expected one of {', '.join(MERGES)}, got {self.merge!r}")

    def statement(self) -> dict[str, Any]:
        """Return what must accompany a result: protocol, clips, crops, start, rule, merge."""
        return {"protocol": self.name, **asdict(self.views), "merge": self.merge}


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        # The paper (appendix B): the clip in the middle, three crops, mean of the softmax.
        Protocol("paper", Views(1, 3, "middle"), "mean_softmax"),
        # The released code: the clip begins at frame 0, raw logits are summed.
        Protocol("fair-code", Views(1, 3, "first", "fair"), "sum_logits"),
        # mmaction2: the clip in the middle, three crops, mean of the probabilities.
        Protocol("mmaction2", Views(1, 3, "middle", "mmaction2"), "mean_softmax"),
        # One centre crop of one clip, as used for validation during training.
        Protocol("clip", Views(1, 1, "middle"), "mean_softmax"),
    )
}


_CLIPS_CROPS = re.compile(r"(cover|\d+)x(\d+)")


def protocol_named(
    name: str, *, clips: int | str | None = None, crops: int | None = None, merge: str | None = None
) -> Protocol:
    """Return the protocol with a name, or with clips x crops as in "10x3" or "coverx1".

    Clips of the second form are spread over the video, and their softmax is averaged.  `clips`, `crops` and `merge`
    replace the protocol's own values; the name then states those that differ.

    Raises:
        InputError: an unknown name (the message lists the known ones), or an impossible value.
    """
    custom = _CLIPS_CROPS.fullmatch(name)
    if name not in PROTOCOLS and custom is None:
        known = f"{', '.join(PROTOCOLS)}, or CLIPSxCROPS as in 10x3, coverx1"
        raise InputError(f"protocol: unknown name {name!r}; expected one of {known}")
    if custom is None:
        found = PROTOCOLS[name]
    else:
        found = Protocol(name, Views(_clips(custom[1]), int(custom[2])), "mean_softmax")
    wanted = replace(
        found.views,
        clips=found.views.clips if clips is None else _clips(clips),
        crops=found.views.crops if crops is None else crops,
    )
    changed = [] if wanted == found.views else [f"{wanted.clips}x{wanted.crops}"]
    if merge is not None and merge != found.merge:
        changed.append(merge)
    final = " ".join([found.name, *changed])
    return Protocol(final, wanted, found.merge if merge is None else cast(Merge, merge))


def _clips(value: int | str) -> int | Literal["cover"]:
    if value == "cover":
        return "cover"
    try:
        return int(value)
    except ValueError:
        raise InputError(f'clips: expected a number or "cover", got {value!r}') from None
