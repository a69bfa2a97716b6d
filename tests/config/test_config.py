"""Configurations: every impossible value raises an error that names the field."""

import json

import pytest

from timesformer import InputError, TimeSformer, TimeSformerConfig
from timesformer.attention import build, load_file, names


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attention", "everywhere"),
        ("num_frames", 0),
        ("num_frames", 2.5),
        ("image_size", 225),
        ("image_size", (224, 100)),
        ("image_size", (1, 2, 3)),
        ("image_size", -16),
        ("patch_size", True),
        ("tubelet_size", 3),
        ("tubelet_init", "spread"),
        ("num_classes", -1),
        ("embed_dim", 770),
        ("depth", 0),
        ("num_heads", 0),
        ("mlp_ratio", float("nan")),
        ("activation", "swish"),
        ("norm_eps", 0),
        ("position_std", -1.0),
        ("time_std", float("inf")),
        ("init_std", 0.0),
        ("qk_init", "alike"),
        ("drop_rate", 1.0),
        ("drop_path_rate", -0.1),
        ("cls_policy", "everywhere"),
        ("temporal_fc", "yes"),
        ("share_qkv", 1),
        ("position", "spiral"),
        ("backend", "cuda"),
    ],
)
def test_bad_values_are_named(field: str, value: object) -> None:
    other = "num_frames" if field == "tubelet_size" else field
    with pytest.raises(InputError, match=other):
        TimeSformerConfig(**{field: value})


def test_round_trip_and_unknown_fields() -> None:
    config = TimeSformerConfig(attention="axial", image_size=(32, 48), patch_size=8)
    assert TimeSformerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(InputError, match="attentoin"):
        TimeSformerConfig.from_dict({"attentoin": "axial"})


def test_unknown_scheme_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="divided_parallel"):
        TimeSformerConfig(attention="dividde")


def test_hugging_face_names() -> None:
    for alias, name in (("space_only", "space"), ("joint_space_time", "joint"), ("divided_space_time", "divided")):
        assert build(alias) is build(name)
        assert alias not in names()


def test_a_scheme_file_of_ones_own(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "own_rows.py"
    path.write_text(
        "from timesformer.attention import ALL, EACH, Encoder, Partition, Scheme, Step\n"
        "ROWS = Step('config_rows', (Partition(t=ALL, h=EACH, w=ALL),))\n"
        "SCHEMES = [Scheme('own_rows', (Encoder(block=((ROWS,),)),))]\n"
    )
    (scheme,) = load_file(path)
    assert scheme.name in names()
    TimeSformer(TimeSformerConfig(attention="own_rows", depth=1, embed_dim=12))
    assert load_file(path) == (scheme,)
    path.write_text("SCHEMES = 3")
    with pytest.raises(InputError, match=r"own_rows\.py"):
        load_file(path)
    path.write_text("import nothing_of_this_name")
    with pytest.raises(InputError, match="nothing_of_this_name"):
        load_file(path)
    with pytest.raises(InputError, match=r"missing\.py"):
        load_file(tmp_path / "missing.py")
