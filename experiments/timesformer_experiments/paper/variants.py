"""Variants of Table 1's run of divided attention: model at the paper's scale, and run on a probe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from timesformer.checkpoints.transfer import SHARED_FIELDS
from timesformer.config.registry import ModelConfig, read_config
from timesformer_experiments.paper.artefact import Profile
from timesformer_experiments.paper.setting import PROBES, changed, image_fields, image_name, video_fields, video_name
from timesformer_experiments.specs.run import RunSpec

SCHEME = "model.attention"
"""Path of the attention scheme in a variant's changes."""


@dataclass(frozen=True)
class Variant:
    """Row of a table, defined by its changes to Table 1's run of divided attention.

    key: name in the csv, in names of runs and in `values.yaml`. change: changed fields by dotted path. paper: fields of
    the model at the paper's scale, if they differ from `change`. share: share of the training videos. image: changes to
    the image model for initialisation, in addition to the fields that both share (width, depth, patch size, …); None
    trains from scratch. image_share: share of the stills for the image model. through: probe of a run of the same
    scheme between the image model and this run, or `other` for the other probe of `PROBES`. trained: False for a row
    that is only counted. skip: profiles in which the row is not trained, to save time, also for one probe
    (`quick/motion`).
    views: number of views of its cost at the paper's scale, if it differs from the table's. line, x, paper_x: curve and
    position on it, here and, if its scale differs, in the paper.
    """

    key: str
    label: str
    change: Mapping[str, Any] = field(default_factory=dict)
    paper: Mapping[str, Any] | None = None
    share: float = 1.0
    image: Mapping[str, Any] | None = field(default_factory=dict)
    image_share: float = 1.0
    through: str | None = None
    trained: bool = True
    skip: tuple[str, ...] = ()
    views: int | None = None
    line: str = ""
    x: float | None = None
    paper_x: float | None = None

    @property
    def changes_something(self) -> bool:
        """True if the run differs from Table 1's run of divided attention."""
        shares = self.share != 1 or self.image_share != 1
        return bool(self.change or self.image is None or self.image or self.through or shares)

    def is_run(self, profile: Profile, probe: str) -> bool:
        """Return True if the variant is trained on a probe in a profile."""
        return self.trained and not {profile, f"{profile}/{probe}"} & set(self.skip)

    def config(self, num_classes: int = 400) -> ModelConfig:
        """Return the model at the paper's scale; without changes, ViT-B at 8 x 224 x 224."""
        if self.paper is not None:
            return read_config({"num_classes": num_classes, **self.paper})
        models = {path.removeprefix("model."): value for path, value in self.change.items() if path[:6] == "model."}
        return read_config({"num_classes": num_classes, **models})


def run_of(artefact: str, variant: Variant, profile: Profile, probe: str, seed: int) -> RunSpec:
    """Return the run of a variant on a probe; without changes, Table 1's run."""
    fields = _part(changed(video_fields(profile, probe), variant.change), variant.share)
    own = f"{artefact}-{profile}-{probe}-{variant.key}-s{seed}"
    name = own if variant.changes_something or probe not in PROBES else video_name(profile, probe, seed)
    start = _start(artefact, variant, profile, probe, seed)
    return RunSpec.parse({"name": name, "seed": seed, **fields, **started(start)}, artefact)


def _start(artefact: str, variant: Variant, profile: Profile, probe: str, seed: int) -> dict[str, Any] | None:
    """Return the fields of the run from which a variant is initialised."""
    if variant.image is None:
        return None
    shared = {path: value for path, value in variant.change.items() if path.removeprefix("model.") in SHARED_FIELDS}
    changes = {**shared, **variant.image}
    special = bool(changes) or variant.image_share != 1
    name = f"{artefact}-{profile}-image-{variant.key}-s{seed}" if special else image_name(profile, seed)
    fields = _part(changed(image_fields(profile), changes), variant.image_share)
    image = {"name": name, "seed": seed, **fields}
    if not variant.through:
        return image
    other = next(name for name in PROBES if name != probe) if variant.through == "other" else variant.through
    scheme = {path: value for path, value in variant.change.items() if path == "model.attention"}
    own = special or scheme or other not in PROBES
    name = f"{artefact}-{profile}-{other}-before-s{seed}" if own else video_name(profile, other, seed)
    return {"name": name, "seed": seed, **changed(video_fields(profile, other), scheme), **started(image)}


def started(start: dict[str, Any] | None) -> dict[str, Any]:
    """Fields of a run that starts from another one, with its classifier where there are as many classes: so the
    committed records were made (motion runs start from the classifier of the appearance stills)."""
    return {"init_from": start, "init_head": "number"}


def _part(fields: dict[str, Any], share: float) -> dict[str, Any]:
    """Return the fields with a share of the training videos."""
    return changed(fields, {"data.num_train": round(fields["data"]["num_train"] * share)})
