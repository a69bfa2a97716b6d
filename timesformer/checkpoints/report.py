"""Report on every weight of a checkpoint: copied, changed, initialised or left out."""

from dataclasses import dataclass, field

KINDS = ("copied", "inflated", "resized", "initialised", "left_out")


@dataclass
class TransferReport:
    """Weights by what became of them, under their names in the target (`left_out`: in the source).

    `copied`: same name and shape.  `inflated`: an attention step that the source lacks, started from the source's
    step.  `resized`: position embeddings and tubelets of another size.  `initialised`: kept as the new model made
    them.  `reasons`: why a weight was initialised or left out.  `notes`: whatever else was decided, a line each.
    `licence`: of the source's weights, where it is known.
    """

    copied: list[str] = field(default_factory=list)
    inflated: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    initialised: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    licence: str | None = None

    def counts(self) -> dict[str, int]:
        """The number of weights of each kind."""
        return {kind: len(getattr(self, kind)) for kind in KINDS}

    def __str__(self) -> str:
        lines = ["weights: " + ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in self.counts().items())]
        for kind in ("resized", "initialised", "left_out"):
            by_reason: dict[str, list[str]] = {}
            for name in getattr(self, kind):
                by_reason.setdefault(self.reasons.get(name, ""), []).append(name)
            for reason, names in by_reason.items():
                listed = ", ".join(names[:6]) + (f", … ({len(names)})" if len(names) > 6 else "")
                lines.append(f"  {kind}: {listed}" + (f" ({reason})" if reason else ""))
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])
