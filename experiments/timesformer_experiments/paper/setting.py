"""Settings of the runs on the probes, for Table 1 and all artefacts based on it: all tuned values in one place.

Two probes stand in for the paper's datasets. For each seed, an image model is trained on stills of `appearance`; the
video models are initialised from it, as the paper's models are from ImageNet weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from timesformer_experiments.paper.artefact import Profile

PROBES = {"appearance": "k400", "motion": "ssv2"}
NAMES_IN_THE_PAPER = {
    "k400": "K400",
    "k600": "K600",
    "ssv2": "SSv2",
    "diving48": "Diving-48",
    "howto100m": "HowTo100M",
    "epic_kitchens": "Epic-Kitchens",
}
FRAMES = 8
MIRRORED = ("appearance",)
READ: dict[str, dict[str, Any]] = {
    "order": {
        "data.video_frames": 32,
        "data.preprocessing": {"sampling": "dense", "frame_rate": 8},
        "protocol": "coverx1",
    },
    "detail": {"model.num_frames": 2, "model.position_std": 0.3, "model.time_std": 0.3},
}
"""Changes for further probes.  `order` is read like the paper's long videos, by clips laid end to end; its videos are
short, so that small models learn in few steps.  `detail` has few frames, and positions weak enough not to drown its
fine patterns."""


@dataclass(frozen=True)
class Setting:
    """Settings of a profile.

    `videos`: number of training and test videos of each probe. `recipes`: fields of `Recipe` for the image model and
    each probe.
    """

    seeds: int
    difficulty: str
    videos: dict[str, tuple[int, int]]
    recipes: dict[str, dict[str, Any]]
    model: dict[str, Any]


# Positions are initialised as strong as the patches. With the released values of 0.02 and 0, small models need many
# times as many steps to learn the positions of patches in space and time, and `motion` is about the order of the
# frames.
SMALL = {
    "image_size": 32,
    "patch_size": 8,
    "embed_dim": 96,
    "depth": 3,
    "num_heads": 4,
    "position_std": 1.0,
    "time_std": 1.0,
}
TINY = {"image_size": 32, "patch_size": 16, "embed_dim": 16, "depth": 1, "num_heads": 2}
ADAMW = {
    "optimiser": "adamw",
    "schedule": "onecycle",
    "warmup": 0.2,
    "lr": 1e-3,
    "weight_decay": 0.05,
    "clip_grad_norm": 1.0,
}
RECIPES = {
    "image": {**ADAMW, "steps": 600, "batch_size": 128},
    "appearance": {**ADAMW, "steps": 300, "batch_size": 16},
    "motion": {**ADAMW, "lr": 1.5e-3, "steps": 1600, "batch_size": 16},
    "mixture": {**ADAMW, "steps": 600, "batch_size": 16},
    "order": {**ADAMW, "lr": 5e-4, "steps": 1600, "batch_size": 16},
    "detail": {**ADAMW, "steps": 1200, "batch_size": 16},
}
SETTINGS: dict[Profile, Setting] = {
    "smoke": Setting(
        seeds=1,
        difficulty="quick",
        videos={name: (32, 16) for name in RECIPES if name != "image"},
        recipes={name: {**ADAMW, "steps": 4 if name == "image" else 2, "batch_size": 8} for name in RECIPES},
        model=TINY,
    ),
    "quick": Setting(
        seeds=1,
        difficulty="quick",
        videos={
            "appearance": (3072, 512),
            "motion": (4096, 512),
            "mixture": (4096, 512),
            "order": (2048, 512),
            "detail": (2048, 512),
        },
        recipes={
            **RECIPES,
            "motion": {**RECIPES["motion"], "steps": 1300},
            "order": {**RECIPES["order"], "steps": 1200},
        },
        model=SMALL,
    ),
    "full": Setting(
        seeds=3,
        difficulty="full",
        videos={
            "appearance": (3072, 1024),
            "motion": (8192, 1024),
            "mixture": (8192, 1024),
            "order": (4096, 1024),
            "detail": (4096, 1024),
        },
        recipes=RECIPES,
        model=SMALL,
    ),
}


def image_fields(profile: Profile) -> dict[str, Any]:
    """Return the fields of the image model's run, without name and seed."""
    setting = SETTINGS[profile]
    train, test = setting.videos["appearance"]
    stills = {"probe": "appearance", "num_train": train, "num_test": test, "stills": True, "flip": True}
    return {
        "data": {**stills, "difficulty": setting.difficulty},
        "model": {**setting.model, "attention": "space", "num_frames": 1},
        "recipe": dict(setting.recipes["image"]),
    }


def video_fields(profile: Profile, probe: str) -> dict[str, Any]:
    """Return the fields of the run of divided attention on a probe, without name, seed and initialisation."""
    setting = SETTINGS[profile]
    train, test = setting.videos[probe]
    data = {"probe": probe, "num_train": train, "num_test": test, "flip": probe in MIRRORED}
    fields = {
        "data": {**data, "difficulty": setting.difficulty},
        "model": {**setting.model, "attention": "divided", "num_frames": FRAMES},
        "recipe": dict(setting.recipes[probe]),
    }
    return changed(fields, READ.get(probe, {}))


def image_name(profile: Profile, seed: int) -> str:
    """Return the name of Table 1's image model for a seed."""
    return f"table1-{profile}-image-s{seed}"


def video_name(profile: Profile, probe: str, seed: int) -> str:
    """Return the name of Table 1's run of divided attention on a probe."""
    return f"table1-{profile}-{probe}-divided-s{seed}"


def changed(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the fields with changed values at dotted paths (`model.position`); None removes a field."""
    found = copy.deepcopy(dict(fields))
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = copy.deepcopy(value)
    return found
