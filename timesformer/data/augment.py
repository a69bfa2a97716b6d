"""Augmentations of the pixels of a training clip: RandAugment and random colour jitter.

Random values are drawn once per clip: every frame gets the same operations at the same strength.  Statistics that an
operation needs (histograms, the mean grey) are computed over all frames together, so that clips do not flicker.

Frames are uint8 (t, H, W, 3), RGB.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from timesformer._typing import UInt8
from timesformer.errors import InputError

Frames = UInt8[np.ndarray, "t H W 3"]
GREY = (128, 128, 128)
"""Fill colour of areas outside the picture, as in the code of RandAugment's authors."""

MAX_MAGNITUDE = 30.0
JITTER_BRIGHTNESS, JITTER_FACTOR, JITTER_HUE = 32.0, 0.4, 0.2
"""Colour jitter: largest value added to every pixel (of 255), largest relative change of saturation and contrast
(factors 1 - 0.4 … 1 + 0.4), and largest change of the hue in turns.  Source: the defaults of DMVR, the video pipeline
of ViViT's authors."""


def _whole(change: Callable[[Image.Image], Image.Image]) -> Callable[[Frames], Frames]:
    """Apply a pixelwise operation to all frames as one tall picture, so that they share statistics."""

    def apply(frames: Frames) -> Frames:
        tall = Image.fromarray(np.ascontiguousarray(frames.reshape(-1, *frames.shape[2:])))
        return np.asarray(change(tall)).reshape(frames.shape)

    return apply


def _each(change: Callable[[Image.Image], Image.Image]) -> Callable[[Frames], Frames]:
    """Apply an operation that uses neighbouring pixels to each frame separately."""

    def apply(frames: Frames) -> Frames:
        return np.stack([np.asarray(change(Image.fromarray(np.ascontiguousarray(frame)))) for frame in frames])

    return apply


def _affine(frames: Frames, matrix: tuple[float, ...]) -> Frames:
    def change(image: Image.Image) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=GREY)

    return _each(change)(frames)


def _factor(strength: float) -> float:
    """Return the factor of an enhancement, at least 0.1; a factor of 1 leaves the picture unchanged."""
    return max(0.1, 1 + 0.9 * strength)


def _rotate(frames: Frames, strength: float) -> Frames:
    degrees = 30 * strength
    return _each(lambda image: image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=GREY))(frames)


def _solarise(frames: Frames, strength: float) -> Frames:
    threshold = max(0, round(256 * (1 - abs(strength))))
    return _whole(lambda image: ImageOps.solarize(image, threshold))(frames)


def _posterise(frames: Frames, strength: float) -> Frames:
    bits = max(1, 8 - round(4 * abs(strength)))
    return _whole(lambda image: ImageOps.posterize(image, bits))(frames)


def _translate_x(frames: Frames, strength: float) -> Frames:
    return _affine(frames, (1, 0, 0.45 * strength * frames.shape[2], 0, 1, 0))


def _translate_y(frames: Frames, strength: float) -> Frames:
    return _affine(frames, (1, 0, 0, 0, 1, 0.45 * strength * frames.shape[1]))


Operation = Callable[[Frames, float], Frames]
OPERATIONS: dict[str, Operation] = {
    "identity": lambda frames, _: frames,
    "auto_contrast": lambda frames, _: _whole(ImageOps.autocontrast)(frames),
    "equalise": lambda frames, _: _whole(ImageOps.equalize)(frames),
    "rotate": _rotate,
    "solarise": _solarise,
    "colour": lambda frames, s: _whole(lambda image: ImageEnhance.Color(image).enhance(_factor(s)))(frames),
    "posterise": _posterise,
    "contrast": lambda frames, s: _whole(lambda image: ImageEnhance.Contrast(image).enhance(_factor(s)))(frames),
    "brightness": lambda frames, s: _whole(lambda image: ImageEnhance.Brightness(image).enhance(_factor(s)))(frames),
    "sharpness": lambda frames, s: _each(lambda image: ImageEnhance.Sharpness(image).enhance(_factor(s)))(frames),
    "shear_x": lambda frames, s: _affine(frames, (1, 0.3 * s, 0, 0, 1, 0)),
    "shear_y": lambda frames, s: _affine(frames, (1, 0, 0, 0.3 * s, 1, 0)),
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
"""Operations of RandAugment (14 functions): (frames, strength) -> frames.

The strength is the magnitude divided by 10, with a random sign.  A strength of 1 gives AutoAugment's maximum: rotation
by 30 degrees, shear by 0.3, translation by 0.45 of the side (100 of 224 pixels), enhancement by a factor of 1 ± 0.9,
4 bits per colour, inversion of every pixel.  All operations become stronger with the magnitude (timm's `inc1`; in the
authors' code posterising and solarising become weaker).  They continue beyond a magnitude of 10 up to their limits: a
factor of 0.1, 1 bit.
"""


@dataclass(frozen=True)
class RandAugment:
    """`ops` operations one after the other, each drawn anew from all 14, at one `magnitude`.

    magnitude: 0 to 30; 10 is the strongest of AutoAugment's.  ViViT takes 2 operations at 15 for Epic-Kitchens and at
    20 for Something-Something-v2.

    Source: RandAugment, arXiv 1909.13719, section 3; AutoAugment, arXiv 1805.09501, table 6 (ranges).  Raises
    InputError naming the field.
    """

    ops: int = 2
    magnitude: float = 9.0

    def __post_init__(self) -> None:
        if not isinstance(self.ops, int) or isinstance(self.ops, bool) or self.ops < 1:
            raise InputError(f"randaugment.ops: expected an integer of at least 1, got {self.ops!r}")
        number = isinstance(self.magnitude, int | float) and not isinstance(self.magnitude, bool)
        if not number or not 0 <= self.magnitude <= MAX_MAGNITUDE:
            raise InputError(f"randaugment.magnitude: expected a number from 0 to 30, got {self.magnitude!r}")

    def __call__(self, frames: Frames, rng: np.random.Generator) -> Frames:
        """The augmented frames; the input is unchanged."""
        names = list(OPERATIONS)
        for _ in range(self.ops):
            name, sign = names[rng.integers(len(names))], 1 - 2 * int(rng.integers(2))
            frames = OPERATIONS[name](frames, sign * self.magnitude / 10)
        return frames


@dataclass(frozen=True)
class Augment:
    """Augmentation of a training clip's pixels after the crop: colour jitter, then RandAugment.

    colour_jitter: probability that brightness, saturation, contrast and hue of a clip are changed (0 disables it; ViViT
        uses 0.8 for Kinetics)

    Source: ViViT, arXiv 2103.15691, section 4.2 (the table of regularisation) and the hyperparameters in the appendix.
    Raises InputError naming the field.
    """

    randaugment: RandAugment | None = None
    colour_jitter: float = 0.0

    def __post_init__(self) -> None:
        number = isinstance(self.colour_jitter, int | float) and not isinstance(self.colour_jitter, bool)
        if not number or not 0 <= self.colour_jitter <= 1:
            raise InputError(f"colour_jitter: expected a probability from 0 to 1, got {self.colour_jitter!r}")

    def __bool__(self) -> bool:
        return self.randaugment is not None or self.colour_jitter > 0

    def __call__(self, frames: Frames, rng: np.random.Generator) -> Frames:
        """The augmented frames; the input is unchanged."""
        if self.colour_jitter and rng.random() < self.colour_jitter:
            frames = _jitter(frames, rng)
        return frames if self.randaugment is None else self.randaugment(frames, rng)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON and YAML."""
        return asdict(self)


def _jitter(frames: Frames, rng: np.random.Generator) -> Frames:
    """Change brightness, saturation, contrast and hue, in this order, by random amounts shared by all frames."""
    added = round(rng.uniform(-JITTER_BRIGHTNESS, JITTER_BRIGHTNESS))
    saturation, contrast = rng.uniform(1 - JITTER_FACTOR, 1 + JITTER_FACTOR, 2)
    turn = round(256 * rng.uniform(-JITTER_HUE, JITTER_HUE))

    def change(image: Image.Image) -> Image.Image:
        image = ImageEnhance.Color(image).enhance(float(saturation))
        image = ImageEnhance.Contrast(image).enhance(float(contrast))
        hue, *others = image.convert("HSV").split()
        turned = hue.point([(value + turn) % 256 for value in range(256)])
        return Image.merge("HSV", (turned, *others)).convert("RGB")

    brighter = np.clip(frames.astype(np.int16) + added, 0, 255).astype(np.uint8)
    return _whole(change)(brighter)
