"""Models on disk and on the hub, in our format and in others', and models that start from other models."""

from timesformer.checkpoints.detect import FORMATS, read_source
from timesformer.checkpoints.exporting import export
from timesformer.checkpoints.folder import read_tensors, save_model, weights_sha256
from timesformer.checkpoints.head_rows import InitHead
from timesformer.checkpoints.load import LoadedModel, load_any_model, load_model, settings_of
from timesformer.checkpoints.raw import locate, stated_classes, weight_files
from timesformer.checkpoints.report import TransferReport
from timesformer.checkpoints.transfer import transfer

__all__ = [
    "FORMATS",
    "InitHead",
    "LoadedModel",
    "TransferReport",
    "export",
    "load_any_model",
    "load_model",
    "locate",
    "read_source",
    "read_tensors",
    "save_model",
    "settings_of",
    "stated_classes",
    "transfer",
    "weight_files",
    "weights_sha256",
]
