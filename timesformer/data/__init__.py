"""Video files to clips: decoding, sampling, transforms, annotation formats, audit, and the synthetic probes."""

from timesformer.data.annotations import (
    READERS,
    Annotations,
    Sample,
    read_annotations,
    read_class_names,
    read_kinetics_csv,
)
from timesformer.data.augment import Augment, RandAugment
from timesformer.data.cache import FrameCache
from timesformer.data.dataset import Unreadable, VideoDataset, Views, collate
from timesformer.data.preprocessing import Preprocessing
from timesformer.data.sampling import dense_indices, uniform_indices
from timesformer.data.video.error import VideoError
from timesformer.data.video.open import FrameFolder, open_video
from timesformer.data.video.video import Video

__all__ = [
    "READERS",
    "Annotations",
    "Augment",
    "FrameCache",
    "FrameFolder",
    "Preprocessing",
    "RandAugment",
    "Sample",
    "Unreadable",
    "Video",
    "VideoDataset",
    "VideoError",
    "Views",
    "collate",
    "dense_indices",
    "open_video",
    "read_annotations",
    "read_class_names",
    "read_kinetics_csv",
    "uniform_indices",
]
