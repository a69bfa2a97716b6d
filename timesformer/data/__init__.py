"""Video files to clips: decoding, sampling, transforms, annotation formats, audit, and the synthetic probes."""

from timesformer.data.annotations import READERS, Sample, read_annotations, read_kinetics_csv
from timesformer.data.cache import FrameCache
from timesformer.data.dataset import Unreadable, VideoDataset, Views, collate
from timesformer.data.preprocessing import Preprocessing
from timesformer.data.sampling import dense_indices, uniform_indices
from timesformer.data.video import Video, VideoError

__all__ = [
    "READERS",
    "FrameCache",
    "Preprocessing",
    "Sample",
    "Unreadable",
    "Video",
    "VideoDataset",
    "VideoError",
    "Views",
    "collate",
    "dense_indices",
    "read_annotations",
    "read_kinetics_csv",
    "uniform_indices",
]
