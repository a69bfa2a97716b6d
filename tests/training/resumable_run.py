"""A small run with everything that could spoil a resume.  `resumable_run.py DATA FOLDER [STOP]`: waits before the
checkpoint of step STOP until it is killed."""

import sys
import time
from pathlib import Path

import torch

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.data import Augment, FrameCache, Preprocessing, RandAugment, VideoDataset, read_kinetics_csv
from timesformer.data.probes import make_probe
from timesformer.seeding import seed_all
from timesformer.training.loop import FitResult, fit
from timesformer.training.recipe import Recipe

STEPS = 14


def train(data: Path, folder: Path, stop: int = -1, workers: int = 2) -> FitResult:
    """20 videos in batches of 2 x 3 clips, so that batches straddle epochs; augmentation, mixup, dropout, drop path."""
    torch.set_num_threads(1)
    probe = make_probe("appearance", data, num_train=20, num_test=2, seed=1)
    dataset = VideoDataset(
        read_kinetics_csv(probe.train_csv),
        Preprocessing(num_frames=2, short_side=32, crop=16),
        train=True,
        jitter=(18, 40),
        flip=True,
        augment=Augment(RandAugment(2, 15), colour_jitter=0.5),
        seed=5,
        cache=FrameCache(data / "frames"),
    )
    seed_all("resumable run")
    sizes = {"num_frames": 2, "image_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    model = TimeSformer(TimeSformerConfig(num_classes=8, drop_rate=0.1, drop_path_rate=0.2, **sizes))
    recipe = Recipe(
        steps=STEPS,
        batch_size=6,
        accumulate=2,
        lr=0.01,
        clip_grad_norm=1.0,
        mixup_alpha=0.3,
        label_smoothing=0.1,
        workers=workers,
        checkpoint_every=4,
        seed=3,
    )

    def on_step(done: int, total: int, loss: float) -> None:
        print(done, flush=True)
        if done == stop:
            time.sleep(600)

    return fit(model, dataset, recipe, folder, progress=on_step)


if __name__ == "__main__":
    result = train(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else -1)
    print("resumed from", result.resumed_from, flush=True)
