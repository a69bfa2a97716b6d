"""Models on disk, and models that start from other models."""

from timesformer.checkpoints.files import LoadedModel, load_model, read_tensors, save_model, write_atomic
from timesformer.checkpoints.transfer import TransferReport, transfer

__all__ = ["LoadedModel", "TransferReport", "load_model", "read_tensors", "save_model", "transfer", "write_atomic"]
