"""Runs of `reproduce real`: the draws of a recipe for every model, and the final runs with the best one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from timesformer.checkpoints import settings_of
from timesformer.config.transformer import TimeSformerConfig
from timesformer.data import Preprocessing, read_annotations
from timesformer.data.transforms import short_side_size
from timesformer.data.video.open import open_video
from timesformer.errors import InputError
from timesformer_experiments.paper.artefact import Profile
from timesformer_experiments.paper.own_data.lists import Lists
from timesformer_experiments.paper.own_data.schemes import CNNS, SCHEMES, model_fields
from timesformer_experiments.specs.choice import Choice
from timesformer_experiments.specs.run import RunSpec
from timesformer_experiments.specs.tune import Space, Tune

TUNING_SEED = 100
"""Seed of the draws and of the runs that are tuned; no final run has it."""
NAME = "real"
JITTER = 1.15
"""Largest short side in training, in short sides of the test."""
RECIPE: dict[str, Any] = {
    "optimiser": "adamw",
    "schedule": "onecycle",
    "warmup": 0.2,
    "batch_size": 16,
    "clip_grad_norm": 1.0,
    "label_smoothing": 0.1,
    "weight_decay": 0.05,
}
OVER: dict[str, str] = {
    "recipe.lr": "loguniform(5e-5, 1e-3)",
    "recipe.weight_decay": "loguniform(0.01, 0.3)",
    "model.time_std": "loguniform(0.02, 0.2)",
}
"""Positions in time join tokens that are about 0.1 large after the middle block of a ViT of DINOv2's kind, and 0.35
after block 10: far stronger ones would drown them."""
NEW_RATE = 10.0
"""Factor of the learning rate of what starts from nothing: a transformer's classifier, and all of a CNN."""
MODEL: dict[str, Any] = {"time_std": 0.05, "drop_path_rate": 0.1, "standardise": True}
SMALL: dict[str, Any] = {
    "image_size": 32, "patch_size": 8, "embed_dim": 96, "depth": 2, "num_heads": 4,
    "position_std": 1.0, "time_std": 1.0,
}  # fmt: skip
"""Transformers that start from nothing: small, with positions as strong as the patches."""
OVER_FROM_NOTHING: dict[str, str] = {
    "recipe.lr": "loguniform(5e-4, 4e-3)",
    "recipe.weight_decay": "loguniform(0.05, 0.5)",
}


@dataclass(frozen=True)
class Setting:
    """Demands of a profile.  copies: random clips of each training video; draws: of a recipe; blocks: trained."""

    frames: int
    blocks: int
    copies: int
    draws: int
    seeds: int
    protocol: str
    recipe: dict[str, Any]


SETTINGS: dict[Profile, Setting] = {
    "smoke": Setting(2, 1, 1, 2, 1, "clip", {"steps": 2, "batch_size": 4}),
    "quick": Setting(8, 2, 4, 2, 1, "clip", {"epochs": 6}),
    "full": Setting(8, 2, 8, 4, 3, "3x1", {"epochs": 12}),
}


@dataclass(frozen=True)
class Study:
    """One's own videos, a checkpoint and what is compared on them.

    name: of the data; init_from: a checkpoint of an image model, which is not read where the lists say `from_nothing`;
    schemes: some of `SCHEMES`; seeds: of final runs.
    """

    name: str
    lists: Lists
    init_from: str
    profile: Profile
    schemes: tuple[str, ...] = tuple(SCHEMES)
    seeds: int | None = None
    setting: Setting = field(init=False)

    def __post_init__(self) -> None:
        for scheme in self.schemes:
            if scheme not in SCHEMES:
                raise InputError(f"--schemes {scheme}: expected some of {', '.join(SCHEMES)}")
        object.__setattr__(self, "setting", SETTINGS[self.profile])
        if not 0 < self.blocks <= self.depth <= self.start.depth:
            raise InputError(
                f"blocks, model.depth: expected blocks <= depth <= {self.start.depth}, the blocks of {self.init_from}, "
                f"got {self.blocks} and {self.depth}"
            )

    @property
    def blocks(self) -> int:
        """Number of the last blocks that are trained."""
        return self.depth if self.lists.from_nothing else self.lists.blocks or self.setting.blocks

    @property
    def depth(self) -> int:
        """Number of blocks: the checkpoint's, or the first ones of these."""
        depth: int = self.lists.model.get("depth", self.start.depth)
        return depth

    @property
    def tune(self) -> Tune:
        """Draws of a recipe, the same for every model."""
        usual = OVER_FROM_NOTHING if self.lists.from_nothing else OVER
        over = self.lists.over or {path: Space.parse(text) for path, text in usual.items()}
        return Tune(budget=self.setting.draws, over=over, seed=TUNING_SEED)

    @cached_property
    def _started(self) -> tuple[Any, dict[str, Any]]:
        if self.lists.from_nothing:
            return TimeSformerConfig.from_dict(SMALL | self.lists.model), {}
        return settings_of(self.init_from)

    @property
    def start(self) -> TimeSformerConfig:
        """Configuration of the checkpoint, or of a model of this size.  Raises InputError for one of no transformer."""
        config = self._started[0]
        if not isinstance(config, TimeSformerConfig):
            raise InputError(f"--init-from {self.init_from}: expected a video or image transformer")
        return config

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the models' images: the first training video's, at most the checkpoint's short side.

        Whole patches of it are taken.
        """
        given = self.lists.model.get("image_size")
        if given is not None:
            return (given, given) if isinstance(given, int) else (given[0], given[1])
        fields = self.lists.splits[self.lists.first]
        sample = read_annotations(fields.get("format", "kinetics"), fields["train"], fields.get("root"))[0]
        with open_video(sample) as file:
            height, width = file.frames([0]).shape[1:3]
        short = min(height, width, *self.start.height_width)
        height, width = short_side_size(height, width, short)
        patch = self.start.patch_size
        if min(height, width) < patch:
            raise InputError(f"{sample.place}: {height} x {width} pixels, less than a patch of {patch}")
        return height // patch * patch, width // patch * patch

    def draws(self, scheme: str) -> list[RunSpec]:
        """Return the runs of a model's draws, evaluated on the validation videos of the first split."""
        return [
            self._spec(scheme, self.lists.first, TUNING_SEED, values, f"draw{number}", evaluate_on="validation")
            for number, values in enumerate(self.tune.draws())
        ]

    def finals(self, scheme: str, choice: Choice) -> dict[tuple[str, int], RunSpec]:
        """Return the final runs of a model by split and seed, with the recipe that was chosen."""
        values = choice.fields(self.tune)
        selection = values.pop("selection")
        return {
            (split, seed): self._spec(scheme, split, seed, values, f"s{seed}", selection=selection)
            for split in self.lists.splits
            for seed in range(self.seeds or self.setting.seeds)
        }

    def _spec(self, scheme: str, split: str, seed: int, values: Mapping[str, Any], suffix: str, **more: Any) -> RunSpec:
        setting, cnn, new = self.setting, scheme in CNNS, self.lists.from_nothing
        usual = MODEL | ({name: SMALL[name] for name in ("position_std", "time_std")} if new else {})
        model = {
            key: value for key, value in (usual | self.lists.model).items() if key not in ("image_size", "num_frames")
        }
        frames = self.lists.model.get("num_frames", setting.frames)
        stem = self.depth - self.blocks
        recipe = RECIPE | setting.recipe | self.lists.recipe
        if not new:
            recipe = {"lr_scale": {"*" if cnn else "head.*": NEW_RATE}} | recipe
        if not cnn and not new:
            recipe |= {"freeze": {"blocks": stem}, "cache_stem": stem > 0}
        if "steps" in self.lists.recipe or "epochs" in self.lists.recipe:  # a budget of one's own
            gone = "epochs" if "steps" in self.lists.recipe else "steps"
            recipe.pop(gone, None)
        short = min(self.size)
        fields: dict[str, Any] = {
            "name": f"{NAME}-{self.profile}-{split}-{scheme}-{suffix}",
            "seed": seed,
            "data": {
                "jitter": (short, round(JITTER * short)),
                **({} if new else {"copies": setting.copies}),
                **self.lists.splits[split],
                "preprocessing": self._preprocessing() | self.lists.splits[split].get("preprocessing", {}),
            },
            "model": model_fields(scheme, self.start, frames, self.size, self.blocks, model),
            "recipe": recipe,
            "protocol": setting.protocol,
            "init_head": "fresh",
            **more,
        }
        if not cnn and not new:
            fields["init_from"] = self.init_from
        for path, value in values.items():
            part, name = path.split(".", 1)
            if not (cnn and part == "model"):
                fields[part] = fields[part] | {name: value}
        return RunSpec.parse(fields, f"{self.name}, {split}, {scheme}")

    def _preprocessing(self) -> dict[str, Any]:
        taken = Preprocessing.from_dict(self._started[1]).defining()
        return {key: value for key, value in taken.items() if key not in ("num_frames", "crop", "short_side")}


def labels_of(schemes: Sequence[str]) -> dict[str, str]:
    """Return the titles of models."""
    return {scheme: SCHEMES[scheme] for scheme in schemes}


def folder_of(study: Study, out: Path) -> Path:
    """Return the folder of a study's results."""
    return out / NAME / (study.name if study.profile == "full" else f"{study.name}-{study.profile}")
