"""Divided attention can solve `match` with two blocks, though no patch meets the one that it must be compared with:
weights written by hand.

The time step of the first block brings what a place shows in the other frame into free channels of its token.  The
space step compares what a token shows with what the others were brought, and fetches the place where they agree.  The
MLP turns pairs of places into votes for moves, and the class token averages them in the second block.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.data import read_kinetics_csv
from timesformer.data.cache import decode
from timesformer.data.probes import make_probe
from timesformer.data.probes.kinds.match import Match

GRID, CODE, PLACES, CLASSES = 4, 48, 16, 4
SHOWN, BROUGHT, PLACE, FOUND, FRAME, VOTES = np.split(np.arange(192), np.cumsum([CODE, CODE, PLACES, PLACES, 2]))
VOTES = VOTES[:CLASSES]
SHARP = 12.0


def by_hand(attention: str) -> TimeSformer:
    """A model of which every weight is zero but those that are set here."""
    model = TimeSformer(
        TimeSformerConfig(
            attention, num_frames=2, image_size=32, patch_size=8, num_classes=CLASSES, embed_dim=192, depth=2,
            num_heads=1, mlp_ratio=1, temporal_fc=False, position="space_time",
        )
    )  # fmt: skip
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "norm" not in name:
                value.zero_()
        encoder = model.encoders[0]
        # The mean of each cell and channel, without what all patches share.
        cells = torch.zeros(3, 4, 4, 3, 8, 8)
        for channel, row, column in np.ndindex(3, 4, 4):
            cells[channel, row, column, channel, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 0.25
        model.patch_embed.proj.weight[SHOWN] = cells.reshape(CODE, -1)
        model.patch_embed.proj.bias[SHOWN] = -0.2
        encoder.positions.space[1:, PLACE] = 4 * torch.eye(PLACES)
        encoder.positions.time[:, FRAME] = 4 * torch.eye(2)
        first, second = encoder.blocks
        time, space = first.steps["time"], first.steps["space"]
        _attend(time, (FRAME, SHARP * torch.eye(2)), (FRAME, torch.eye(2).flip(0)), (SHOWN, BROUGHT, 0.3))
        _attend(space, (SHOWN, 4 * SHARP * torch.eye(CODE)), (BROUGHT, torch.eye(CODE)), (PLACE, FOUND, 0.6))
        _vote(first.mlp)
        _attend(second.steps["space"], None, None, (VOTES, VOTES, 1.0))
        model.head.weight[:, VOTES] = torch.eye(CLASSES)
    return model.eval()


def _attend(
    step: nn.Module, query: tuple[np.ndarray, Tensor] | None, key: tuple[np.ndarray, Tensor] | None,
    value: tuple[np.ndarray, np.ndarray, float],
) -> None:  # fmt: skip
    """Compare channels of queries with channels of keys, and move channels of what is found to others."""
    width = step.proj.weight.shape[0]
    for part, side in enumerate((query, key)):
        if side is not None:
            channels, weights = side
            step.qkv.weight[part * width : part * width + len(channels), channels] = weights
    source, target, scale = value
    step.qkv.weight[2 * width : 2 * width + len(source), source] = torch.eye(len(source))
    step.proj.weight[target, : len(source)] = scale * torch.eye(len(source))


def _vote(mlp: nn.Module) -> None:
    """A unit for each frame, place and move: on where the token is there and has found the place that the move says."""
    unit = 0
    for frame, place, move in np.ndindex(2, PLACES, CLASSES):
        down, right = (part * (1 - 2 * frame) for part in Match().step(move))
        row, column = place // GRID + down, place % GRID + right
        if 0 <= row < GRID and 0 <= column < GRID:
            for channel in (FRAME[frame], PLACE[place], FOUND[GRID * row + column]):
                mlp.fc1.weight[unit, channel] = 1.0
            mlp.fc2.weight[VOTES[move], unit] = 1.0
            mlp.fc1.bias[unit] = -12.5  # between two of the three channels and all of them
            unit += 1


def test_weights_with_which_divided_attention_tells_the_moves(tmp_path: Path) -> None:
    info = make_probe("match", tmp_path, num_train=4, num_test=64, seed=11)
    samples = read_kinetics_csv(info.test_csv, num_classes=CLASSES)
    clips = torch.stack([torch.from_numpy(decode(sample.path).pixels.copy()) for sample in samples]).float()
    labels = torch.tensor([sample.label for sample in samples])
    with torch.no_grad():
        percent = 100 * float((by_hand("divided")((clips / 255 - 0.45) / 0.225).argmax(1) == labels).float().mean())
    assert percent > 95
