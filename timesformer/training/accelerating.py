"""Set-up of accelerate for a training run."""

from pathlib import Path

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import DistributedDataParallelKwargs

from timesformer.errors import InputError


def make_accelerator(tracker: str | None, folder: Path) -> Accelerator:
    """Make an accelerator without mixed precision.

    accelerate sets its precision once for the whole process, whereas ours belongs to the recipe.
    """
    # Some schemes have parameters without a gradient (a class token that no step reads in the last block).
    kwargs = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    if tracker is None:
        return Accelerator(mixed_precision="no", kwargs_handlers=kwargs)
    known, installed = (
        sorted(str(getattr(kind, "value", kind)) for kind in kinds)
        for kinds in (LOGGER_TYPE_TO_CLASS, get_available_trackers())
    )
    if tracker not in known:
        raise InputError(f"tracker: unknown tracker {tracker!r}; expected one of {', '.join(known)}")
    if tracker not in installed:  # accelerate would warn in its own words, and drop it
        raise InputError(
            f"tracker: {tracker!r} is not installed (`pip install {tracker}`); installed here: "
            f"{', '.join(installed) or 'none'}"
        )
    try:
        accelerator = Accelerator(mixed_precision="no", log_with=tracker, project_dir=folder, kwargs_handlers=kwargs)
    except ValueError as error:
        raise InputError(f"tracker: {error}") from error
    if not accelerator.log_with:  # accelerate drops a missing tracker silently
        raise InputError(f"tracker: {tracker!r} is not installed")
    accelerator.init_trackers("training")
    return accelerator
