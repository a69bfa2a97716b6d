"""Files of features, written row by row: parquet, npy, npz.

A row is a video, or a view of one.  `.parquet` has a column for each field.  `.npy` holds one array, and a `.json` file
beside it holds everything else.  `.npz` holds everything as arrays, none of them pickled.
"""

import json
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow
import pyarrow.parquet as parquet

from timesformer.data.annotations import Label
from timesformer.files import write_atomic

KEY = "timesformer"
"""Name of the metadata, which is JSON: a key of parquet's metadata, or an array of npz."""


@dataclass
class Rows:
    """Identity of rows: path as it was given, label (None where there is none), and for views clip and crop."""

    path: list[str] = field(default_factory=list)
    label: list[Label | None] = field(default_factory=list)
    clip: list[int] = field(default_factory=list)
    crop: list[int] = field(default_factory=list)

    def extend(self, other: "Rows") -> None:
        """Append the rows of `other`."""
        for name in ("path", "label", "clip", "crop"):
            getattr(self, name).extend(getattr(other, name))

    def columns(self) -> dict[str, list[Any]]:
        """Return the known fields: labels only if there are any, clip and crop only for views."""
        labelled = any(label is not None for label in self.label)
        known = {"path": True, "label": labelled, "clip": bool(self.clip), "crop": bool(self.crop)}
        return {name: getattr(self, name) for name, there in known.items() if there}


class Writer(Protocol):
    """Interface of a writer.

    `add` writes rows and their arrays batch by batch, `finish` completes the file with its metadata, and `abandon`
    closes an incomplete file.
    """

    def add(self, rows: Rows, arrays: dict[str, np.ndarray]) -> None: ...
    def finish(self, metadata: dict[str, Any]) -> None: ...
    def abandon(self) -> None: ...


class ParquetFile:
    """Writer of parquet, with columns path, label, clip and crop (of views), feature (list of float32)."""

    def __init__(self, path: Path, label_type: pyarrow.DataType | None, views: bool) -> None:
        fields = [("path", pyarrow.string())]
        fields += [] if label_type is None else [("label", label_type)]
        fields += [("clip", pyarrow.int32()), ("crop", pyarrow.int32())] if views else []
        self.schema = pyarrow.schema([*fields, ("feature", pyarrow.list_(pyarrow.float32()))])
        # With Arrow's own schema in the file, readers would ignore metadata that is added at the end.
        self.writer = parquet.ParquetWriter(path, self.schema, store_schema=False)

    def add(self, rows: Rows, arrays: dict[str, np.ndarray]) -> None:
        columns = vars(rows) | {"feature": list(arrays["features"])}
        self.writer.write_table(pyarrow.table({name: columns[name] for name in self.schema.names}, self.schema))

    def finish(self, metadata: dict[str, Any]) -> None:
        self.writer.add_key_value_metadata({KEY: json.dumps(metadata, ensure_ascii=False)})
        self.writer.close()

    def abandon(self) -> None:
        self.writer.close()


class NpyStream:
    """npy file that grows row by row: float32 (rows, *shape)."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")
        self.shape: tuple[int, ...] | None = None
        self.rows = 0

    def add(self, values: np.ndarray) -> None:
        """Append values (n, *shape)."""
        if self.shape is None:
            self.shape = values.shape[1:]
            self.header = self._write_header()
        assert values.shape[1:] == self.shape
        self.file.write(np.ascontiguousarray(values, dtype="<f4").tobytes())
        self.rows += len(values)

    def finish(self) -> None:
        """Write the final header and close the file.

        numpy pads a header so that the number of rows can grow in place.
        """
        if self.shape is None:
            self.shape = (0,)
            self.header = self._write_header()
        self.file.seek(0)
        assert self._write_header() == self.header
        self.file.close()

    def _write_header(self) -> int:
        assert self.shape is not None
        described = {"descr": "<f4", "fortran_order": False, "shape": (self.rows, *self.shape)}
        np.lib.format.write_array_header_1_0(self.file, described)
        return self.file.tell()


class NpyFile:
    """Writer of one npy array, with rows and metadata in a JSON file beside it, which is written last."""

    def __init__(self, path: Path, array: str, beside: Path) -> None:
        self.stream, self.array, self.beside, self.rows = NpyStream(path), array, beside, Rows()

    def add(self, rows: Rows, arrays: dict[str, np.ndarray]) -> None:
        self.rows.extend(rows)
        self.stream.add(arrays[self.array])

    def finish(self, metadata: dict[str, Any]) -> None:
        self.stream.finish()
        text = json.dumps({"array": self.array, **metadata, "rows": self.rows.columns()}, ensure_ascii=False, indent=1)
        write_atomic(self.beside, text + "\n")

    def abandon(self) -> None:
        self.stream.file.close()


class NpzFile:
    """Writer of npz: each array, path, label, clip, crop, and the metadata as JSON text.

    The file is not compressed, so that it can be memory-mapped.
    """

    def __init__(self, path: Path, arrays: Sequence[str], beside: Path) -> None:
        self.path, self.rows = path, Rows()
        beside.parent.mkdir(parents=True, exist_ok=True)
        self.folder = tempfile.TemporaryDirectory(dir=beside.parent, prefix=f".{beside.name}.")
        self.streams = {name: NpyStream(Path(self.folder.name) / f"{name}.npy") for name in arrays}

    def add(self, rows: Rows, arrays: dict[str, np.ndarray]) -> None:
        self.rows.extend(rows)
        for name, stream in self.streams.items():
            stream.add(arrays[name])

    def finish(self, metadata: dict[str, Any]) -> None:
        with zipfile.ZipFile(self.path, "w", zipfile.ZIP_STORED) as archive:
            for name, stream in self.streams.items():
                stream.finish()
                archive.write(Path(self.folder.name) / f"{name}.npy", f"{name}.npy")
            small = {name: np.array(values) for name, values in self.rows.columns().items()}
            small[KEY] = np.array(json.dumps(metadata, ensure_ascii=False))
            for name, values in small.items():
                with archive.open(f"{name}.npy", "w") as file:
                    np.lib.format.write_array(file, values, allow_pickle=False)
        self.folder.cleanup()

    def abandon(self) -> None:
        for stream in self.streams.values():
            stream.file.close()
        self.folder.cleanup()
