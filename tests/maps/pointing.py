"""A model whose weights are set by hand so that it looks at one known patch in one known frame; T, H and W differ.

Channel 0 of the embedding is the mean of a patch, channel 1 its negative, channels 2 and 3 one and minus one: a bright
patch stands out after the norm.  Queries are a constant, keys are channel 0 times a large factor, so every query looks
at the brightest patch that it may see; the values and the head carry that brightness to the logit of class 1.
"""

import torch

from timesformer import TimeSformer, TimeSformerConfig

PLACE = (1, 0, 3)
GRID = (3, 2, 5)
PATCH = 4


@torch.no_grad()
def pointing_model(attention: str, **fields: object) -> tuple[TimeSformer, torch.Tensor, tuple[int, int, int]]:
    """The model, a clip (1, 3, 3, 8, 20) with one bright patch on grey, and that patch's (t, h, w)."""
    config = TimeSformerConfig(
        attention=attention,
        num_frames=GRID[0],
        image_size=(GRID[1] * PATCH, GRID[2] * PATCH),
        patch_size=PATCH,
        num_classes=2,
        embed_dim=8,
        depth=2,
        temporal_depth=1,
        num_heads=2,
        position="none",
        **fields,  # type: ignore[arg-type]
    )
    model = TimeSformer(config).eval()
    for name, value in model.named_parameters():
        value.fill_(1.0 if name.endswith("norm.weight") else 0.0)
    embed = model.patch_embed.proj
    embed.weight[0] = 1 / embed.weight.shape[1]
    embed.weight[1] = -1 / embed.weight.shape[1]
    embed.bias[2], embed.bias[3] = 1.0, -1.0
    width = config.embed_dim // config.num_heads
    for stack in model.encoders:
        if stack.cls_token is not None:
            stack.cls_token[2], stack.cls_token[3] = 1.0, -1.0
        for block in stack.blocks:
            for step in block.steps.values():
                if step.qkv is not None:
                    for head in range(config.num_heads):
                        step.qkv.bias[head * width] = 20.0  # q
                        step.qkv.weight[8 + head * width, 0] = 10.0  # k: how bright
                    step.qkv.weight[16, 0] = 1.0  # v: brightness, kept by the first head
                step.proj.weight[0, 0] = 1.0
                if step.fc is not None:
                    step.fc.weight.copy_(torch.eye(8))
    model.head.weight[1, 0] = 1.0
    clip = torch.zeros(1, GRID[0], 3, GRID[1] * PATCH, GRID[2] * PATCH)
    t, h, w = PLACE
    clip[0, t, :, h * PATCH : (h + 1) * PATCH, w * PATCH : (w + 1) * PATCH] = 2.0
    return model, clip, PLACE
