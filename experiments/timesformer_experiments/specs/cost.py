"""Description of a model whose cost is measured without training: configuration, recipe and test protocol."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainSerializer, PlainValidator, ValidationError, field_validator, model_validator

from timesformer.config.registry import ModelConfig, read_config
from timesformer.data.fingerprint import content_hash
from timesformer.errors import InputError
from timesformer.evaluation.evaluate import protocol_named
from timesformer.training.recipe import Optimiser, Precision, Recipe
from timesformer_experiments.specs.data import Strict
from timesformer_experiments.specs.hashing import defining_fields, hash_of
from timesformer_experiments.specs.run import RunSpec, describe, load_scheme_file


class CostRecipe(Strict):
    """The fields of `Recipe` that decide what a step costs; others are no part of a cost."""

    batch_size: int = Field(default=1, ge=1)
    accumulate: int = Field(default=1, ge=1)
    precision: Precision = "fp32"
    optimiser: Optimiser = "sgd"
    gradient_checkpointing: bool = False

    @model_validator(mode="before")
    @classmethod
    def _of_a_cost(cls, values: Any) -> Any:
        """Tell fields that decide no cost from unknown ones."""
        if isinstance(values, dict):
            known = {field.name for field in fields(Recipe)} - set(cls.model_fields)
            for name in values:
                if name in known:
                    raise InputError(
                        f"{name}: it is no part of a cost: without `data` nothing is trained. Leave it out, or give "
                        f"the sweep its `data`; of a recipe, a cost has {', '.join(cls.model_fields)}"
                    )
        return values

    @classmethod
    def of(cls, recipe: Recipe) -> CostRecipe:
        """The same fields of a recipe."""
        return cls(**{name: getattr(recipe, name) for name in cls.model_fields})


class CostSpec(Strict):
    """A model to be counted and measured, not trained.

    model: fields of `TimeSformerConfig` or, with `baseline`, of `CnnConfig`.  recipe: batch, precision and optimiser.
    protocol: its views are those of `tflops_total`.  scheme_file: a Python file with an attention scheme of one's own.
    threads: torch's, where time is measured; no part of the hash.
    """

    kind: ClassVar[Literal["cost"]] = "cost"
    seed: ClassVar[None] = None
    init_from: ClassVar[None] = None
    processes: ClassVar[int] = 1

    name: str = Field(min_length=1)
    scheme_file: Path | None = None
    model: Annotated[
        ModelConfig,
        PlainValidator(lambda value: value),
        PlainSerializer(lambda config: config.to_dict(), return_type=dict),
    ]
    recipe: CostRecipe = CostRecipe()
    protocol: str = "paper"
    threads: int | None = Field(default=None, ge=1)

    @field_validator("model", mode="wrap")
    @classmethod
    def _model(cls, value: Any, _: Any, info: Any) -> ModelConfig:
        if info.data.get("scheme_file") is not None:
            load_scheme_file(info.data["scheme_file"])
        if isinstance(value, dict):
            value = read_config(value)
        if not isinstance(value, ModelConfig):
            raise InputError(f"expected fields of a model's configuration, got {value!r}")
        return value

    @field_validator("protocol")
    @classmethod
    def _protocol(cls, value: str) -> str:
        return protocol_named(value).name

    @property
    def batch(self) -> int:
        """Clips that a device holds at a time."""
        return self.recipe.batch_size // self.recipe.accumulate

    def definition(self) -> dict[str, Any]:
        """Everything that decides the cost."""
        if self.scheme_file is not None:  # a worker process has not read this file yet
            load_scheme_file(self.scheme_file)
        return {
            "kind": self.kind,
            "model": defining_fields(self.model),
            "recipe": self.recipe.model_dump(),
            "protocol": self.protocol,
            "scheme_file_sha256": None if self.scheme_file is None else content_hash(self.scheme_file),
        }

    def hash(self) -> str:
        """16 hexadecimal digits of the definition's sha256."""
        return hash_of(self.definition())

    @classmethod
    def parse(cls, values: Any, source: str | Path = "cost") -> CostSpec:
        """From plain data.  Raises InputError that names `source` and the field."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(describe(error, source)) from error

    @classmethod
    def of(cls, run: RunSpec) -> CostSpec:
        """Return the cost description of a run, for each of its processes."""
        recipe = CostRecipe.of(run.recipe)
        share = recipe.batch_size // run.processes
        return cls(
            name=run.name,
            scheme_file=run.scheme_file,
            model=run.model,
            recipe=recipe.model_copy(update={"batch_size": share}),
            protocol=run.protocol,
            threads=run.threads,
        )
