"""Plain training loop on accelerate that resumes exactly.

On a CPU with the same number of threads, a run that is killed and started again equals an undisturbed one bit for bit.
The order of the samples is keyed by seed and epoch, augmentation by seed, epoch and sample (in the dataset), mixup and
dropout by seed and micro-step, and the learning rate is a function of the step.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset

from timesformer.data import VideoDataset, collate
from timesformer.data.fingerprint import Fingerprint
from timesformer.data.loading import Collate, SampleStream, batches
from timesformer.errors import InputError
from timesformer.heads import cross_entropy, heads_of, is_right, predict
from timesformer.parallel import loaders
from timesformer.progress import OnStep, step_bar
from timesformer.seeding import seed_all
from timesformer.training.accelerating import make_accelerator
from timesformer.training.averaging import average_in, copied, holding, put
from timesformer.training.freezing import freeze_weights, rest_frozen, thaw
from timesformer.training.mixup import draw_mix
from timesformer.training.recipe import Recipe
from timesformer.training.sharding import Strategy, exchanging, shard
from timesformer.training.state import TrainingState, keep_videos, load_state, require_same_videos, save_state

log = logging.getLogger("timesformer")
REPORT_EVERY = 20
"""Number of steps between two reads of the loss; each read makes the accelerator wait."""


class TrainingDiverged(ArithmeticError):
    """Error of a loss that is not finite; the message names the step."""


@dataclass(frozen=True)
class FitResult:
    """Result of a training run.

    losses, accuracies: loss and accuracy (0 to 1) of each step's training clips; with mixup, accuracy is against the
        label of the clip with the larger share
    train_loss, train_top1_percent: means over the last tenth of the steps
    seconds: training time over all sessions of a resumed run
    resumed_from: step at which this session began
    unreadable: (path, reason) of the videos that were left out
    enlarged: indices of the samples that were resized beyond the short side until the crop fitted
    validation: metrics of each validation, with their step
    trained_params: parameters that took gradients
    steps: taken, fewer than the recipe has if `patience` ended training; kept_step: whose weights the model has
    """

    steps: int
    kept_step: int
    seconds: float
    clips_per_second: float
    losses: list[float]
    accuracies: list[float]
    train_loss: float
    train_top1_percent: float
    resumed_from: int
    unreadable: list[tuple[str, str]]
    validation: list[dict[str, Any]]
    enlarged: list[int]
    trained_params: int


def fit(
    model: nn.Module,
    dataset: Dataset[Any],
    recipe: Recipe,
    folder: str | Path,
    *,
    validation: Callable[[nn.Module], dict[str, Any]] | None = None,
    progress: bool | OnStep = True,
    tracker: str | None = None,
    tracker_folder: str | Path | None = None,
    strategy: Strategy = "ddp",
    collate: Collate = collate,
    videos: Fingerprint | None = None,
) -> FitResult:
    """Train `model` in place, resuming from the checkpoint in `folder` if there is one.

    dataset: `dataset[(epoch, index)]` is a pure function that returns `clip` (frames, channels, height, width), `label`
        and `index`
    collate: function that makes batches of these samples
    validation: function that is called with the model in evaluation mode every `recipe.validate_every` steps and at the
        end, and returns metrics; `top1_percent` decides where the recipe chooses by validation
    progress: True for a bar on standard error, or a function of (steps done, all steps, mean loss since the last call)
    tracker: name of one of accelerate's trackers, which logs into `tracker_folder` (by default `folder`)
    strategy: division of the work between several processes (accelerate's, started by its launcher, torchrun or
        `timesformer_experiments.run.distributed`): "ddp", each with a whole model, or "fsdp", each with a part of the
        parameters, gradients and optimiser state.  Checkpoints are whole in both cases, so that any number of processes
        can resume from them.
    videos: state of the video files, by default as the dataset finds it (`VideoDataset.fingerprint`); a checkpoint of
        other videos is not resumed

    Raises:
        InputError: the folder cannot be written or holds another run; the dataset is empty or unreadable; the recipe
            validates and there is no `validation`; the tracker is unknown or not installed.
        TrainingDiverged: the loss is not finite.
    """
    folder = Path(folder)
    accelerator = make_accelerator(tracker, Path(tracker_folder or folder))
    if videos is None and isinstance(dataset, VideoDataset):
        videos = dataset.fingerprint()
    loop = _Loop(model, dataset, recipe, folder, validation, accelerator, strategy, collate, videos)
    if 0 < loop.resumed_from < loop.steps and loop.accelerator.is_main_process:
        said = f"resumed from step {loop.resumed_from} of {loop.steps}, the checkpoint in {folder}"
        log.info(said)
        if progress is True:
            print(said, file=sys.stderr, flush=True)
    with step_bar("training", progress, loop.accelerator.is_main_process) as on_step:
        return loop.run(on_step)


class _Loop:
    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset[Any],
        recipe: Recipe,
        folder: Path,
        validation: Callable[[nn.Module], dict[str, Any]] | None,
        accelerator: Accelerator,
        strategy: Strategy,
        collate: Collate,
        videos: Fingerprint | None,
    ) -> None:
        if recipe.validate_every is not None and validation is None:
            raise InputError("validate_every: there is nothing to validate on")
        require_same_videos(folder, videos)
        self.videos, self.kept = videos, False
        self.dataset, self.recipe, self.folder = dataset, recipe, folder
        self.validation, self.collate = validation, collate
        self.num_samples = len(dataset)  # type: ignore[arg-type]
        self.steps = recipe.total_steps(self.num_samples)
        self.accelerator = accelerator
        self.tracker = bool(accelerator.log_with)
        self.heads = heads_of(model)
        device = self.accelerator.device
        self.model = model.to(device)
        if hasattr(model, "gradient_checkpointing"):
            switch: Any = model  # TimeSformer, or a user's model with the same attribute
            switch.gradient_checkpointing = recipe.gradient_checkpointing
        elif recipe.gradient_checkpointing:
            raise InputError(f"gradient_checkpointing: expected false, {type(model).__name__} does not support it")
        self.frozen = freeze_weights(model, recipe.freeze)  # before the optimiser is built, and before sharding
        self.sharded = strategy == "fsdp" and accelerator.num_processes > 1
        if self.sharded:  # before the optimiser is built: sharding replaces the parameters
            shard(model, device, accelerator.num_processes)
        self.optimiser = recipe.build_optimiser(model)
        self.parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        config = getattr(model, "config", None)
        self.defining = {
            "recipe": recipe.defining(),
            "model": config.to_dict() if config is not None else {},
            "num_samples": self.num_samples,
        }
        state = load_state(folder, model, self.optimiser, self.defining, device)
        self.state = state or TrainingState(0, 0.0, torch.full((2, self.steps), torch.nan, device=device))
        self.resumed_from = self.state.step
        if recipe.ema_decay and not self.state.average:
            self.state.average = copied(model)
        several = accelerator.num_processes > 1 and not self.sharded
        self.wrapped = accelerator.prepare_model(model) if several else model

    def run(self, on_step: OnStep) -> FitResult:
        state, steps = self.state, self.steps
        if state.step < steps and not self._ended():
            self._checkpoint()  # an unwritable folder fails now, not after hours
            loaded = self._batches(state.step)
            clock, reported = time.perf_counter(), state.step
            self._train_mode()
            for step in range(state.step, steps):
                self._step(step, loaded)
                state.step = step + 1
                if state.average:
                    average_in(state.average, self.model, state.step, self.recipe.ema_decay)
                last = state.step == steps
                validates = self._is_due(self.recipe.validate_every) or (last and self.validation is not None)
                saves = self._is_due(self.recipe.checkpoint_every) or last
                if validates or saves or self._is_due(REPORT_EVERY):
                    loss = self._look(reported)
                    on_step(state.step, steps, loss)
                    reported = state.step
                saves = saves or self._late(clock)
                if validates or saves:
                    state.seconds += time.perf_counter() - clock
                    if validates:
                        self._validate()
                    ended = self._ended()
                    if saves or ended:
                        self._checkpoint()
                    if ended:
                        break
                    clock = time.perf_counter()
        if self.tracker:
            self.accelerator.end_training()
        kept = state.best or state.average
        if kept:
            put(kept, self.model)
        thaw(self.model, self.frozen)
        self.model.eval()
        return self._result()

    def _train_mode(self) -> None:
        self.wrapped.train()
        rest_frozen(self.model)

    def _is_due(self, every: int | None) -> bool:
        return every is not None and self.state.step % every == 0

    def _best(self) -> int | None:
        """Place of the first validation with the highest accuracy, None before any."""
        accuracies = [each["top1_percent"] for each in self.state.validation]
        return accuracies.index(max(accuracies)) if accuracies else None

    def _ended(self) -> bool:
        """True if the recipe's patience has run out."""
        patience = self.recipe.patience
        best = None if patience is None else self._best()
        return best is not None and len(self.state.validation) - 1 - best >= (patience or 0)

    def _late(self, since: float) -> bool:
        """Return True if the last checkpoint is too long ago; several processes ask the first one, now and then."""
        late = time.perf_counter() - since > 60 * self.recipe.checkpoint_minutes
        if self.accelerator.num_processes == 1:
            return late
        if self.state.step % REPORT_EVERY:
            return False
        first = torch.tensor(float(late and self.accelerator.is_main_process), device=self.accelerator.device)
        return bool(self.accelerator.reduce(first, "sum") > 0)

    def _batches(self, step: int) -> Iterator[dict[str, Any]]:
        recipe, accelerator = self.recipe, self.accelerator
        stream = SampleStream(
            self.num_samples,
            recipe.seed,
            recipe.batch_size // recipe.accumulate,
            step * recipe.accumulate,
            self.steps * recipe.accumulate,
            accelerator.process_index,
            accelerator.num_processes,
        )
        pin_memory = accelerator.device.type == "cuda"
        workers = loaders(recipe.workers, accelerator.device, accelerator.num_processes)
        return batches(self.dataset, stream, self.collate, workers, pin_memory)

    def _step(self, step: int, loaded: Iterator[dict[str, Any]]) -> None:
        """Take one step of the optimiser, over `accumulate` micro-batches."""
        recipe, accelerator, curves = self.recipe, self.accelerator, self.state.curves
        rate = recipe.learning_rate(step, self.num_samples)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["lr_factor"]
        losses, hits = [], []
        for part in range(recipe.accumulate):
            batch = next(loaded)
            self.state.unreadable.update(batch.get("unreadable", ()))
            self.state.enlarged.update(batch.get("enlarged", ()))
            if len(batch["label"]) == 0:
                if accelerator.num_processes > 1:  # the others would wait forever for the gradients of this one
                    raise InputError(f"training set: every video of a part of step {step} is unreadable")
                continue
            clip = batch["clip"].to(accelerator.device, non_blocking=True)
            label = batch["label"].to(accelerator.device, non_blocking=True)
            keys = (step * recipe.accumulate + part, accelerator.process_index)
            mix = draw_mix(recipe.mixup_alpha, len(label), recipe.seed, *keys, device=accelerator.device)
            clip = mix.clips(clip)
            seed_all(recipe.seed, "micro-step", *keys)
            with self._sync(last=part == recipe.accumulate - 1):
                with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                    logits = self.wrapped(clip)
                loss_of = partial(cross_entropy, logits.float(), heads=self.heads, smoothing=recipe.label_smoothing)
                loss = mix.loss(loss_of, label)
                accelerator.backward(loss / recipe.accumulate)
            losses.append(loss.detach())
            hits.append(is_right(predict(logits.detach(), self.heads), mix.dominant(label)).float().mean())
        if not losses:
            raise InputError(f"training set: every video of step {step} is unreadable")
        curves[:, step] = torch.stack([_mean(losses), _mean(hits)])
        if recipe.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, recipe.clip_grad_norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def _sync(self, last: bool) -> AbstractContextManager[Any]:
        """Return a context in which several processes exchange gradients only in the last micro-batch of a step."""
        if self.sharded:
            return exchanging(self.wrapped, last)
        return nullcontext() if last else self.accelerator.no_sync(self.wrapped)

    def _look(self, since: int) -> float:
        """Return the mean loss of the steps after `since`.

        Raises:
            TrainingDiverged: one of these losses is not finite.
        """
        state = self.state
        losses = state.curves[0, since : state.step]
        mean = float(losses.mean())
        if mean != mean or mean in (float("inf"), -float("inf")):
            bad = since + int((~torch.isfinite(losses)).nonzero()[0])
            rate = self.recipe.learning_rate(bad, self.num_samples)
            raise TrainingDiverged(
                f"the loss of step {bad} (of {self.steps}) is {float(state.curves[0, bad])}, at a learning rate of "
                f"{rate:.3g}; try a smaller lr, warmup or clip_grad_norm"
            )
        if self.tracker:
            rate = self.recipe.learning_rate(state.step - 1, self.num_samples)
            self.accelerator.log({"train/loss": mean, "train/learning_rate": rate}, step=state.step)
        return mean

    def _validate(self) -> None:
        assert self.validation is not None
        state = self.state
        self.model.eval()
        with holding(state.average, self.model):
            metrics = self.validation(self.model)
        self._train_mode()
        state.validation.append({"step": state.step, **metrics})
        if self.recipe.keep == "best" and self._best() == len(state.validation) - 1:
            average = {name: value.clone() for name, value in state.average.items()}
            state.best = average or copied(self.model)
        if self.tracker:
            numbers = {f"validation/{k}": v for k, v in metrics.items() if isinstance(v, int | float)}
            self.accelerator.log(numbers, step=state.step)

    def _checkpoint(self) -> None:
        if self.accelerator.num_processes > 1:  # gradients are equal in all processes, losses are not
            self.state.curves = self.accelerator.reduce(self.state.curves, "mean")
        main = self.accelerator.is_main_process
        if main and self.videos is not None and not self.kept:
            keep_videos(self.folder, self.videos)
            self.kept = True
        if main or self.sharded:  # all processes take part in gathering the shards
            save_state(self.folder, self.state, self.model, self.optimiser, self.defining, write=main)
        self.accelerator.wait_for_everyone()

    def _result(self) -> FitResult:
        state = self.state
        losses, accuracies = state.curves[:, : state.step].cpu().double()
        tail = max(1, state.step // 10)
        best = self._best() if state.best else None
        return FitResult(
            steps=state.step,
            kept_step=state.step if best is None else state.validation[best]["step"],
            seconds=state.seconds,
            clips_per_second=state.step * self.recipe.batch_size / max(state.seconds, 1e-9),
            losses=losses.tolist(),
            accuracies=accuracies.tolist(),
            train_loss=float(losses[-tail:].mean()),
            train_top1_percent=100 * float(accuracies[-tail:].mean()),
            resumed_from=self.resumed_from,
            unreadable=sorted(state.unreadable.items()),
            validation=state.validation,
            enlarged=sorted(state.enlarged),
            trained_params=sum(parameter.numel() for parameter in self.parameters),
        )


def _mean(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean()
