"""Ways to run one TimeSformer on a CPU: ours, that of transformers, and inference engines on an export of the latter.

All of them hold the same weights: transformers' model is drawn at random, ours is read from its files, and the engines
read an ONNX graph of it.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.checkpoints.graphs import quiet
from timesformer.evaluation.forward import computing, forward_only
from timesformer.models.packed import PackedLinear
from timesformer.training.recipe import Precision

Direction = Literal["inference", "training"]
HUGGING_FACE_NAMES = {"divided": "divided_space_time", "joint": "joint_space_time"}
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
OPSET: dict[Precision, int | None] = {"fp32": None, "bf16": 22}
"""Version of ONNX's operators: the exporter's own, and the first in which a convolution may be in bf16."""
NEEDS = {
    "transformers": ("transformers",),
    "transformers_compiled": ("transformers",),
    "onnxruntime": ("transformers", "onnx", "onnxscript", "onnxruntime"),
    "openvino": ("transformers", "onnx", "onnxscript", "openvino"),
}
"""Packages that a way of running needs and that may be missing."""

Run = Callable[[], Tensor]
"""Function that runs once and returns logits (1, num_classes)."""


class NotInstalled(RuntimeError):
    """A package that a way of running needs is missing; the message names it."""


@dataclass(frozen=True)
class Sizes:
    """Size of the model; by default ViT-B/16 with 400 classes."""

    image_size: int = 224
    patch_size: int = 16
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    num_classes: int = 400


class _Logits(nn.Module):
    """Model of transformers that takes a clip in fp32 and returns logits in fp32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model.to(dtype), dtype

    def forward(self, clip: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=clip.to(self.dtype)).logits
        return logits.float()


class Workbench:
    """One clip, one set of weights, and every way to run them.

    attention: divided or joint.  clip: (1, t, c, H, W), standard normal.
    """

    def __init__(self, attention: str, num_frames: int, sizes: Sizes, threads: int) -> None:
        self.attention, self.num_frames, self.sizes, self.threads = attention, num_frames, sizes, threads
        generator = torch.Generator().manual_seed(0)
        self.clip = torch.randn(1, num_frames, 3, sizes.image_size, sizes.image_size, generator=generator)
        self._folder = tempfile.TemporaryDirectory()
        self.folder = Path(self._folder.name)

    def close(self) -> None:
        """Delete the files of this workbench."""
        self._folder.cleanup()

    @cached_property
    def theirs(self) -> nn.Module:
        """The model of transformers, in evaluation mode; raises NotInstalled."""
        require("transformers")
        from transformers import TimesformerConfig, TimesformerForVideoClassification

        torch.manual_seed(0)
        sizes: dict[str, Any] = {
            "attention_type": HUGGING_FACE_NAMES[self.attention],
            "num_frames": self.num_frames,
            "image_size": self.sizes.image_size,
            "patch_size": self.sizes.patch_size,
            "hidden_size": self.sizes.embed_dim,
            "num_hidden_layers": self.sizes.depth,
            "num_attention_heads": self.sizes.num_heads,
            "intermediate_size": 4 * self.sizes.embed_dim,
            "num_labels": self.sizes.num_classes,
        }
        return TimesformerForVideoClassification(TimesformerConfig(**sizes)).eval()

    @cached_property
    def ours(self) -> TimeSformer:
        """Our model in evaluation mode, with the weights of `theirs`; without transformers, with weights of its own."""
        try:
            require("transformers")
        except NotInstalled:
            torch.manual_seed(0)
            fields = {"attention": self.attention, "num_frames": self.num_frames, **asdict(self.sizes)}
            return TimeSformer(TimeSformerConfig(**fields)).eval()
        folder = self.folder / "weights"
        self.theirs.config.save_pretrained(folder)  # type: ignore[operator, union-attr]
        save_file(self.theirs.state_dict(), folder / "model.safetensors")
        log = logging.getLogger("timesformer")
        level = log.level
        log.setLevel(logging.ERROR)  # no notes on the licence of released weights: these are random
        try:
            return TimeSformer.from_pretrained(folder).eval()
        finally:
            log.setLevel(level)

    def prepare(self, side: str, precision: Precision, direction: Direction) -> Run:
        """Return the function that runs a side once: a forward pass in evaluation mode, or a training step.

        Training: forward, cross-entropy, backward and plain SGD; with bf16 under autocast.

        Raises:
            NotInstalled: a package is missing.
            Exception: what the engine raises where it cannot run the model.
        """
        require(side)
        if direction == "training":
            return self._training(side, precision)
        run: Run = getattr(self, f"_{side}")(precision)
        return run

    def _training(self, side: str, precision: Precision) -> Run:
        model = copy.deepcopy(self.ours) if side == "ours" else _Logits(copy.deepcopy(self.theirs), torch.float32)
        optimiser = torch.optim.SGD(model.train().parameters(), lr=1e-6)
        label = torch.zeros(1, dtype=torch.long)

        def step() -> Tensor:
            with computing(self.clip.device, precision):
                logits = model(self.clip)
            F.cross_entropy(logits.float(), label).backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            return logits.detach().float()

        return step

    def gradient(self, side: str, precision: Precision) -> Tensor:
        """Return the gradient of the cross-entropy with respect to the clip, (1, t, c, H, W)."""
        model = self.ours if side == "ours" else _Logits(self.theirs, torch.float32)
        clip = self.clip.clone().requires_grad_()
        with computing(clip.device, precision):
            logits = model(clip)
        (found,) = torch.autograd.grad(F.cross_entropy(logits.float(), torch.zeros(1, dtype=torch.long)), clip)
        return found

    def _ours(self, precision: Precision) -> Run:
        model = copy.deepcopy(self.ours).to(DTYPES[precision])
        return lambda: model(self.clip.to(DTYPES[precision])).float()

    def _fused(self, precision: Precision) -> Run:
        model = forward_only(self.ours, precision)

        def run() -> Tensor:
            with computing(self.clip.device, precision):
                logits: Tensor = model(self.clip)
            return logits.float()

        return run

    def _transformers(self, precision: Precision) -> Run:
        model = _Logits(copy.deepcopy(self.theirs), DTYPES[precision])
        return lambda: model(self.clip)

    def _transformers_compiled(self, precision: Precision) -> Run:
        """Compile every layer, all of which share one compilation."""
        torch._dynamo.reset()  # the number of compilations of one function is limited
        model = _Logits(copy.deepcopy(self.theirs), DTYPES[precision])
        for layer in model.model.timesformer.encoder.layer:  # type: ignore[union-attr]
            layer.compile(dynamic=False)
        return lambda: model(self.clip)

    def _graph(self, precision: Precision) -> Path:
        """Return the ONNX graph of transformers' model for this size of clip, made at the first call."""
        path = self.folder / precision / "model.onnx"
        if not path.is_file():
            path.parent.mkdir()
            model = _Logits(copy.deepcopy(self.theirs).requires_grad_(False), DTYPES[precision])
            with quiet(), torch.no_grad():
                torch.onnx.export(
                    model,
                    (self.clip,),
                    f=path,
                    dynamo=True,
                    opset_version=OPSET[precision],
                    input_names=["clip"],
                    verbose=False,
                )
        return path

    def _onnxruntime(self, precision: Precision) -> Run:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = self.threads, 3
        graph = str(self._graph(precision))
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return lambda: torch.from_numpy(session.run(None, {"clip": self.clip.numpy()})[0])

    def _openvino(self, precision: Precision) -> Run:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it starts a process when imported
        import openvino

        hints = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = openvino.Core().compile_model(str(self._graph("fp32")), "CPU", hints)
        return lambda: torch.from_numpy(compiled(self.clip.numpy())[0].copy())

    def products(self, precision: Precision) -> dict[str, tuple[Callable[[], object], int]]:
        """Return the matrix products of one MLP on the tokens of the clip, and their multiply–accumulates.

        Two ways, as the faster one differs between processors: `linear` (PyTorch) and `packed` (oneDNN).
        """
        width, dtype = self.sizes.embed_dim, DTYPES[precision]
        tokens = self.num_frames * (self.sizes.image_size // self.sizes.patch_size) ** 2
        up, down = (nn.Linear(*shape).to(dtype).requires_grad_(False) for shape in _mlp(width))
        packed = PackedLinear(up), PackedLinear(down)
        x = torch.randn(tokens, width, dtype=dtype)
        macs = 2 * tokens * width * 4 * width
        return {"linear": (lambda: down(up(x)), macs), "packed": (lambda: packed[1](packed[0](x)), macs)}


def _mlp(width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (width, 4 * width), (4 * width, width)


def require(side: str) -> None:
    """Raise NotInstalled if a package is missing that a side needs."""
    missing = [name for name in NEEDS.get(side, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise NotInstalled(", ".join(missing))


def macs_of(model: nn.Module, clip: Tensor) -> int:
    """Count the multiply–accumulates of the matrix products that a forward pass on a CPU runs, by running it."""
    frozen = copy.deepcopy(model).requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_FLOPS) as counter:
        frozen(clip)
    return counter.get_total_flops() // 2


def _linear_flops(x: Any, weight: Any, *rest: object, out_shape: object = None, **more: object) -> int:
    return 2 * int(torch.Size(x).numel()) * int(weight[0])


def _attention_flops(q: Any, k: Any, v: Any, *rest: object, out_shape: object = None, **more: object) -> int:
    return 2 * int(torch.Size(q).numel()) * int(k[-2]) * 2


_FLOPS: dict[Any, Any] = {
    torch.ops.mkldnn._linear_pointwise: _linear_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
}
"""Operators that torch's counter does not know."""
