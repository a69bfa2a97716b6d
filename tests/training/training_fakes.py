"""A tiny dataset and model with the interface of the real ones."""

import torch
from torch import nn
from torch.utils.data import Dataset

from timesformer.data import Sample, Unreadable, Views
from timesformer.seeding import derive_seed


class FakeDataset(Dataset):
    """Clips (2, 3, 4, 4) of noise around their class's brightness; keyed by (seed, epoch, index)."""

    def __init__(self, count=24, classes=3, train=True, views=None, unreadable=(), error=None):
        self.samples = [Sample(path=f"/nowhere/{i}.mp4", label=i % classes, name=f"{i}.mp4") for i in range(count)]
        self.train, self.views, self.unreadable, self.error = train, views or Views(), set(unreadable), error
        self.seen = []

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, key):
        epoch, index = (0, key) if isinstance(key, int) else key
        self.seen.append((epoch, index))
        if index in self.unreadable:
            if self.error is not None:
                raise self.error
            return Unreadable(f"/nowhere/{index}.mp4", "cut off", index)
        generator = torch.Generator().manual_seed(derive_seed(epoch, index))
        label = self.samples[index].label
        shape = (2, 3, 4, 4) if self.train else (self.views.clips * self.views.crops, 2, 3, 4, 4)
        clip = torch.randn(shape, generator=generator) * 0.3 + label
        return {"clip": clip, "label": label, "index": index}


class FakeModel(nn.Module):
    """A linear classifier of the mean colour and its square."""

    def __init__(self, classes=3, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(6, classes)

    def forward(self, clip):
        colour = clip.mean((1, 3, 4))
        return self.head(self.drop(torch.cat([colour, colour**2], 1)))


class Fixed(nn.Module):
    """Logits that are the clip's first pixels."""

    def __init__(self, classes):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.classes = classes

    def forward(self, clip):
        return self.scale * clip.flatten(1)[:, : self.classes]
