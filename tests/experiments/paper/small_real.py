"""The profile `paper` with a model of a few weights: all else is as for the real datasets.

`small_real.py ARGUMENTS` runs the command line with it, in a process that a test may kill.
"""

import sys
from dataclasses import replace
from pathlib import Path

from timesformer import TimeSformerConfig
from timesformer.training.recipe import Recipe
from timesformer_experiments.cli.main import app
from timesformer_experiments.paper import datasets, real
from timesformer_experiments.paper.datasets import DATASETS
from timesformer_experiments.specs.run import RunSpec

SHAPE = {"image_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 16}
CLASSES = {"k400": 8, "ssv2": 4, "diving48": 3}


def main(arguments: list[str]) -> None:
    """Run the command line with the first model of each dataset, made small, and steps of one epoch."""
    small = {name: replace(DATASETS[name], classes=count) for name, count in CLASSES.items()}
    whole, every = real.run_of, real.rows_of

    def shrunk(name: str, row: real.Row, folder: Path, init_from: str) -> RunSpec:
        spec = whole(name, row, folder, init_from)
        fields = {**spec.model.to_dict(), **SHAPE, "num_classes": CLASSES[row.dataset]}
        recipe = replace(Recipe.paper(), epochs=1, lr_steps=(0, 0.7, 0.9), batch_size=2, accumulate=2, workers=0)
        data = spec.data.model_copy(update={"jitter": (36, 44)})
        update = {"model": TimeSformerConfig.from_dict(fields), "data": data}
        return spec.model_copy(update={**update, "recipe": replace(recipe, checkpoint_every=1)})

    datasets.DATASETS = real.DATASETS = small
    real.run_of = shrunk
    real.rows_of = lambda name: [row for row in every(name) if row.dataset in small and row.config.num_frames == 8]
    real._starts_from_vit_b = lambda config: True
    app(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
