"""Every scheme and class policy, efficient path against dense oracle in float64: values and all gradients."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from tests.attention.custom import OVERS, SCHEMES, SHIPPED, random_inputs
from timesformer import InputError
from timesformer.attention import Mixer, Partition, Scheme, Step, attend, build, oracle
from timesformer.attention.backends import Backend
from timesformer.attention.scheme import CLASS_POLICIES, ClassPolicy

GRIDS = [(t, h, w) for t in (1, 3, 8) for h, w in ((1, 1), (4, 4), (5, 7), (9, 9))]
BACKENDS: tuple[Backend, ...] = ("reference", "sdpa")


def all_steps() -> dict[str, Step]:
    """One step for each neighbourhood that any scheme declares, the tests' own included."""
    schemes: list[Scheme] = [build(name) for name in SHIPPED] + SCHEMES
    steps = {step.over: step for scheme in schemes for encoder in scheme.encoders for step in encoder.steps}
    found: dict[str, Step] = {}
    for step in steps.values():
        found[step.name if step.name not in found else f"{step.name}_{len(found)}"] = step
    return found


STEPS = all_steps()


def cases() -> list[tuple[str, ClassPolicy]]:
    return [
        (name, policy)
        for name, step in STEPS.items()
        for policy in CLASS_POLICIES
        if policy != "replicated" or all(isinstance(over, Partition) for over in step.over)
    ]


def modules_of(step: Step, width: int, heads: int = 2) -> nn.ModuleDict:
    """Weights of the step's mixer for heads of this width."""
    torch.manual_seed(0)
    mixers = [over.modules(heads * width, heads) for over in step.over if isinstance(over, Mixer)]
    return (mixers[0] if mixers else nn.ModuleDict()).double()


def values_and_gradients(
    outputs: tuple[Tensor | None, Tensor | None], inputs: list[Tensor], step: Step
) -> list[Tensor]:
    """Patches, class token unless the step has none, and the gradient of every input."""
    assert [out is None for out in outputs] == [False, step.cls == "absent"]
    found = [out for out in outputs if out is not None]
    generator = torch.Generator().manual_seed(1)
    given = [torch.randn(out.shape, dtype=out.dtype, generator=generator) for out in found]
    gradients = torch.autograd.grad(found, inputs, given, allow_unused=True)
    return found + [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, gradients, strict=True)]


def check(step: Step, grid: tuple[int, int, int], backends: tuple[Backend, ...] = BACKENDS) -> None:
    qkv, cls = random_inputs(grid)
    modules = modules_of(step, 4)
    inputs = [qkv, cls, *modules.parameters()]
    expected = values_and_gradients(oracle(step, qkv, cls, modules=modules), inputs, step)
    for backend in backends:
        outputs = attend(step, qkv, cls, backend=backend, modules=modules)
        for ours, theirs in zip(values_and_gradients(outputs, inputs, step), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(("name", "policy"), cases())
def test_efficient_path_equals_oracle(name: str, policy: ClassPolicy, grid: tuple[int, int, int]) -> None:
    step = STEPS[name]
    check(Step(step.name, step.over, cls=policy), grid)


@pytest.mark.parametrize("policy", CLASS_POLICIES)
def test_heads_shared_between_parts(policy: ClassPolicy) -> None:
    time, space = (build("divided").encoders[0].step(name).over[0] for name in ("time", "space"))
    for grid in ((3, 5, 7), (8, 4, 4)):
        check(Step("both", (space, time), cls=policy), grid, ("sdpa",))
    three = Step("three", (space, time, OVERS["tubes"]), cls=policy)
    with pytest.raises(InputError, match="num_heads"):
        attend(three, *random_inputs((3, 5, 7)))


def test_strided_and_offset_inputs() -> None:
    step = build("local_global").encoders[0].step("local")
    qkv, cls = random_inputs((3, 5, 7))
    wide = torch.zeros(2, 3, 6, 9, 3, 2, 8, dtype=torch.float64)
    view = wide[:, :, 1:, 1:8, :, :, 3:7]
    view.copy_(qkv)
    assert not view.is_contiguous()
    for ours, theirs in zip(attend(step, view, cls), oracle(step, qkv, cls), strict=True):
        assert ours is not None
        assert theirs is not None
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_gradients_with_stride_zero() -> None:
    """The gradient of a sum is one expanded number."""
    step = build("local_global").encoders[0].step("global")
    qkv, cls = random_inputs((3, 5, 7))
    found = []
    for function in (attend, oracle):
        patches, token = function(step, qkv, cls)  # type: ignore[operator]
        found.append(torch.autograd.grad(patches.sum() + token.sum(), [qkv, cls]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_replicated_class_token_is_a_mean_over_groups_by_hand() -> None:
    """Two frames of one patch, one head of width 1: two softmaxes over {class, patch}, then their mean."""
    qkv = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.float64).view(1, 2, 1, 1, 3, 1, 1)
    cls = torch.tensor([0.5, -1.0, 7.0], dtype=torch.float64).view(1, 3, 1, 1)

    def softmax(query: float, keys: list[float], values: list[float]) -> float:
        weights = torch.tensor([query * key for key in keys], dtype=torch.float64).softmax(0)
        return float((weights * torch.tensor(values, dtype=torch.float64)).sum())

    expected = (softmax(0.5, [2.0, -1.0], [3.0, 7.0]) + softmax(0.5, [5.0, -1.0], [6.0, 7.0])) / 2
    step = build("space").encoders[0].steps[0]
    for function in (attend, oracle):
        patches, token = function(step, qkv, cls)  # type: ignore[operator]
        assert float(token) == pytest.approx(expected)
        assert float(patches[0, 0]) == pytest.approx(softmax(1.0, [2.0, -1.0], [3.0, 7.0]))


def test_every_named_step_is_covered() -> None:
    covered = {step.over for step in STEPS.values()}
    for name in SHIPPED:
        for step in itertools.chain.from_iterable(encoder.steps for encoder in build(name).encoders):
            assert step.over in covered
