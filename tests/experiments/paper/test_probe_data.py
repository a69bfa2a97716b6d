"""Probes as the data of a run: dials, hashes that stay, bounds, the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from timesformer.data.probes import make_probe, open_probe
from timesformer.data.probes.diagnostics import CHEAP
from timesformer.errors import InputError
from timesformer_experiments.cli.main import app
from timesformer_experiments.paper.probes import ceiling_percent, describe
from timesformer_experiments.run.inputs import prepare
from timesformer_experiments.run.train import run_one
from timesformer_experiments.specs.run import ProbeData, RunSpec

ROOT = Path(__file__).parents[3]


def spec(data: dict[str, object], *, frames: int = 2, size: int = 16, protocol: str = "paper") -> RunSpec:
    return RunSpec.parse(
        {
            "name": "tiny",
            "data": {"num_train": 8, "num_test": 8, **data},
            "model": {"attention": "divided", "image_size": size, "patch_size": 8, "num_frames": frames}
            | {"embed_dim": 16, "depth": 1, "num_heads": 2},
            "recipe": {"steps": 1, "batch_size": 2},
            "protocol": protocol,
        }
    )


def test_runs_of_committed_records_are_still_the_same_runs() -> None:
    lines = (ROOT / "results/table1/full/records.jsonl").read_text().splitlines()
    found = [json.loads(line)["spec"]["data"] for line in lines]
    assert {data["probe"] for data in found} == {"appearance", "motion"}
    for data in found:
        fields = {name: value for name, value in data.items() if name != "preprocessing"}
        again = ProbeData(**fields, preprocessing={})
        assert again.identity() | {"preprocessing": data["preprocessing"]} == data


def test_a_dial_that_states_its_default_is_the_same_run() -> None:
    for probe, name, default, other in (
        ("mixture", "temporal_share", 0.5, 0.25),
        ("order", "gaps", [1, 2, 4], [4]),
        ("order", "video_frames", 64, 32),
        ("detail", "scales", [2, 4], [2]),
        ("match", "move", "axis", "knight"),
        ("shell", "patches_per_frame", 1, 2),
        ("cue", "gap", 6, 7),
    ):
        plain = spec({"probe": probe})
        assert plain.hash() == spec({"probe": probe, name: default}).hash()
        assert plain.hash() != spec({"probe": probe, name: other}).hash()
        assert plain.data.identity()[name] == default
    assert "temporal_share" not in spec({"probe": "order"}).data.identity()


def test_a_run_makes_the_probe_that_its_dials_say(tmp_path: Path) -> None:
    data = spec({"probe": "order", "video_frames": 8, "event_frames": 4}).data
    info = prepare(data, tmp_path)
    assert info.kind == data.kind
    assert info.parameters["dials"] == {"video_frames": 8, "event_frames": 4, "gaps": [1]}
    assert (data.num_classes, info.parameters["frames"]) == (4, 8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"probe": "motion", "temporal_share": 0.5}, "temporal_share: not a dial of the probe motion"),
        ({"probe": "mixture", "temporal_share": 2}, "temporal_share must be from 0 to 1, got 2"),
        ({"probe": "mixture", "flip": True}, "flip: a mirrored clip of the mixture probe may be one of another class"),
        (
            {"probe": "detail", "num_test": 6},
            r"num_test: expected a multiple of 4 \(each scene in every class\), got 6",
        ),
        ({"probe": "order", "num_test": 7}, "num_test: expected an even number"),
        ({"probe": "order", "gaps": [16]}, "gaps must be a list of one or more of 1, 2, 4"),
        ({"probe": "order", "gaps": "far"}, "data.gaps"),
    ],
)
def test_bad_dials_are_named(data: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        spec(data)


def test_ceilings_follow_from_the_run() -> None:
    dense = {"sampling": "dense", "frame_rate": 8}
    for frames, ceiling in ((2, 50.0), (4, 200 / 3), (8, 250 / 3), (16, 100.0)):
        run = spec({"probe": "order", "preprocessing": dense}, frames=frames, protocol="coverx1")
        assert ceiling_percent(run) == pytest.approx(ceiling)
        assert ceiling_percent(run, order_blind=True) == 50
    for size, bound in ((16, 25.0), (32, 62.5), (64, None)):
        assert ceiling_percent(spec({"probe": "detail"}, size=size)) == bound
        assert spec({"probe": "detail"}, size=size).preprocessing.short_side == size
    assert ceiling_percent(spec({"probe": "mixture", "temporal_share": 0.2}), order_blind=True) == pytest.approx(90)
    assert ceiling_percent(spec({"probe": "motion"}), order_blind=True) == 50
    assert ceiling_percent(spec({"probe": "appearance"}), order_blind=True) is None


def test_ceiling_needs_a_probe(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("a.mp4 0\n")
    own = {"train_csv": str(tmp_path / "list.csv"), "test_csv": str(tmp_path / "list.csv"), "num_classes": 2}
    run = RunSpec.parse({"name": "own", "data": own, "model": {"attention": "space"}, "recipe": {"steps": 1}})
    with pytest.raises(InputError, match="ceiling: expected a run on a probe, but 'own'"):
        ceiling_percent(run)


def test_the_command_line_takes_dials(tmp_path: Path) -> None:
    words = ["probe", "order", "--out", str(tmp_path), "--num-train", "4", "--num-test", "4", "--json"]
    done = CliRunner().invoke(app, [*words, "--dial", "video_frames=16", "--dial", "gaps=[1]"])
    assert done.exit_code == 0, done.output
    info = json.loads((Path(json.loads(done.stdout)["folder"]) / "info.json").read_text())
    assert info["parameters"]["dials"] == {"video_frames": 16, "event_frames": 8, "gaps": [1]}
    for dial, said in (
        ("gaps", "--dial gaps: expected name=value"),
        ("gaps=[", "--dial gaps=[: expected a value in YAML"),
        ("speed=2", "speed: not a dial of the probe order; its dials are video_frames, event_frames, gaps"),
    ):
        done = CliRunner().invoke(app, [*words, "--dial", dial])
        assert done.exit_code == 2
        assert said in done.stderr


def test_dials_of_words_and_fractions_reach_the_videos(tmp_path: Path) -> None:
    words = ["probe", "match", "--out", str(tmp_path), "--num-train", "4", "--num-test", "4", "--json"]
    done = CliRunner().invoke(app, [*words, "--dial", "move=knight", "--dial", "patch_noise=0.05"])
    assert done.exit_code == 0, done.output
    info = open_probe(json.loads(done.stdout)["folder"])
    assert info.kind.dials() == {
        "move": "knight",
        "distance": 1,
        "grid": 4,
        "video_frames": 2,
        "patch_noise": 0.05,
    }
    done = CliRunner().invoke(app, [*words, "--dial", "move=queen"])
    assert done.exit_code == 2
    assert "move must be one of axis, diagonal, knight, got 'queen'" in done.stderr


def test_a_description_holds_the_gate_and_is_made_anew_with_more_classifiers(tmp_path: Path) -> None:
    info = make_probe("contact", tmp_path, num_train=8, num_test=8)
    files = describe(info, tmp_path / "out", "contact")
    page, stored = files[2], files[3]
    facts = json.loads(stored.read_text())
    assert list(facts["cheap_classifiers"]) == list(CHEAP)
    assert facts["gate_margin_points"] == 5
    best = max(found["top1_percent"] for found in facts["cheap_classifiers"].values())
    assert facts["cheap_best_percent"] == best
    assert f"Classifiers without attention reach {best:.1f} %." in page.read_text()
    assert [line.split(",")[0] for line in files[1].read_text().splitlines()[1:]] == [
        name.replace("_", " ") for name in CHEAP
    ]
    page.write_text("as it was")
    assert describe(info, tmp_path / "out", "contact") == files
    assert page.read_text() == "as it was"
    facts["cheap_classifiers"] = {name: facts["cheap_classifiers"][name] for name in CHEAP[:3]}
    stored.write_text(json.dumps(facts))
    describe(info, tmp_path / "out", "contact")
    assert "Classifiers without attention" in page.read_text()


@pytest.mark.slow
def test_detail_is_learnt_where_it_shows_and_nowhere_else(tmp_path: Path) -> None:
    found = {}
    for size in (16, 64):
        run = RunSpec.parse(
            {
                "name": f"detail-{size}",
                "data": {"probe": "detail", "num_train": 1024, "num_test": 128, "stills": True},
                "model": {"attention": "space", "image_size": size, "patch_size": 8, "num_frames": 1}
                | {"embed_dim": 64, "depth": 2, "num_heads": 4, "position_std": 0.3, "time_std": 1.0},
                "recipe": {
                    "optimiser": "adamw",
                    "schedule": "onecycle",
                    "warmup": 0.2,
                    "lr": 2e-3,
                    "weight_decay": 0.05,
                }
                | {"clip_grad_norm": 1.0, "steps": 300, "batch_size": 16},
            }
        )
        found[size] = run_one(run, tmp_path / "runs", progress=False, threads=1)["metrics"]["top1_percent"]
        ceiling = ceiling_percent(run)
        assert ceiling is None or found[size] <= ceiling
    # Every scene is there once in each class, and looks the same in all four.
    assert found[16] == 25
    assert found[64] > 80
