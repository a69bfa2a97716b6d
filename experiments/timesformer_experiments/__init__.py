"""Experiments: runs, records, tables and figures.  `load_results` reads the records of runs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timesformer_experiments.records.read import load_results

__all__ = ["load_results"]


def __getattr__(name: str) -> Any:
    """Imported when it is asked for: the command line does not wait for pandas."""
    if name == "load_results":
        from timesformer_experiments.records.read import load_results

        return load_results
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
