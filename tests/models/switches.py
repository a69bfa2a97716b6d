"""Settings of every switch of the backbone, for tests that go over all of them."""

from typing import Any

from timesformer import TimeSformerConfig

TINY = TimeSformerConfig(
    num_frames=3, image_size=(16, 24), patch_size=8, num_classes=5, embed_dim=24, depth=2, temporal_depth=1, num_heads=2
)
SWITCHES: dict[str, dict[str, Any]] = {
    "rope_half": {"position": "rope", "rope_scale": (0.5, 1, 2)},
    "rope_neighbour": {"position": "rope", "rope_pairing": "neighbour", "rope_axes": (2, 6, 4)},
    "rope_vjepa2": {"position": "rope", "rope_pairing": "vjepa2", "rope_base": 100.0},
    "rope_unit": {"position": "rope", "rope_axes": (0, 6, 6), "rope_coordinates": "unit"},
    "sinusoid": {"position": "sinusoid"},
    "qk_norm": {"qk_norm": True},
    "registers": {"registers": 3},
    "layer_scale": {"layer_scale": 0.3},
    "gate_head": {"gate": "head"},
    "gate_channel": {"gate": "channel"},
    "swiglu": {"mlp": "swiglu", "mlp_ratio": 8 / 3},
    "rms": {"norm": "rms"},
    "bias_qv": {"qkv_bias": "qv"},
    "bias_k": {"qkv_bias": "k"},
    "bias_none": {"qkv_bias": ""},
    "no_class_token": {"class_token": False},
    "mean": {"pool": "mean"},
    "fc_norm": {"pool": "mean", "fc_norm": True, "fc_norm_eps": 1e-3},
    "class_mean": {"pool": "class+mean"},
    "attentive": {"pool": "attentive", "pooler_depth": 1},
    "many": {
        "position": "rope", "registers": 2, "qk_norm": True, "gate": "head", "layer_scale": 0.5, "mlp": "swiglu",
        "norm": "rms", "qkv_bias": "qv", "pool": "class+mean", "share_qkv": True,
    },
}  # fmt: skip
NEEDS_CLASS = ("registers", "class_mean", "many")
