"""Recipe of a training run: frozen, validated, plain data; the learning rate is a pure function of the step."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from timesformer.errors import InputError
from timesformer.training.freezing import Freeze, plain_freeze, rates, read_freeze

Optimiser = Literal["sgd", "adamw"]
Schedule = Literal["steps", "cosine", "onecycle", "constant"]
Precision = Literal["fp32", "bf16"]
Decay = Literal["all", "matrices"]
Keep = Literal["last", "best"]

NOT_DEFINING = ("workers", "checkpoint_every", "checkpoint_minutes", "cache_stem")
"""Fields that change how a run is executed, but not its result (`cache_stem`: within rounding)."""
DEFINING_IF_SET: dict[str, Any] = {
    "mixup_alpha": 0.0,
    "ema_decay": 0.0,
    "keep": "last",
    "patience": None,
    "freeze": None,
    "layer_decay": 1.0,
    "lr_scale": {},
}
"""Fields that define a run only where they differ from this value, so that older runs keep their hash."""


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule, budget and batches of a training run.

    The budget is either `epochs` (passes over the training set, fractions allowed) or `steps` (of the optimiser).
    A step sees `batch_size` clips, in `accumulate` equal micro-batches one after the other.  Batches continue across
    the ends of epochs, so that every sample is seen equally often and all batches have the same size.

    lr: peak learning rate
    schedule: course of the learning rate
        "steps": lr * lr_factors[i] from lr_steps[i] on; lr_steps is in the unit of the budget (epochs or steps)
        "cosine": half a cosine from lr to lr * final_lr_factor
        "onecycle": half a cosine from lr / 25 up to lr, then half a cosine down to lr * final_lr_factor
        "constant": lr
    warmup: fraction of the budget in which the rate rises (linearly, except for "onecycle"); None: 0.3 for "onecycle",
        otherwise 0
    decay: "all" applies weight decay to all parameters, "matrices" exempts biases, norms, positions and class tokens
    label_smoothing: fraction of a target that is spread evenly over all classes
    mixup_alpha: each micro-batch is mixed with a permutation of itself, clips and targets alike, in proportions
        lambda : 1 - lambda with lambda from Beta(alpha, alpha); 0 for no mixing (mixup, arXiv 1710.09412)
    clip_grad_norm: maximum norm of the gradient, None for no clipping
    ema_decay: of an exponential moving average of the weights over the steps, which is then what is validated and kept;
        0 for none
    validate_every: steps between two validations, with one at the end; None for none
    keep: "last" keeps the weights of the last step, "best" those of the first validation with the highest accuracy
    patience: number of validations in a row without a higher accuracy after which training ends; None trains to the end
    freeze: the number of the first blocks, which stay as they are with what stands before them, or patterns of names of
        parameters that do (`timesformer.training.freezing`); None for nothing
    layer_decay: the learning rate of each layer divided by that of the layer after it; 1 for one rate
    lr_scale: (pattern of names, factor) pairs, in files a mapping, by which rates of parameters are multiplied
    cache_stem: the tokens after the frozen blocks are computed once for each clip and kept; the result is the same
        within rounding
    workers: number of processes that load data, None: chosen from the machine (`timesformer.parallel.loaders`)
    checkpoint_every, checkpoint_minutes: a checkpoint is written every so many steps, and after so many minutes without
        one (like `workers`, they do not change a result)

    Raises:
        InputError: an unknown or impossible value; the message names the field.
    """

    optimiser: Optimiser = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    nesterov: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.05
    decay: Decay = "matrices"
    schedule: Schedule = "onecycle"
    lr_steps: tuple[float, ...] = ()
    lr_factors: tuple[float, ...] = ()
    warmup: float | None = None
    final_lr_factor: float = 0.0
    epochs: float | None = None
    steps: int | None = None
    batch_size: int = 32
    accumulate: int = 1
    precision: Precision = "fp32"
    gradient_checkpointing: bool = False
    clip_grad_norm: float | None = None
    label_smoothing: float = 0.0
    mixup_alpha: float = 0.0
    ema_decay: float = 0.0
    validate_every: int | None = None
    keep: Keep = "last"
    patience: int | None = None
    freeze: Freeze | None = None
    layer_decay: float = 1.0
    lr_scale: tuple[tuple[str, float], ...] = ()
    cache_stem: bool = False
    seed: int = 0
    workers: int | None = None
    checkpoint_every: int = 200
    checkpoint_minutes: float = 5.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "freeze", read_freeze(self.freeze))
        if isinstance(self.lr_scale, dict):
            object.__setattr__(self, "lr_scale", tuple(self.lr_scale.items()))
        for name in ("betas", "lr_steps", "lr_factors"):
            if isinstance(getattr(self, name), list):  # as read from JSON or YAML
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, choices in (
            ("optimiser", get_args(Optimiser)),
            ("schedule", get_args(Schedule)),
            ("precision", get_args(Precision)),
            ("decay", get_args(Decay)),
            ("keep", get_args(Keep)),
        ):
            self._require(name, getattr(self, name) in choices, f"one of {', '.join(choices)}")
        for name in ("nesterov", "gradient_checkpointing", "cache_stem"):
            self._require(name, isinstance(getattr(self, name), bool), "true or false")
        self._number("lr", 0, math.inf, open_low=True)
        self._number("momentum", 0, 1)
        self._number("weight_decay", 0, math.inf)
        self._number("final_lr_factor", 0, 1)
        self._number("label_smoothing", 0, 1)
        self._number("mixup_alpha", 0, math.inf)
        self._number("layer_decay", 0, 1, open_low=True)
        scaled = isinstance(self.lr_scale, tuple) and all(
            isinstance(pattern, str) and isinstance(factor, int | float) and 0 < factor < math.inf
            for pattern, factor in self.lr_scale
        )
        self._require("lr_scale", scaled, "positive factors by pattern of parameters' names")
        self._require("cache_stem", not self.cache_stem or self.freeze is not None, "freeze beside it")
        mixed = "mixup_alpha 0: mixup mixes pixels, of which it keeps none"
        self._require("cache_stem", not (self.cache_stem and self.mixup_alpha), mixed)
        self._number("checkpoint_minutes", 0, math.inf, open_low=True)
        for name in ("warmup", "clip_grad_norm", "epochs"):
            if getattr(self, name) is not None:
                self._number(name, 0, 1 if name == "warmup" else math.inf, open_low=name != "warmup")
        self._require("betas", len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas), "two in [0, 1)")
        if (self.epochs is None) == (self.steps is None):
            raise InputError(
                f"epochs, steps: expected exactly one of them, got epochs={self.epochs!r} and steps={self.steps!r}"
            )
        self._number("ema_decay", 0, 1)
        self._require("ema_decay", self.ema_decay < 1, "a number below 1")
        for name in ("validate_every", "patience"):
            if getattr(self, name) is not None:
                self._integer(name, 1)
        if self.validate_every is None and self.chooses:
            raise InputError("keep, patience: nothing is validated; expected validate_every beside them")
        positive = ("batch_size", "accumulate", "checkpoint_every") + (("steps",) if self.steps is not None else ())
        for name in positive:
            self._integer(name, 1)
        for name in ("seed", "workers"):
            if getattr(self, name) is not None or name == "seed":
                self._integer(name, 0)
        if self.batch_size % self.accumulate:
            raise InputError(f"batch_size: expected a multiple of accumulate {self.accumulate}, got {self.batch_size}")
        if self.mixup_alpha and self.batch_size == self.accumulate:
            raise InputError(
                "mixup_alpha: mixup needs at least 2 clips per micro-batch, got batch_size / accumulate = 1"
            )
        if self.schedule == "steps":
            rising = all(a < b for a, b in zip(self.lr_steps, self.lr_steps[1:], strict=False))
            starts = bool(self.lr_steps) and self.lr_steps[0] == 0
            self._require("lr_steps", starts and rising, "increasing numbers that begin with 0")
            self._require("lr_factors", len(self.lr_factors) == len(self.lr_steps), "as many numbers as lr_steps has")
            self._require("lr_factors", all(factor >= 0 for factor in self.lr_factors), "no negative numbers")
        elif self.lr_steps or self.lr_factors:
            raise InputError(f"lr_steps, lr_factors: expected schedule 'steps' with them, got {self.schedule!r}")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise InputError(f"{name}: expected {expected}, got {getattr(self, name)!r}")

    def _integer(self, name: str, low: int) -> None:
        value = getattr(self, name)
        holds = isinstance(value, int) and not isinstance(value, bool) and value >= low
        self._require(name, holds, f"an integer of at least {low}")

    def _number(self, name: str, low: float, high: float, open_low: bool = False) -> None:
        value = getattr(self, name)
        holds = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        holds = holds and (low < value if open_low else low <= value) and value <= high
        limit = "" if high == math.inf else f" and at most {high}"
        self._require(name, holds, f"a number {'above' if open_low else 'of at least'} {low}{limit}")

    @classmethod
    def paper(cls) -> "Recipe":
        """Return the recipe of all released configurations of TimeSformer.

        It is SGD with Nesterov momentum, 15 epochs with batches of 64, a learning rate divided by 10 at epochs 11 and
        14, no warm-up and no clipping.  (Their drop path of 0.1 belongs to the model.)
        """
        return cls(
            optimiser="sgd",
            lr=0.005,
            momentum=0.9,
            nesterov=True,
            weight_decay=1e-4,
            decay="all",
            schedule="steps",
            lr_steps=(0, 11, 14),
            lr_factors=(1, 0.1, 0.01),
            epochs=15,
            batch_size=64,
            accumulate=8,
        )

    @property
    def chooses(self) -> bool:
        """True if validations decide which weights are kept or when training ends."""
        return self.keep == "best" or self.patience is not None

    def total_steps(self, num_samples: int) -> int:
        """Number of optimiser steps for a training set of `num_samples`, if `patience` does not end it before."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        # The tolerance keeps 0.1 * 640 / 64 at one step.
        return max(1, math.ceil(self.epochs * num_samples / self.batch_size - 1e-9))

    def learning_rate(self, step: int, num_samples: int) -> float:
        """Learning rate of step 0, 1, …; in the last step it has not quite reached its final value."""
        total = self.total_steps(num_samples)
        one_cycle = self.schedule == "onecycle"
        rise = total * (self.warmup if self.warmup is not None else 0.3 if one_cycle else 0.0)
        if step < rise:
            if one_cycle:
                return self.lr * (1 + (1 / 25 - 1) * _half_cosine(step / rise))
            return self.lr * (step + 1) / (rise + 1)
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "steps":
            position = step if self.epochs is None else step * self.batch_size / num_samples
            return self.lr * [f for at, f in zip(self.lr_steps, self.lr_factors, strict=True) if at <= position][-1]
        left = _half_cosine((step - rise) / max(1.0, total - rise))
        return self.lr * (self.final_lr_factor + (1 - self.final_lr_factor) * left)

    def build_optimiser(self, model: nn.Module) -> Optimizer:
        """Build the optimiser over all trainable parameters of `model`.

        Each group has `lr_factor`, by which the rate of a step is multiplied for it.

        Raises:
            InputError: the model has no trainable parameter, or cannot be given the rates that are asked for.
        """
        decayed, factors = self._decayed(model), rates(model, self.layer_decay, self.lr_scale)
        kinds = [
            (wanted, decay, factor)
            for wanted, decay in ((True, self.weight_decay), (False, 0.0))
            for factor in sorted(set(factors.values()), reverse=True)
        ]
        groups = [
            {
                "params": [
                    p for name, p in _trainable(model) if (name in decayed) == wanted and factors[name] == factor
                ],
                "weight_decay": decay,
                "lr_factor": factor,
            }
            for wanted, decay, factor in kinds
        ]
        groups = [group for group in groups if group["params"]]
        if not groups:
            raise InputError("model: expected at least one trainable parameter, got none")
        if self.optimiser == "sgd":
            nesterov = self.nesterov and self.momentum > 0
            return SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=nesterov)
        return AdamW(groups, lr=self.lr, betas=self.betas)

    def _decayed(self, model: nn.Module) -> set[str]:
        if self.decay == "all":
            return {name for name, _ in _trainable(model)}
        matrices = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        weights = {id(module.weight) for module in model.modules() if isinstance(module, matrices)}
        return {name for name, parameter in _trainable(model) if id(parameter) in weights}

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain data for JSON and YAML."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return plain | {"freeze": plain_freeze(self.freeze), "lr_scale": dict(self.lr_scale)}

    def defining(self) -> dict[str, Any]:
        """Return `to_dict()` without the fields that change no result."""
        return {
            key: value
            for key, value in self.to_dict().items()
            if key not in NOT_DEFINING
            and (key not in DEFINING_IF_SET or value != DEFINING_IF_SET[key])
            and (key != "validate_every" or self.chooses)
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """Rebuild a recipe from `to_dict`.

        Raises:
            InputError: an unknown field, or an impossible value; the message names the field.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(f"recipe: unknown field {unknown[0]!r}; expected one of {sorted(known)}")
        return cls(**values)


def _half_cosine(position: float) -> float:
    """Half a cosine, from 1 at position 0 to 0 at position 1."""
    return (1 + math.cos(math.pi * min(1.0, position))) / 2


def _trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
