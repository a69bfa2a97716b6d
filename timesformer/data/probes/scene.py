"""Rendering of a probe's clips with numpy: all frames at once, with edges smoothed by distance.

Drawing happens in the colour space of the stored videos: YCbCr, with luma from 0 to 1 and chroma from -0.5 to 0.5.
"""

from dataclasses import dataclass

import numpy as np

from timesformer.data.probes.difficulty import Difficulty
from timesformer.data.probes.shapes import make_outline

FRAMES, SIZE = 16, 40
MARGIN = 8.0  # in the middle of a clip the main object's centre lies inside the models' centre crop of 32 x 32
MOTIONS = ("left", "right", "up", "down", "clockwise", "anticlockwise", "growing", "shrinking")
"""Classes of `motion`.  Each class with an even index and the next are time reversals of each other."""

HUE_BANDS = 96
Array = np.ndarray


@dataclass(frozen=True)
class Look:
    """Appearance of an object or background.

    Its `identity` occurs in one split only, its hue band in training only or in test and validation only.
    """

    identity: int
    hue: float  # radians in the plane of chroma

    @classmethod
    def draw(cls, rng: np.random.Generator, split: int, hues: tuple[float, float] = (0.0, 1.0)) -> "Look":
        """Draw a look for split 0 (training), 1 (test) or 2 (validation).

        Hues lie in alternating bands, of training and of the others.  Identities of training are even; those of test
        and validation are odd, small for test and large for validation.

        The hue is drawn from `hues`, in turns, and moved to the nearest band of the split.
        """
        unseen = min(split, 1)
        band = 2 * int(np.floor(rng.uniform(*hues) * HUE_BANDS / 2)) + unseen
        hue = np.mod(band + rng.uniform(0.05, 0.95), HUE_BANDS) * 2 * np.pi / HUE_BANDS
        identity = 2 * int(rng.integers(2**40)) + unseen + (2**41 if split == 2 else 0)
        return cls(identity=identity, hue=float(hue))

    def rng(self) -> np.random.Generator:
        """Return the generator for the look's details (texture, proportions), which depends on its identity only."""
        return np.random.default_rng(np.random.SeedSequence([self.identity]))


@dataclass(frozen=True)
class Track:
    """Trajectory of an object: arrays (t,) of centre (pixels), angle (radians) and radius (pixels)."""

    x: Array
    y: Array
    angle: Array
    radius: Array


@dataclass(frozen=True)
class Scene:
    """Rendered clip: luma (t, H, W) and chroma (t, H/2, W/2), uint8 in limited range, and the main object's mask."""

    luma: Array
    cb: Array
    cr: Array
    mask: Array  # bool (t, H, W)
    facts: dict[str, object]


def make_track(
    motion: str,
    rng: np.random.Generator,
    radius: tuple[float, float],
    margin: float,
    dial: Difficulty,
    frames: int = FRAMES,
) -> Track:
    """Draw a motion at constant speed through a random state in the middle of the clip.

    In the middle of the clip, the position (at least `margin` pixels from the frame's edges), the angle and the
    log-radius have the same distribution for all eight classes.  A motion and its opposite differ only in the sign of
    time.
    """
    room = SIZE - 2 * margin
    x, y = rng.uniform(0, room, 2)
    angle, phase = rng.uniform(0, 2 * np.pi), rng.uniform()
    speeds = {
        "shift": rng.uniform(*dial.shift_speed),
        "turn": rng.uniform(*dial.turn_speed),
        "grow": rng.uniform(*dial.growth_speed),
    }
    time = np.arange(frames) - (frames - 1) / 2
    dx = {"left": -1, "right": 1}.get(motion, 0) * speeds["shift"]
    dy = {"up": -1, "down": 1}.get(motion, 0) * speeds["shift"]
    # y points down, so a growing angle turns clockwise on the screen.
    turn = {"clockwise": 1, "anticlockwise": -1}.get(motion, 0) * speeds["turn"]
    grow = {"growing": 1, "shrinking": -1}.get(motion, 0) * speeds["grow"]
    low, high = radius
    return Track(
        x=margin + x + dx * time,
        y=margin + y + dy * time,
        angle=angle + turn * time,
        radius=low * (high / low) ** (phase + grow * time),
    )


def paint(canvas: Array, track: Track, family: str, look: Look, luma: float) -> Array:
    """Draw an object into canvas (t, 3, H, W).  Return the covered fraction of each pixel, (t, H, W)."""
    rng = look.rng()
    outline = make_outline(family, rng)
    # Compute only a window around the centre: no outline extends beyond 2 radii.
    window = min(2 * int(np.ceil(2 * track.radius.max() + 1)) + 1, SIZE)
    steps = np.arange(window) - window // 2
    columns, rows = (np.floor(centre).astype(int)[:, None] + steps for centre in (track.x, track.y))
    dx = (columns + 0.5 - track.x[:, None]).astype(np.float32)
    dy = (rows + 0.5 - track.y[:, None]).astype(np.float32)
    radius = track.radius.astype(np.float32)[:, None, None]
    cos, sin = (f(track.angle).astype(np.float32)[:, None] / radius[:, 0] for f in (np.cos, np.sin))
    u = (cos * dx)[:, None, :] + (sin * dy)[:, :, None]
    v = (cos * dy)[:, :, None] - (sin * dx)[:, None, :]
    cover = np.clip(0.5 - outline(u, v) * radius, 0.0, 1.0)
    # What lies outside the frame is not seen; its indices are brought inside, where it paints nothing.
    cover *= ((rows >= 0) & (rows < SIZE))[:, :, None] & ((columns >= 0) & (columns < SIZE))[:, None, :]

    # Texture: a bright and a dark half with a wavy border (no rotation maps it onto itself), and stripes.
    wave, stripe_phase = (float(value) for value in rng.uniform(0, 2 * np.pi, 2))
    halves = np.tanh(4 * (u + 0.3 * np.sin(3 * v + wave)))
    direction, frequency = rng.uniform(0, np.pi), rng.uniform(3.0, 7.0)
    stripes = np.sin((frequency * np.cos(direction)) * u + (frequency * np.sin(direction)) * v + stripe_phase)
    pattern = 0.09 * halves + rng.uniform(0.0, 0.05) * stripes
    chroma, twist = rng.uniform(0.08, 0.22), rng.uniform(-0.5, 0.5)
    # The halves differ in hue too: the second is the first, rotated slightly in the plane of chroma.
    cb, cr = chroma * np.cos(look.hue), chroma * np.sin(look.hue)
    colour = (luma + pattern, cb - twist * cr * halves, cr + twist * cb * halves)
    places = (np.arange(len(canvas))[:, None, None], np.mod(rows, SIZE)[:, :, None], np.mod(columns, SIZE)[:, None, :])
    for plane, value in enumerate(colour):
        before = canvas[:, plane][places]
        canvas[:, plane][places] = before + cover * (value - before)
    covered = np.zeros((len(canvas), SIZE, SIZE), np.float32)
    covered[places] = cover
    return covered


def _interpolation(cells: int) -> Array:
    """Return the weights (SIZE, cells + 1) of linear interpolation from a coarse grid."""
    position = np.arange(SIZE) * cells / SIZE
    left = position.astype(int)
    weights = np.zeros((SIZE, cells + 1))
    weights[np.arange(SIZE), left] = 1 - (position - left)
    weights[np.arange(SIZE), left + 1] = position - left
    return weights


_COARSE, _FINE = _interpolation(4), _interpolation(10)


def _background(look: Look, luma: float, amplitude: float) -> Array:
    """Draw a background (3, H, W): smooth random patches at two scales and faint stripes around a mean luma."""
    rng = look.rng()
    coarse = _COARSE @ rng.standard_normal((3, 5, 5)) @ _COARSE.T
    fine = _FINE @ rng.standard_normal((3, 11, 11)) @ _FINE.T
    direction, frequency, phase = rng.uniform(0, np.pi), rng.uniform(0.3, 1.2), rng.uniform(0, 2 * np.pi)
    axis = np.arange(SIZE)
    stripes = np.sin(frequency * (np.cos(direction) * axis[None] + np.sin(direction) * axis[:, None]) + phase)
    texture = 0.6 * coarse + 0.4 * fine
    chroma = rng.uniform(0.02, 0.10)
    out = np.empty((3, SIZE, SIZE), np.float32)
    out[0] = luma + amplitude * (texture[0] - texture[0].mean() + 0.5 * rng.uniform() * stripes)
    out[1] = chroma * np.cos(look.hue) + 0.04 * texture[1]
    out[2] = chroma * np.sin(look.hue) + 0.04 * texture[2]
    return out


def _static(rng: np.random.Generator, radius: tuple[float, float]) -> Track:
    """Draw the position of a static object, as a track of one frame."""
    x, y = rng.uniform(0, SIZE, (2, 1))
    return Track(x=x, y=y, angle=rng.uniform(0, 2 * np.pi, 1), radius=rng.uniform(*radius, 1))


def _other_luma(rng: np.random.Generator, luma: float, contrast: tuple[float, float]) -> float:
    """Draw a brightness that differs from `luma` by a value within `contrast`, with random sign."""
    return float(np.clip(luma + rng.choice([-1.0, 1.0]) * rng.uniform(*contrast), 0.08, 0.92))


@dataclass(frozen=True)
class Stage:
    """Surroundings of the main object: canvas (t, 3, H, W), its mean luma, and distractors in front of the object."""

    canvas: Array
    luma: float
    in_front: list[tuple[Track, Look, float]]

    def cover(self, canvas: Array, mask: Array) -> Array:
        """Paint the distractors in front of the object.  Return the visible part of its mask, (t, H, W)."""
        for place, look, luma in self.in_front:
            mask = mask * (1 - paint(canvas, place, "blob", look, luma))
        return mask


def make_stage(background: Look, rng: np.random.Generator, split: int, dial: Difficulty, frames: int) -> Stage:
    """Draw background, clutter and the distractors behind the main object."""
    base = rng.uniform(0.42, 0.58) if dial.darker else rng.uniform(0.25, 0.42)
    still = _background(background, base, rng.uniform(*dial.background_contrast))[None]
    for _ in range(int(rng.integers(dial.clutter[0], dial.clutter[1] + 1))):
        luma = _other_luma(rng, base, dial.distractor_contrast)
        paint(still, _static(rng, dial.clutter_radius), "blob", Look.draw(rng, split), luma)
    canvas = np.repeat(still, frames, axis=0)

    in_front = []
    for _ in range(int(rng.integers(dial.distractors[0], dial.distractors[1] + 1))):
        item = (
            make_track(str(rng.choice(MOTIONS)), rng, dial.distractor_radius, 0.0, dial, frames),
            Look.draw(rng, split),
            _other_luma(rng, base, dial.distractor_contrast),
        )
        if rng.uniform() < 0.5 and dial.distractors_in_front:
            in_front.append(item)
        else:
            paint(canvas, item[0], "blob", item[1], item[2])
    return Stage(canvas, base, in_front)


def object_luma(base: float, rng: np.random.Generator, dial: Difficulty) -> float:
    """Draw the main object's brightness against a background of mean luma `base`."""
    contrast = rng.uniform(*dial.contrast) * (rng.choice([-1.0, 1.0]) if dial.darker else 1.0)
    return float(np.clip(base + contrast, 0.08, 0.92))


def to_planes(canvas: Array, rng: np.random.Generator, noise: float) -> tuple[Array, Array, Array]:
    """Add noise to a canvas (t, 3, H, W) and store it as video does: luma (t, H, W), chroma (t, H/2, W/2), uint8."""
    frames, _, height, width = canvas.shape
    if noise:
        canvas[:, 0] += noise * rng.standard_normal((frames, height, width), dtype=np.float32)
    # Chroma is stored for 2 x 2 pixels together.
    chroma = canvas[:, 1:].reshape(frames, 2, height // 2, 2, width // 2, 2).mean(axis=(3, 5))
    luma8 = np.clip(np.rint(16 + 219 * canvas[:, 0]), 16, 235).astype(np.uint8)
    chroma8 = np.clip(np.rint(128 + 224 * chroma), 16, 240).astype(np.uint8)
    return luma8, chroma8[:, 0], chroma8[:, 1]


def render(
    motion: str,
    family: str,
    rng: np.random.Generator,
    split: int,
    dial: Difficulty,
    hues: tuple[float, float] = (0.0, 1.0),
) -> Scene:
    """Draw a clip: background, clutter, distractors, the main object, distractors in front of it, noise.

    family: the main object's outline, one of `shapes.FAMILIES` or "blob"; hues: range of its hue, in turns
    split: 0 (training) or 1 (test), which selects the set of looks
    """
    background, main = Look.draw(rng, split), Look.draw(rng, split, hues)
    stage = make_stage(background, rng, split, dial, FRAMES)
    track = make_track(motion, rng, dial.object_radius, MARGIN, dial)
    mask = paint(stage.canvas, track, family, main, object_luma(stage.luma, rng, dial))
    mask = stage.cover(stage.canvas, mask)
    planes = to_planes(stage.canvas, rng, dial.noise)
    facts: dict[str, object] = {
        "motion": motion,
        "shape": family,
        "object": main.identity,
        "object_hue": round(main.hue, 6),
        "background": background.identity,
        "background_hue": round(background.hue, 6),
    }
    return Scene(*planes, mask > 0.5, facts)
