"""Small runs that train in a second."""

from timesformer_experiments.specs.run import RunSpec

SIZES = {"image_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}


def fields(**changes):
    """The fields of a small run on the motion probe."""
    values = {
        "name": "small",
        "data": {"probe": "motion", "num_train": 16, "num_test": 8, "preprocessing": {"short_side": 20}},
        "model": {"attention": "divided", "num_frames": 2, **SIZES},
        "recipe": {"steps": 4, "batch_size": 8},
        "protocol": "clip",
        "threads": 1,
    }
    return values | changes


def image(**changes):
    """An image model on stills of the appearance probe."""
    values = {
        "name": "image",
        "data": {"probe": "appearance", "num_train": 16, "num_test": 8, "stills": True},
        "model": {"attention": "space", "num_frames": 1, **SIZES},
    }
    return RunSpec.parse(fields(**(values | changes)))


def small(**changes):
    return RunSpec.parse(fields(**changes))
