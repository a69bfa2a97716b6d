"""Sizes of the benchmark: steps, grids, batches and models, in full and tiny."""

from dataclasses import dataclass, replace

from timesformer.attention import Grid, Step, build

STEPS = {
    "time": ("divided", "time"),
    "space": ("divided", "space"),
    "joint": ("joint", "joint"),
    "width": ("axial", "width"),
    "height": ("axial", "height"),
    "local": ("local_global", "local"),
    "global": ("local_global", "global"),
}
"""Kinds of steps: the scheme that declares each, and its name there.  The class token has the step's default policy."""


def step_of(kind: str) -> Step:
    """Return the declaration of a kind of step."""
    scheme, name = STEPS[kind]
    return build(scheme).encoders[0].step(name)


@dataclass(frozen=True)
class Sizes:
    """Sizes of one profile.

    `grids`: frames, rows and columns of patches, each split evenly by every step. `batches`: numbers of clips, the most
    informative first. `check_grids`: grids of the correctness checks, including odd ones. `clips`: frames and crop of
    whole models; the first is used for every scheme. `clip_batch`: batch with which the others must train.
    `most_frames`, `most_crop`: limits of the search for the largest clip.
    """

    name: str
    grids: tuple[Grid, ...]
    batches: tuple[int, ...]
    check_grids: tuple[Grid, ...]
    heads: int
    head_width: int
    depth: int
    patch: int
    classes: int
    inference_batch: int
    training_batch: int
    clips: tuple[tuple[int, int], ...]
    clip_batch: int
    most_frames: int
    most_crop: int
    copy_bytes: int
    product: int

    @property
    def width(self) -> int:
        """Channels of a model."""
        return self.heads * self.head_width


FULL = Sizes(
    name="full",
    grids=((8, 14, 14), (16, 28, 28), (32, 14, 14), (96, 14, 14)),
    batches=(32, 8, 1),
    check_grids=((8, 14, 14), (5, 7, 9)),
    heads=12,
    head_width=64,
    depth=12,
    patch=16,
    classes=400,
    inference_batch=32,
    training_batch=16,
    clips=((8, 224), (96, 224), (16, 448)),
    clip_batch=8,
    most_frames=4096,
    most_crop=4096,
    copy_bytes=4 << 30,
    product=8192,
)

ON_A_CPU = replace(
    FULL,
    grids=FULL.grids[:2],
    batches=(1,),
    inference_batch=1,
    training_batch=1,
    copy_bytes=256 << 20,
    product=2048,
)
"""Part of the full sizes that is measured on a CPU."""

TINY = Sizes(
    name="tiny",
    grids=((2, 4, 4),),
    batches=(1,),
    check_grids=((3, 3, 2),),
    heads=2,
    head_width=16,
    depth=1,
    patch=8,
    classes=5,
    inference_batch=2,
    training_batch=2,
    clips=((2, 32), (4, 32), (2, 48)),
    clip_batch=2,
    most_frames=4,
    most_crop=32,
    copy_bytes=1 << 20,
    product=64,
)
"""Sizes to check that everything runs, also in Triton's interpreter."""

SIZES = {sizes.name: sizes for sizes in (FULL, TINY)}
