"""Common form of a checkpoint of any format, between the file and the model."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from timesformer.config.registry import ModelConfig
from timesformer.errors import InputError
from timesformer.heads import Labels


class UnexplainedTensors(InputError):
    """A checkpoint holds tensors that its format does not know; `names` are their stored names."""

    def __init__(self, where: str | Path, format_name: str, names: Iterable[str]) -> None:
        self.names = tuple(sorted(names))
        more = f" and {len(self.names) - 5} more" if len(self.names) > 5 else ""
        super().__init__(
            f"{where}: {', '.join(self.names[:5])}{more}: no known use in a {format_name} checkpoint "
            "(strict=False leaves such tensors out)"
        )


@dataclass(frozen=True)
class Raw:
    """A checkpoint as it is stored: nothing renamed, nothing interpreted.

    path: the file or folder, for messages; config: the config.json beside the weights; tensors: by their stored names,
    nested containers flattened with dots; metadata: what the container holds beside them (FAIR's `cfg`, `epoch`; of a
    torch file also `container`, the key that held the tensors), and what lies beside them in a folder: `processors` of
    Hugging Face by the name of their file, our `provenance`.  num_heads: stated by whoever reads it, for files that do
    not say.  trust: whether code that the checkpoint brings, a user's attention scheme, may be run.
    """

    path: Path
    config: dict[str, Any] | None
    tensors: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)
    num_heads: int | None = None
    trust: bool = False

    def heads_of(self, width: int, head_width: int) -> tuple[int, str]:
        """The number of heads of a model of this width whose file does not say, and a note on where it is from.

        Raises InputError where none is stated and the width is no multiple of the usual width of a head.
        """
        if self.num_heads is not None:
            if self.num_heads < 1 or width % self.num_heads:
                raise InputError(f"{self.path}: num_heads {self.num_heads} does not divide the width {width}")
            return self.num_heads, f"not in the file: {self.num_heads} heads, as stated"
        if width % head_width:
            raise InputError(
                f"{self.path}: width {width}; expected a multiple of {head_width}, the width of a head, or num_heads "
                "to be stated, which the file does not say"
            )
        count = width // head_width
        return count, f"not in the file: {count} heads of {head_width} channels, as the published models have"


@dataclass(frozen=True)
class Source:
    """A checkpoint in our terms: `tensors` by the names of `build_model(config).state_dict()`.

    All steps of one name may be missing (they start from another step of their block), and so may the head; any other
    missing weight is an error.

    unused: stored names that are left out on purpose, with the reason; preprocessing and labels: None where the
    checkpoint does not carry them; assumed: fields of `config` that no file states, taken from the published models (a
    number of heads among them gives way to that of the model to start); notes: lines for the report; where: the file or
    folder, for messages.
    """

    format: str
    config: ModelConfig
    tensors: dict[str, Tensor]
    preprocessing: dict[str, Any] | None = None
    labels: Labels | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    where: str = "checkpoint"


@dataclass(frozen=True)
class Format:
    """A checkpoint format: `matches` tells it by its content, `read` translates.

    `read` raises UnexplainedTensors for tensors that it cannot explain, and InputError, naming file and field or
    tensor, for anything else that keeps it from a `Source`.
    """

    name: str
    matches: Callable[[Raw], bool]
    read: Callable[[Raw], Source]
