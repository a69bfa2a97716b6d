"""Difficulty of a probe: how hard the main object is to see and to follow."""

from dataclasses import asdict, dataclass

from timesformer.errors import InputError

Range = tuple[float, float]


@dataclass(frozen=True)
class Difficulty:
    """Parameters of a probe's scenes.  Ranges are (low, high), drawn uniformly unless stated otherwise.

    Lengths are in pixels of the 40 x 40 video, brightness (luma) is on a scale of 0 to 1, speeds are per frame.  A
    smaller `object_radius`, a smaller `contrast` and larger values of everything else make a probe harder.

    object_radius: radius in the middle of the clip of a disc with the main object's area, drawn log-uniformly
    contrast: difference between the main object's brightness and the mean of its background
    darker: if true, a main object is darker than its background with probability 1/2; otherwise all are brighter
    background_contrast: amplitude of the background's texture
    noise: standard deviation of the noise per pixel and frame, before encoding
    clutter, distractors: number of static and of moving shapes (both ends of the range included)
    clutter_radius, distractor_radius: radii of these shapes
    distractor_contrast: the same as `contrast` for clutter and distractors, brighter or darker
    distractors_in_front: if true, each distractor lies in front of the main object with probability 1/2
    shift_speed: speed of left, right, up and down in pixels per frame
    turn_speed: speed of the rotations in radians per frame
    growth_speed: share of the range `object_radius` per frame, on a logarithmic scale
    hue_spread: in `appearance`, largest distance of an object's hue from the centre of its class, in units of the
        distance between neighbouring classes: at 0.5 the hue alone identifies the class, at 4 it is uninformative
    quantiser: x264's fixed quantiser (0 to 51; higher is coarser)

    Raises InputError, naming the field, for a range that is empty or out of bounds.
    """

    object_radius: Range = (4.0, 8.0)
    contrast: Range = (0.35, 0.50)
    darker: bool = False
    background_contrast: Range = (0.01, 0.04)
    noise: float = 0.015
    clutter: tuple[int, int] = (0, 1)
    clutter_radius: Range = (1.5, 2.5)
    distractors: tuple[int, int] = (0, 0)
    distractor_radius: Range = (1.5, 2.5)
    distractor_contrast: Range = (0.10, 0.20)
    distractors_in_front: bool = True
    shift_speed: Range = (1.0, 1.4)
    turn_speed: Range = (0.20, 0.30)
    growth_speed: Range = (0.06, 0.09)
    hue_spread: float = 0.5
    quantiser: int = 20

    def __post_init__(self) -> None:
        # No outline extends beyond 2 radii, and an object is drawn in a window no larger than the frame.
        self._check("object_radius", self.object_radius, 1.0, 10.0)
        self._check("contrast", self.contrast, 0.0, 0.5)
        self._check("background_contrast", self.background_contrast, 0.0, 0.5)
        self._check("noise", (self.noise, self.noise), 0.0, 0.5)
        self._check("clutter", self.clutter, 0, 100)
        self._check("clutter_radius", self.clutter_radius, 0.5, 10.0)
        self._check("distractors", self.distractors, 0, 20)
        self._check("distractor_radius", self.distractor_radius, 0.5, 10.0)
        self._check("distractor_contrast", self.distractor_contrast, 0.0, 0.5)
        # At higher speeds, two frames that a model sees (every second one) no longer show the direction.
        self._check("shift_speed", self.shift_speed, 0.0, 8.0)
        self._check("turn_speed", self.turn_speed, 0.0, 1.2)
        self._check("growth_speed", self.growth_speed, 0.0, 0.2)
        self._check("hue_spread", (self.hue_spread, self.hue_spread), 0.0, 4.0)
        self._check("quantiser", (self.quantiser, self.quantiser), 0, 51)

    def _check(self, field: str, value: Range | tuple[int, int], low: float, high: float) -> None:
        if len(value) != 2 or not low <= value[0] <= value[1] <= high:
            raise InputError(f"difficulty: {field} must be (low, high) within [{low}, {high}], got {value}")

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


DIFFICULTY: dict[str, Difficulty] = {
    "quick": Difficulty(),
    "full": Difficulty(
        contrast=(0.30, 0.50),
        background_contrast=(0.01, 0.05),
        noise=0.02,
        clutter=(0, 2),
        distractors=(0, 1),
        hue_spread=0.6,
    ),
}
