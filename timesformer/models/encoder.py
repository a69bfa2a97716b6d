"""One encoder of a backbone: class token, registers, positions, blocks and the last norm.

Letters: b clips, t frames, h w patch rows and columns, d channels, s class token and registers.
"""

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from timesformer.attention.scheme import Encoder
from timesformer.config.transformer import TimeSformerConfig
from timesformer.models.blocks import Block
from timesformer.models.embedding import Positions
from timesformer.models.layers import make_norm


class EncoderStack(nn.Module):
    """Class token, registers, positions, blocks and the last norm of one encoder.

    `normed`: whether the norm is here; with `fc_norm` it follows the pooling.
    """

    def __init__(
        self, encoder: Encoder, config: TimeSformerConfig, depth: int, positions: Positions, normed: bool = True
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.gradient_checkpointing = False
        self.cls_token = None
        if encoder.class_tokens != "none":
            self.cls_token = nn.Parameter(torch.empty(config.embed_dim))
            nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.registers = None
        if config.specials(encoder) > 1:
            self.registers = nn.Parameter(torch.empty(config.registers, config.embed_dim))
            nn.init.trunc_normal_(self.registers, std=0.02)
        self.positions = positions
        self.drop = nn.Dropout(config.drop_rate)
        rates = [config.drop_path_rate * i / max(1, depth - 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(encoder.at(number), config, rate) for number, rate in enumerate(rates))
        self.norm = make_norm(config, config.embed_dim) if normed else nn.Identity()

    @property
    def streams(self) -> bool:
        """True where every frame is a stream of its own."""
        return self.encoder.class_tokens == "frame"

    def forward(
        self,
        patches: Tensor,
        average_frames: bool,
        class_only: bool = False,
        after: tuple[Tensor | None, int, int] | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the tokens after the norm: patches (b, t, h, w, d) and class token (b, d) or None.

        With registers, the second is (b, s, d), the class token first.

        Where every frame is a stream of its own, the class tokens are (b, t, d); with `average_frames` the tokens are
        averaged over the frames before the norm, to (b, 1, h, w, d) and (b, d).  `class_only` leaves out the patches,
        and what only they need in the last block.  `after`: class token, number of blocks done and frames, where the
        patches have been through some blocks already (`begin`, `through`).
        """
        first, frames = 0, patches.shape[1]
        if after is None:
            patches, cls = self.begin(patches)
        else:
            cls, first, frames = after
        last = len(self.blocks) - class_only
        for number in range(first, last):  # not in a function of its own, which would keep the first tokens alive
            patches, cls = self.one(number, patches, cls)
        b = patches.shape[0] // frames if self.streams else patches.shape[0]
        if class_only:
            final = self.blocks[last]
            assert isinstance(final, Block)
            assert cls is not None
            cls = final.class_only(self.positions.before(last, patches), cls)
            return None, self.norm(cls.unflatten(0, (b, frames)).mean(1) if self.streams else cls)
        if self.streams:
            assert cls is not None
            patches, cls = patches.squeeze(1).unflatten(0, (b, frames)), cls.unflatten(0, (b, frames))
            if average_frames:
                patches, cls = patches.mean(1, keepdim=True), cls.mean(1)
        return self.norm(patches), None if cls is None else self.norm(cls)

    def begin(self, patches: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return patches and class token as the first block takes them; streams are (b t, 1, h, w, d) and (b t, d)."""
        if self.streams:
            patches = patches.flatten(0, 1).unsqueeze(1)
        cls = None if self.cls_token is None else self.cls_token.expand(patches.shape[0], -1)
        if cls is not None and self.registers is not None:
            cls = torch.cat([cls[:, None], self.registers.expand(len(cls), -1, -1)], 1)
        patches, cls = self.positions(patches, cls)
        return self.drop(patches), None if cls is None else self.drop(cls)

    def through(self, patches: Tensor, cls: Tensor | None, first: int, last: int) -> tuple[Tensor, Tensor | None]:
        """Return patches and class token after the blocks from `first` up to `last`, which is left out."""
        for number in range(first, last):
            patches, cls = self.one(number, patches, cls)
        return patches, cls

    def one(self, number: int, patches: Tensor, cls: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return patches and class token after one block."""
        patches, block = self.positions.before(number, patches), self.blocks[number]
        if self.gradient_checkpointing and torch.is_grad_enabled():
            found: tuple[Tensor, Tensor | None] = torch.utils.checkpoint.checkpoint(
                block, patches, cls, use_reentrant=False
            )
            return found
        after: tuple[Tensor, Tensor | None] = block(patches, cls)
        return after

    def split(self, cls: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return class token and registers, (…, d) and (…, n, d), None where there are none."""
        return (cls, None) if self.registers is None else (cls[..., 0, :], cls[..., 1:, :])

    def pool(self, patches: Tensor, cls: Tensor | None) -> Tensor:
        """Return a pooled vector for each frame, (b, t, d), which the next encoder reads."""
        if self.encoder.pool == "class":
            assert cls is not None
            return self.split(cls)[0]
        return patches.mean((2, 3))

    def pack(self, patches: Tensor, cls: Tensor | None, frames: int) -> Tensor:
        """Return the tokens between two blocks in one tensor (b, t, h w + s, d), the patches of a frame first.

        A class token of the whole clip stands in every frame.
        """
        if self.streams:
            patches = patches.squeeze(1).unflatten(0, (-1, frames))
        if cls is not None:
            cls = cls if cls.dim() == 3 else cls[:, None]
            cls = cls.unflatten(0, (-1, frames)) if self.streams else cls[:, None].expand(-1, frames, -1, -1)
        rows = patches.flatten(2, 3)
        return rows if cls is None else torch.cat([rows, cls], 2)

    def unpack(self, tokens: Tensor, height: int, width: int) -> tuple[Tensor, Tensor | None]:
        """Return patches and class token between two blocks, from what `pack` returns."""
        patches, special = tokens.split([height * width, tokens.shape[2] - height * width], 2)
        patches = patches.unflatten(2, (height, width))
        if self.streams:
            patches, special = patches.flatten(0, 1).unsqueeze(1), special.flatten(0, 1)
        else:
            special = special[:, 0]
        if self.cls_token is None:
            return patches, None
        return patches, special if self.registers is not None else special[:, 0]
