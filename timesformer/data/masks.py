"""Object masks in the videos' folder: `masks.npz` with names (n,) and packed (n, t, H, W / 8)."""

from pathlib import Path

import numpy as np

from timesformer.errors import InputError


class MaskStore:
    """Store of object masks, which reads the masks.npz of each folder once."""

    def __init__(self) -> None:
        self._folders: dict[Path, tuple[dict[str, int], np.ndarray]] = {}

    def get(self, video: Path) -> np.ndarray:
        """Return the mask of every frame of a video: bool (t, H, W).  Raises InputError if there is none."""
        folder = video.parent
        if folder not in self._folders:
            file = folder / "masks.npz"
            if not file.is_file():
                raise InputError(f"{video}: no object mask: expected a file {file}")
            with np.load(file) as content:
                rows = {str(name): row for row, name in enumerate(content["names"])}
                self._folders[folder] = (rows, content["packed"])
        rows, packed = self._folders[folder]
        if video.name not in rows:
            raise InputError(f"{video}: no object mask with this name in {folder / 'masks.npz'}")
        return np.unpackbits(packed[rows[video.name]], axis=-1).astype(bool)
