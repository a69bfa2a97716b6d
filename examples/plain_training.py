"""An ordinary PyTorch loop around the library: no run files, no records.

    python examples/plain_training.py                                      # on made-up videos
    python examples/plain_training.py --train train.csv --test test.csv    # `path label` on each line
    python examples/plain_training.py --train clips/train --test clips/test    # a folder per class

Measured on made-up videos: 52 s of CPU time on one core, making them included; accuracy 80.5 % (chance 12.5 %).
"""

import argparse
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.data import FrameCache, Preprocessing, VideoDataset, collate, read_annotations
from timesformer.data.probes import make_probe


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, help="csv of training videos, or a folder with a folder per class")
    parser.add_argument("--test", type=Path, help="the same for the test videos")
    parser.add_argument("--attention", default="divided", help="space, joint, divided, local_global, axial, …")
    parser.add_argument("--epochs", type=int, default=8, help="passes over the training videos")
    parser.add_argument("--videos", type=int, default=1024, help="number of made-up training videos")
    parser.add_argument("--data-dir", type=Path, default=Path(".cache"), help="folder of made-up videos and frames")
    parser.add_argument("--out", type=Path, default=Path("runs/plain"), help="folder of the trained model")
    given = parser.parse_args(arguments)
    if (given.train is None) != (given.test is None):
        parser.error("--train and --test belong together")
    return given


@torch.inference_mode()
def accuracy(model: TimeSformer, videos: VideoDataset) -> float:
    """Percentage of videos whose class is right, from one view of each."""
    model.eval()
    batches = DataLoader(videos, 64, collate_fn=collate)
    right = sum(int((model(batch["clip"][:, 0]).argmax(-1) == batch["label"]).sum()) for batch in batches)
    return 100 * right / len(videos)


def main(arguments: list[str] | None = None) -> float:
    """Train, save the model, and return its accuracy on the test videos in percent."""
    given = options(arguments)
    torch.manual_seed(0)
    if given.train is None:
        probe = make_probe("appearance", given.data_dir, num_train=given.videos, num_test=256)
        given.train, given.test = probe.train_csv, probe.test_csv
    format = "folder" if given.train.is_dir() else "kinetics"
    train = read_annotations(format, given.train)
    test = read_annotations(format, given.test, labels=train.labels)  # the same classes
    classes = 1 + max(sample.label for sample in train)
    size = {"num_frames": 4, "image_size": 32, "patch_size": 8, "embed_dim": 96, "depth": 3, "num_heads": 4}
    model = TimeSformer(TimeSformerConfig(given.attention, num_classes=classes, position_std=1.0, time_std=1.0, **size))
    record, cache = Preprocessing(num_frames=4, short_side=40, crop=32), FrameCache(given.data_dir / "frames")
    videos = VideoDataset(train, record, train=True, flip=True, cache=cache)
    held_out = VideoDataset(test, record, train=False, cache=cache)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, given.epochs * -(-len(videos) // 16), pct_start=0.2)
    for epoch in range(given.epochs):
        model.train()
        keys = [(epoch, index) for index in torch.randperm(len(videos)).tolist()]  # each epoch draws other crops
        for batch in DataLoader(videos, 16, sampler=keys, collate_fn=collate):
            loss = cross_entropy(model(batch["clip"]), batch["label"])
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, accuracy {(found := accuracy(model, held_out)):.1f} %")
    model.save_pretrained(given.out, preprocessing=record.to_dict())
    return found


if __name__ == "__main__":
    main()
