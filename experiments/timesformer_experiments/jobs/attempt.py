"""A unit of work of a sweep: a run or a cost, what is measured of it, and the cell of the sweep that it fills."""

from __future__ import annotations

import faulthandler
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from timesformer.config.registry import Model, build_model, macs_per_view
from timesformer.errors import InputError
from timesformer.evaluation.evaluate import protocol_named
from timesformer.progress import OnStep
from timesformer_experiments.records.log import LOG, now_utc, records_of
from timesformer_experiments.run.failures import CRASH_FILE, kind_of, reason_of
from timesformer_experiments.run.train import (
    Busy,
    claimed,
    record_failure,
    recorded,
    store_record,
    stored_record,
    train_and_evaluate,
)
from timesformer_experiments.specs.cost import CostSpec
from timesformer_experiments.specs.run import RunSpec, load_scheme_file

if TYPE_CHECKING:
    from timesformer_experiments.cost.memory import Device

Measure = Literal["accuracy", "params", "macs", "latency", "throughput", "memory"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
TIMED: tuple[Measure, ...] = ("latency", "throughput")
METRICS: dict[Measure, str] = {
    "accuracy": "top1_percent",
    "params": "params",
    "macs": "macs_per_view",
    "latency": "latency_seconds",
    "throughput": "clips_per_second",
    "memory": "memory_device",
}
"""For each measure the metric by which a record is seen to have it."""
WARM_UP, REPETITIONS = 1, 5


@dataclass(frozen=True)
class Job:
    """A run, or a cost, with what is measured and where it belongs.

    cell: values of the sweep's axes by dotted path; None for a run that is there only for others to start from.
    """

    spec: RunSpec | CostSpec
    measure: tuple[Measure, ...] = ("accuracy",)
    sweep: str | None = None
    cell: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """The run's."""
        return self.spec.name

    @property
    def belongs(self) -> dict[str, Any]:
        """`sweep` and `cell` of the record."""
        return {"sweep": self.sweep, "cell": self.cell}

    @property
    def source(self) -> RunSpec | None:
        """The run that it starts from."""
        return self.spec.init_from if isinstance(self.spec.init_from, RunSpec) else None

    @property
    def cost(self) -> CostSpec:
        """The cost side of it."""
        return CostSpec.of(self.spec) if isinstance(self.spec, RunSpec) else self.spec

    def hash(self) -> str:
        """That of the run or cost."""
        return self.spec.hash()

    def lacks(self, record: dict[str, Any]) -> tuple[Measure, ...]:
        """What is to be measured and is not in a record yet."""
        return tuple(measure for measure in self.measure if METRICS[measure] not in record["metrics"])

    def complete(self, record: dict[str, Any]) -> bool:
        """Whether a record of a finished run has all that is wanted of it."""
        unfiled = self.cell is not None and record.get("cell") != self.cell
        return not self.lacks(record) and not unfiled


def jobs_of(specs: Iterable[RunSpec]) -> dict[str, Job]:
    """Runs outside of any sweep, by hash."""
    return {spec.hash(): Job(spec) for spec in specs}


def attempt(
    job: Job,
    runs_dir: Path,
    data_dir: Path,
    *,
    progress: bool | OnStep = False,
    threads: int | None = None,
    since: int | None = None,
) -> dict[str, Any]:
    """The record of a job: that of before, or of a run made now, which may have failed.

    The run that it starts from is finished.  since: a place in the log from which on another process's failure counts
    as this one's outcome, so that two drivers do not fail the same run twice; None for not to look.

    Raises:
        Busy: another process is busy with it.
    """
    started_utc, began, log_size = now_utc(), time.perf_counter(), size_of_log(runs_dir)
    folder = runs_dir / job.hash()
    try:
        with claimed(folder, job.name):
            record = stored_record(job.spec, runs_dir)
            if record is not None and job.complete(record):
                return record
            if record is None and since is not None and (before := failed_since(job, runs_dir, since)) is not None:
                return before
            with crash_notes(folder):
                if record is None:
                    work = _work(job, runs_dir, data_dir, progress)
                    return recorded(job.spec, runs_dir, data_dir, threads, work, job.belongs)
                return _completed(job, record, runs_dir)
    except Busy:
        raise
    except Exception as error:  # recorded already, unless it came before the work or the disk was full
        before = failed_since(job, runs_dir, log_size)
        return before or failed(job, runs_dir, data_dir, error, started_utc, time.perf_counter() - began)


def size_of_log(runs_dir: Path) -> int:
    """Bytes of the log of records, 0 where there is none."""
    log = runs_dir / LOG
    return log.stat().st_size if log.exists() else 0


def failed_since(job: Job, runs_dir: Path, since: int) -> dict[str, Any] | None:
    """The last failure of a job in the log from byte `since` on."""
    found = [record for record in records_of(runs_dir / LOG, job.hash(), since) if record["outcome"] == "failed"]
    return found[-1] if found else None


def failed(
    job: Job, runs_dir: Path, data_dir: Path, error: BaseException, started_utc: str = "", seconds: float = 0.0
) -> dict[str, Any]:
    """The record of a failure; where not even that can be written, it is at least returned."""
    reason, kind, at = reason_of(error), kind_of(error), started_utc or now_utc()
    try:
        return record_failure(job.spec, runs_dir, data_dir, reason, kind, at, seconds, job.belongs)
    except (InputError, OSError):
        return {
            "hash": job.hash(),
            "name": job.name,
            "outcome": "failed",
            "reason": reason,
            "reason_kind": kind,
            "metrics": {},
            "unwritten": True,
            **job.belongs,
        }


def _work(job: Job, runs_dir: Path, data_dir: Path, progress: bool | OnStep) -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        counted = measured(job.cost, job.measure)  # first: it takes seconds, the training perhaps days
        if not isinstance(job.spec, RunSpec) or "accuracy" not in job.measure:
            return {"metrics": counted}
        details = train_and_evaluate(job.spec, runs_dir / job.hash(), runs_dir, data_dir, progress)
        return {**details, "metrics": {**details["metrics"], **counted}}

    return work


def _completed(job: Job, record: dict[str, Any], runs_dir: Path) -> dict[str, Any]:
    """A finished run's record with what it lacked."""
    more = measured(job.cost, job.lacks(record))
    whole = {**record, **job.belongs, "metrics": {**record["metrics"], **more}}
    store_record(whole, runs_dir)
    return whole


@contextmanager
def crash_notes(folder: Path) -> Iterator[None]:
    """Should this process die of a fault in native code, the Python stack is left in the folder."""
    path = folder / CRASH_FILE
    before = faulthandler.is_enabled()
    try:
        notes = path.open("w")
    except OSError:  # a full disk: the run will say so
        yield
        return
    with notes:
        faulthandler.enable(notes)
        try:
            yield
        finally:
            faulthandler.disable()
            if before and sys.__stderr__ is not None:
                faulthandler.enable(sys.__stderr__)  # sys.stderr may have been replaced by what is no file
            with suppress(OSError):
                path.unlink()


def measured(spec: CostSpec, measures: Sequence[Measure]) -> dict[str, Any]:
    """The cost side of a model, as metrics; nothing for `accuracy`.

    MACs of a scheme are counted from the declaration alone (`timesformer cost` counts them twice).
    """
    if spec.scheme_file is not None:
        load_scheme_file(spec.scheme_file)
    found: dict[str, Any] = {}
    if "params" in measures:
        with torch.device("meta"):
            model = build_model(spec.model)
        found["params"] = sum(parameter.numel() for parameter in model.parameters())
    if "macs" in measures:
        found |= _macs(spec)
    if "memory" in measures:
        found |= predicted_memory(spec)
    if any(measure in TIMED for measure in measures):
        found |= _timed(spec, measures)
    return found


def _macs(spec: CostSpec) -> dict[str, Any]:
    executed, views = macs_per_view(spec.model, kind="executed"), protocol_named(spec.protocol).views.per_video
    found: dict[str, Any] = {"macs_per_view": executed, "macs_needed": macs_per_view(spec.model, kind="needed")}
    if views is not None:  # where it depends on the video there is no such total
        found |= {"views": views, "tflops_total": executed * views / 1e12}
    return found


def predicted_memory(spec: CostSpec, device: Device = "cuda") -> dict[str, Any]:
    """Peak memory of a training step and of inference with the recipe's batch, and what the former consists of.

    device: whose memory.  Records have a GPU's, wherever they are made.
    """
    from timesformer_experiments.cost.memory import predict

    recipe = spec.recipe
    common: dict[str, Any] = {
        "batch": spec.batch,
        "precision": recipe.precision,
        "optimiser": recipe.optimiser,
        "device": device,
    }
    train = predict(spec.model, train=True, gradient_checkpointing=recipe.gradient_checkpointing, **common)
    inference = predict(spec.model, train=False, **common)
    parts = {
        f"train_{part}_bytes": getattr(train, f"{part}_bytes")
        for part in ("params", "gradients", "optimiser", "activations", "attention")
    }
    return {
        "memory_device": device,
        "memory_batch": spec.batch,
        "train_peak_memory_bytes": train.peak_bytes,
        **parts,
        "inference_peak_memory_bytes": inference.peak_bytes,
        "inference_attention_bytes": inference.attention_bytes,
    }


def _timed(spec: CostSpec, measures: Sequence[Measure]) -> dict[str, Any]:
    """Forward passes on this machine: seconds for one clip, clips a second in batches; medians of `REPETITIONS`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(spec.model).eval().to(device)
    found: dict[str, Any] = {}
    if "latency" in measures:
        found["latency_seconds"] = _seconds(model, spec, 1, device)
    if "throughput" in measures:
        found |= {"clips_per_second": spec.batch / _seconds(model, spec, spec.batch, device), "speed_batch": spec.batch}
    return found


def _seconds(model: Model, spec: CostSpec, batch: int, device: torch.device) -> float:
    config = spec.model
    clip = torch.randn(batch, config.num_frames, config.in_channels, *config.height_width, device=device)
    bf16 = spec.recipe.precision == "bf16"
    times = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for _ in range(WARM_UP + REPETITIONS):
            began = time.perf_counter()
            model(clip)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
    return statistics.median(times[WARM_UP:])
