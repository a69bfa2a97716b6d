"""Trajectory attention (Motionformer; Patrick et al., Keeping Your Eye on the Ball, arXiv 2106.05392, section 3.2).

Each patch first attends to the patches of every frame separately, which gives it one token per frame, its trajectory.
Then it attends over the frames of its trajectory, with further projections: the query comes from the trajectory's token
in the patch's own frame, keys and values come from all of them.  A softmax over a neighbourhood cannot express this, so
the step is a mixer.  The class token sees every patch, and no patch sees it, as in the released code.

At 16 x 224 x 224 with tubelets of 2 frames, a ViT-B takes 369.36 GMACs per view; the paper prints 369.5.  fvcore, the
counter of PySlowFast, on which the released code builds, adds 5 for each element of a layer norm:
25 x 1569 x 768 x 5 = 0.15 G here, which makes 369.51.  Our count has matrix products only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timesformer._typing import Float
from timesformer.attention.mixer import Mixer, MixerInputs
from timesformer.attention.partition import Grid
from timesformer.attention.scheme import Encoder, Scheme, Step


class Trajectory(Mixer):
    """Attention along the trajectory of each patch; the second projections span all heads, as published."""

    def modules(self, width: int, heads: int) -> nn.ModuleDict:
        return nn.ModuleDict({"query": nn.Linear(width, width), "key_value": nn.Linear(width, 2 * width)})

    def forward(self, inputs: MixerInputs) -> Float[Tensor, "b k p e"]:
        q, t, heads, modules = inputs.q, inputs.grid[0], inputs.q.shape[1], inputs.modules
        frames_k, frames_v = (x.unflatten(2, (t, -1)) for x in (inputs.k, inputs.v))  # b k u n e, u: frame attended to
        found = F.scaled_dot_product_attention(q.unsqueeze(2).expand(-1, -1, t, -1, -1), frames_k, frames_v)
        tokens = found.permute(0, 3, 2, 1, 4).flatten(3)  # b p u d
        own = tokens.unflatten(1, (t, -1)).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2).flatten(1, 2)  # b p d
        query = modules["query"](own).unflatten(-1, (heads, 1, -1))  # b p k 1 e
        key, value = modules["key_value"](tokens).unflatten(-1, (2, heads, -1)).permute(3, 0, 1, 4, 2, 5)  # b p k u e
        return F.scaled_dot_product_attention(query, key, value).squeeze(3).transpose(1, 2)

    def reference(self, inputs: MixerInputs) -> Float[Tensor, "b k p e"]:
        weights, tokens = self._dense(inputs)
        b, heads, _, t, e = tokens.shape
        joined = tokens.permute(0, 2, 3, 1, 4).reshape(b, -1, t, heads * e)
        value = inputs.modules["key_value"](joined)[..., heads * e :].reshape(b, -1, t, heads, e)
        return torch.einsum("bkpu,bpuke->bkpe", weights, value)

    def operator(self, inputs: MixerInputs) -> Float[Tensor, "b k p p"]:
        """Weight of a frame times the weight of a patch in it.

        The second value projection, which mixes heads, is left out.
        """
        weights, _ = self._dense(inputs)
        parts = [
            weights[..., frame, None] * _look(inputs.q, inputs.k[:, :, patches])
            for frame, patches in enumerate(_frames(inputs))
        ]
        return torch.cat(parts, -1)

    def _dense(self, inputs: MixerInputs) -> tuple[Float[Tensor, "b k p u"], Float[Tensor, "b k p u e"]]:
        """Weights of the frames, and trajectory tokens, computed frame by frame and patch by patch."""
        k, v, modules = inputs.k, inputs.v, inputs.modules
        tokens = torch.stack([_look(inputs.q, k[:, :, patches]) @ v[:, :, patches] for patches in _frames(inputs)], 3)
        b, heads, p, t, e = tokens.shape
        joined = tokens.permute(0, 2, 3, 1, 4).reshape(b, p, t, heads * e)
        key = modules["key_value"](joined)[..., : heads * e].reshape(b, p, t, heads, e)
        rows = []
        for patch in range(p):
            query = modules["query"](joined[:, patch, patch // (p // t)]).reshape(b, heads, e)
            rows.append(torch.softmax(torch.einsum("bke,buke->bku", query, key[:, patch]) / e**0.5, -1))
        return torch.stack(rows, 2), tokens

    def macs(self, grid: Grid, width: int, heads: int) -> int:
        t, tokens = grid[0], grid[0] * grid[1] * grid[2]
        over_space = 2 * tokens * tokens * width
        projections = tokens * width * width + tokens * t * 2 * width * width
        return over_space + projections + 2 * tokens * t * width


def _frames(inputs: MixerInputs) -> list[Tensor]:
    """Patch numbers of each frame."""
    return list(torch.arange(inputs.q.shape[2], device=inputs.q.device).view(inputs.grid[0], -1))


def _look(q: Tensor, k: Tensor) -> Tensor:
    """Compute softmax(q k^T / sqrt(e)) over the given keys."""
    return torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1)


SCHEMES = [
    Scheme(
        name="trajectory",
        encoders=(Encoder(block=((Step("trajectory", (Trajectory(),), cls="global"),),)),),
        code="TR",
        title="Trajectory (Motionformer)",
    )
]
