"""Attentive pooling: a learned query over the patches, after some blocks of attention among them (V-JEPA 2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timesformer._typing import Float
from timesformer.attention.partition import ALL, Partition
from timesformer.attention.scheme import Encoder, Step
from timesformer.config.counting import POOLER_RATIO
from timesformer.config.transformer import TimeSformerConfig
from timesformer.models.blocks import Block, Mlp

JOINT = Encoder(block=((Step("joint", (Partition(ALL, ALL, ALL),), cls="absent"),),), class_tokens="none", pool="mean")


class AttentivePooler(nn.Module):
    """Blocks of joint attention among the patches, then attention of one learned query over their norm, then an MLP.

    The query itself is added to what it reads, which no projection follows.  Blocks and MLP are plain, whatever the
    switches of the model are.
    """

    def __init__(self, config: TimeSformerConfig) -> None:
        super().__init__()
        plain = TimeSformerConfig(
            attention="joint",
            embed_dim=config.embed_dim,
            num_heads=config.num_heads,
            mlp_ratio=POOLER_RATIO,
            activation=config.activation,
            norm_eps=config.norm_eps,
            drop_rate=config.drop_rate,
            backend="reference" if config.backend == "reference" else "sdpa",
        )
        d, self.heads = config.embed_dim, config.num_heads
        self.blocks = nn.ModuleList(Block(JOINT, plain, 0.0) for _ in range(config.pooler_depth))
        self.query = nn.Parameter(torch.empty(d))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.norm = nn.LayerNorm(d, eps=config.norm_eps)
        self.q, self.kv = nn.Linear(d, d), nn.Linear(d, 2 * d)
        self.mlp = Mlp(plain, 0.0)

    def forward(self, patches: Float[Tensor, "b t h w d"]) -> Float[Tensor, "b d"]:
        for block in self.blocks:
            patches, _ = block(patches, None)
        q, k, v = self._projected(patches)
        read = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).squeeze(1)
        read = self.query + read
        more: Tensor = self.mlp.one(read)
        return read + more

    def weights(self, patches: Float[Tensor, "b t h w d"]) -> Float[Tensor, "b k p"]:
        """Return the weight of each patch in the query's attention, after the pooler's own blocks."""
        for block in self.blocks:
            patches, _ = block(patches, None)
        q, k, _ = self._projected(patches)
        return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1).squeeze(2)

    def _projected(self, patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the query (b, k, 1, e), and keys and values (b, k, p, e)."""
        kv = self.kv(self.norm(patches.flatten(1, 3))).unflatten(-1, (2, self.heads, -1))
        k, v = kv.permute(2, 0, 3, 1, 4).unbind()
        q = self.q(self.query).view(1, self.heads, 1, -1).expand(len(patches), -1, -1, -1)
        return q, k, v
