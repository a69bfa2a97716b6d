"""Lower bounds of a step: bytes moved, floating-point operations, and the time that they take."""

from dataclasses import dataclass
from typing import Literal

from timesformer.attention import Grid, Step
from timesformer.config.counting import step_pairs

Direction = Literal["forward", "forward_backward"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "forward_backward")


@dataclass(frozen=True)
class Floor:
    """Minimal bytes and floating-point operations of a step.

    `bytes`: each input read once and each output written once. `flops`: matrix products over the pairs that the step
    declares, two per multiply–accumulate, as GPU manufacturers count.
    """

    bytes: int
    flops: int

    def ms(self, bytes_per_second: float, flops_per_second: float) -> float:
        """Return the larger of the times for bytes and for operations, in milliseconds."""
        return 1e3 * max(self.bytes / bytes_per_second, self.flops / flops_per_second)


def step_floor(
    step: Step, grid: Grid, batch: int, heads: int, head_width: int, item_bytes: int, direction: Direction
) -> Floor:
    """Return the floor of one step.

    Forward reads q, k and v and writes the output, with two matrix products.  Backward reads q, k, v and the output's
    gradient and writes three gradients, with five products, because it computes the scores again.
    """
    tokens = grid[0] * grid[1] * grid[2] + (step.cls != "absent")
    (pairs,) = step_pairs(step, grid)
    assert pairs is not None
    passes, products = {"forward": (4, 2), "forward_backward": (4 + 7, 2 + 5)}[direction]
    return Floor(
        bytes=batch * tokens * heads * head_width * item_bytes * passes,
        flops=2 * batch * pairs.total * heads * head_width * products,
    )


def backward_floor(forward: Floor, both: Floor) -> Floor:
    """Return the floor of the backward pass alone."""
    return Floor(both.bytes - forward.bytes, both.flops - forward.flops)
