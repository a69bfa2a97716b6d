"""Maps scored against object masks: what is measured on a model, the table made of it, and the whole way."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from timesformer.errors import InputError
from timesformer.maps import METHODS
from timesformer_experiments.analysis.statistics.estimators import crossed
from timesformer_experiments.cli.main import app
from timesformer_experiments.paper.artefacts.figures import localisation
from timesformer_experiments.paper.artefacts.tables import table1
from timesformer_experiments.paper.measured.localisation import CURVES, KIND, PLACES, RANDOM, methods
from timesformer_experiments.paper.registry import GROUPS
from timesformer_experiments.records.read import load_results

AREA = 10.0


def record(probe: str, scheme: str, seed: int, rollout: float, **other: Any) -> dict[str, Any]:
    """What was measured on a model whose rollout has this much energy inside; its other maps are like chance."""
    energy = {"rollout": rollout, RANDOM: AREA}
    places = {name: dict.fromkeys(PLACES, value) for name, value in energy.items()}
    chance = {name: dict.fromkeys(PLACES, AREA) for name in energy}
    curves = {"rollout": {"deletion_area": 0.2, "insertion_area": 0.7}, RANDOM: dict.fromkeys(CURVES, 0.5)}
    return {
        "kind": KIND,
        "outcome": "done",
        "seed": seed,
        "spec": {
            "data": {"probe": probe},
            "model": {"attention": scheme},
            "localisation": {"methods": list(energy)},
        },
        "metrics": {
            "videos": 32,
            "object_area_percent": AREA,
            "untrained": chance,
            **{name: places[name] | curves[name] for name in energy},
        },
        **other,
    }


def records(seeds: int) -> list[dict[str, Any]]:
    return [
        record(probe, scheme, seed, (30.0 if scheme == "divided" else 9.0) + seed)
        for seed in range(seeds)
        for probe in localisation.PROBES
        for scheme in localisation.SCHEMES
    ]


def test_it_trains_nothing_of_its_own_and_is_not_made_by_default() -> None:
    for profile in ("smoke", "quick", "full"):
        assert [spec.hash() for spec in localisation.plan(profile)] == [
            spec.hash() for spec in table1.ABLATION.plan(profile)
        ]
    assert all("localisation" not in members for members in GROUPS.values())


def test_rows_have_means_over_seeds_with_intervals() -> None:
    frame = localisation.rows(records(3)).set_index(["probe", "attention", "method"])
    assert len(frame) == 2 * 5 * 2
    row = frame.loc[("motion", "divided", "rollout")]
    assert row["measured_energy_inside_percent"] == pytest.approx(31.0)
    assert row["measured_energy_inside_percent_high"] - 31.0 == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert row["measured_untrained_energy_inside_percent"] == row["measured_object_area_percent"] == AREA
    assert row["measured_deletion_area"] == pytest.approx(0.2)
    assert row["measured_insertion_area"] == pytest.approx(0.7)
    assert localisation.rows(records(1))["measured_energy_inside_percent_low"].isna().all()


def with_videos(found: dict[str, Any], values: list[float], groups: list[str]) -> dict[str, Any]:
    """The same record with the figure of every video."""
    areas = {"deletion_area": [0.2] * len(values), "insertion_area": [0.7] * len(values)}
    of_method = dict.fromkeys(PLACES, values) | areas
    each = dict.fromkeys(("rollout", RANDOM), of_method)
    videos = [f"{number}.mp4" for number in range(len(values))]
    each |= {"untrained": {name: dict.fromkeys(PLACES, values) for name in ("rollout", RANDOM)}}
    return found | {"each": {"videos": videos, "groups": groups, **each}, "dataset": {"test": {"fingerprint": "f"}}}


def test_videos_that_belong_together_count_as_one() -> None:
    """Twelve videos in six pairs, three seeds: crossed, and another interval than that of single videos."""
    rng = np.random.default_rng(0)
    pairs, alone = ([f"{number // size}" for number in range(12)] for size in (2, 1))
    values = [(30 + 10 * rng.normal(size=6).repeat(2) + rng.normal(size=12)).tolist() for _ in range(3)]
    found = []
    for groups in (pairs, alone):
        frame = localisation.rows([with_videos(each, values[each["seed"]], groups) for each in records(3)])
        found.append(frame.set_index(["probe", "attention", "method"]).loc[("motion", "divided", "rollout")])
    table = np.array(values).reshape(3, 6, 2).mean(2)
    expected = crossed(table, videos=12, limits=(0.0, 100.0))
    names = ("measured_energy_inside_percent_low", "measured_energy_inside_percent_high")
    assert [found[0][name] for name in names] == pytest.approx(expected.interval())
    assert found[0]["measured_energy_inside_percent"] == pytest.approx(found[1]["measured_energy_inside_percent"])
    assert found[0][names[0]] != pytest.approx(found[1][names[0]])
    assert found[0]["measured_interval_over"] == "for new seeds and new test videos"
    one = localisation.rows([with_videos(each, values[0], pairs) for each in records(1)])
    assert set(one["measured_interval_over"]) == {"for new test videos alone, there is one seed"}
    assert one["measured_energy_inside_percent_low"].notna().all()


def test_findings_follow_from_the_numbers() -> None:
    text = " ".join(localisation.findings(localisation.rows(records(3))))
    assert "1 of 5 pairs of scheme and method have more energy on the object" in text
    said = "1 have more than the untrained model, with the whole 95 % interval for new seeds, given these videos"
    assert said in text
    assert "the highest is rollout with divided, which has 31.0 % of its energy" in text
    assert "rollout +0.500, random 0.000" in text.replace("+0.000", "0.000")
    assert "an untrained model's maps is 1.00 (rollout) to 1.00 (rollout) times the object's area" in text
    one = " ".join(localisation.findings(localisation.rows(records(1))))
    assert "of these models, one seed" in one


def test_records_that_do_not_make_the_table_are_refused() -> None:
    with pytest.raises(InputError, match="the records have no measurement of axial on motion"):
        localisation.rows(records(1)[:-1])
    with pytest.raises(InputError, match="expected the same seeds for all schemes"):
        localisation.rows([*records(1), record("motion", "axial", 1, 9.0)])
    other = record("motion", "axial", 0, 9.0)
    other["spec"]["localisation"]["methods"] = [RANDOM]
    with pytest.raises(InputError, match="expected the same methods in all records"):
        localisation.rows([*records(1)[:-1], other])


@pytest.fixture(scope="module")
def made(
    table1_at_smoke: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, list[dict[str, Any]]]:
    """The smoke profile through the command line, on the runs of Table 1: folders of the runs and of the results."""
    runs, results = table1_at_smoke[0] / "runs", tmp_path_factory.mktemp("localisation")
    done = CliRunner().invoke(app, command(runs, results))
    assert done.exit_code == 0, done.output
    stored = results / "localisation" / "smoke" / "records.jsonl"
    return runs, results, [json.loads(line) for line in stored.read_text().splitlines()]


def command(runs: Path, results: Path) -> list[str]:
    places = ["--out", str(results), "--runs", str(runs)]
    return ["reproduce", "localisation", "--profile", "smoke", "--jobs", "1", "--json", *places]


def test_every_method_is_measured_on_every_model(made: tuple[Path, Path, list[dict[str, Any]]]) -> None:
    _, _, stored = made
    measured = [each for each in stored if each.get("kind") == KIND]
    assert len(measured) == 10
    for each in measured:  # the means are those of the videos
        own = each["each"]
        assert len(own["videos"]) == len(own["groups"]) == each["metrics"]["videos"]
        for name in methods():
            for place in (*PLACES, *CURVES):
                assert np.mean(own[name][place]) == pytest.approx(each["metrics"][name][place], rel=1e-3, abs=1e-3)
    assert {each["init_from"]["hash"] for each in measured} < {each["hash"] for each in stored if each not in measured}
    for each in measured:
        metrics = each["metrics"]
        assert 1 <= metrics["videos"] <= localisation.VIDEOS["smoke"]
        assert set(methods()) == {*METHODS, RANDOM} == set(metrics["untrained"])
        for name in methods():
            assert set(metrics[name]) == {*PLACES, *CURVES}
            assert all(0 <= metrics[name][place] <= 100 for place in PLACES)
            assert all(0 <= metrics[name][area] <= 1 for area in CURVES)
        # Of a model that has hardly been trained, the untrained one's maps differ; chance is the same.
        assert metrics["untrained"][RANDOM] == {place: metrics[RANDOM][place] for place in PLACES}
        assert metrics["untrained"]["input_gradient"] != {place: metrics["input_gradient"][place] for place in PLACES}


def test_measured_once_and_read_as_records(
    made: tuple[Path, Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, results, stored = made

    def nothing(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("timesformer_experiments.paper.measured.localisation._of_model", nothing)
    assert CliRunner().invoke(app, command(runs, results)).exit_code == 0
    frame = load_results(results / "localisation" / "smoke")
    assert (frame["kind"] == KIND).sum() == 10
    row = frame[frame["kind"] == KIND].iloc[0]
    (same,) = [each for each in stored if each["hash"] == row["hash"]]
    assert row["rollout.energy_inside_percent"] == same["metrics"]["rollout"]["energy_inside_percent"]
    assert row["untrained.rollout.pointing_percent"] == same["metrics"]["untrained"]["rollout"]["pointing_percent"]


def test_report_rebuilds_the_files_from_the_records(made: tuple[Path, Path, list[dict[str, Any]]]) -> None:
    _, results, _ = made
    before = {path: path.read_bytes() for path in (results / "localisation" / "smoke").iterdir()}
    assert {path.name for path in before} == {
        "localisation.csv", "localisation.md", "localisation.png", "report.html", "records.jsonl",
        "classes.csv", "confusion.png", "curves.parquet", "learning_curves_appearance.png",
        "learning_curves_motion.png", "learning_curves_stills_of_appearance.png",
    }  # fmt: skip
    for path in before:
        if path.name not in ("records.jsonl", "curves.parquet"):
            path.unlink()
    done = CliRunner().invoke(app, ["report", "localisation", "--out", str(results)])
    assert done.exit_code == 0, done.output
    assert {path: path.read_bytes() for path in before} == before
    text = (results / "localisation" / "smoke" / "localisation.md").read_text()
    assert "Published values" not in text
