"""Fields that a run takes over from the checkpoint that it starts from."""

from __future__ import annotations

from typing import Any

from timesformer.checkpoints import locate, settings_of
from timesformer.data import Preprocessing
from timesformer.errors import InputError


def continued(values: Any) -> Any:
    """A run's description, completed by its checkpoint's model and preprocessing.

    That is where `init_from` names a checkpoint and `model` is left out or names neither an attention scheme nor a
    baseline.  What the
    description states comes first; classes are the data's.

    Raises InputError for a checkpoint that cannot be read.
    """
    if not isinstance(values, dict) or not isinstance(values.get("init_from"), str):
        return values
    model, data = values.get("model") or {}, values.get("data")
    if not isinstance(model, dict) or {"attention", "baseline"} & set(model) or not isinstance(data, dict):
        return values
    source = values["init_from"]
    try:
        locate(source)
    except InputError:
        if "model" in values:
            return values  # another run's name; `resolve` tells
        raise
    config, record = settings_of(source, **{key: value for key, value in model.items() if key != "num_classes"})
    own = {key: value for key, value in config.to_dict().items() if key != "num_classes"}
    taken = Preprocessing.from_dict(record).defining()
    stated = data.get("preprocessing") or {}
    if isinstance(stated, dict):
        kept = {key: value for key, value in taken.items() if key not in ("num_frames", "crop")}
        data = data | {"preprocessing": kept | stated}
    return values | {"model": own | model, "data": data}
