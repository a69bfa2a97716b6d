"""Sweeps whose test videos belong together, whose seeds fail, and strange ones: right values or clear errors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from timesformer.errors import InputError
from timesformer.evaluation.scores import write_scores
from timesformer.intervals import wilson_interval
from timesformer_experiments.analysis.comparisons import RIGHT
from timesformer_experiments.analysis.difference import difference
from timesformer_experiments.analysis.report import SweepReport, sweep_report, write_sweep_report
from timesformer_experiments.analysis.statistics.estimators import crossed_difference, crossed_mean
from timesformer_experiments.records.hits import clusters_of, hits_of, with_hits
from timesformer_experiments.records.log import LOG, append_record, make_record, read_records
from timesformer_experiments.specs.job import Job
from timesformer_experiments.specs.sweep import parse_sweep

SUBJECTS = [4, 1, 3, 2, 2, 1, 5, 2]
"""Test videos of each subject."""
NAMES = [f"s{subject}_{number}.mp4" for subject, count in enumerate(SUBJECTS) for number in range(count)]
GROUP = {name: name[:2] for name in NAMES}


def sweep_of(folder: Path, schemes: tuple[str, ...] = ("divided", "joint"), seeds: int = 3) -> list[Job]:
    """The cells of a sweep on videos of one's own."""
    folder.mkdir(parents=True, exist_ok=True)
    for side in ("train", "test"):
        (folder / f"{side}.csv").write_text("".join(f"{name} 0\n" for name in NAMES))
    data = {"train": str(folder / "train.csv"), "test": str(folder / "test.csv"), "num_classes": 4}
    model = {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_frames": 2, "image_size": 16}
    base = {"data": data | {"group": {"pattern": r"^s\d"}}, "model": model, "recipe": {"steps": 2, "batch_size": 4}}
    axes = {"model.attention": list(schemes), "seed": list(range(seeds))}
    return list(parse_sweep({"name": "people", "base": base, "axes": axes}).jobs().values())


def hits(job: Job, level: float | None = None) -> np.ndarray:
    """Which videos a cell has right: subjects are easy or hard for all."""
    scheme = ["divided", "joint", "axial"].index(job.spec.model.attention)
    rng = np.random.default_rng([scheme, job.spec.seed or 0])
    easy = np.random.default_rng(1).normal(size=len(SUBJECTS)).repeat(SUBJECTS)
    return easy + 0.5 * rng.normal(size=len(NAMES)) > (0.2 * scheme - 0.3 if level is None else level)


def write(
    folder: Path,
    job: Job,
    right: np.ndarray,
    *,
    names: list[str] = NAMES,
    group: dict[str, str] | None = GROUP,
    fingerprint: str = "test",
    scores: bool = True,
    **notes: Any,
) -> str:
    percent, ends = 100 * float(right.mean()), wilson_interval(int(right.sum()), len(right))
    metrics = {"top1_percent": percent, "top1_low_percent": ends[0], "top1_high_percent": ends[1]}
    facts = {"num_videos": len(names), "num_unreadable": 0, "labels": {}, "unreadable": []}
    dataset = {"train": {"fingerprint": "train", **facts}, "test": {"fingerprint": fingerprint, **facts}}
    record = make_record(
        job.spec, started_utc="2026-01-01T00:00:00Z", wall_seconds=1.0, dataset=dataset,
        metrics=metrics | {"test_videos": len(names)}, **job.belongs, **notes,
    )  # fmt: skip
    append_record(folder / LOG, record)
    if scores:
        label = np.arange(len(names)) % 4
        prediction = np.where(right, label, (label + 1) % 4)
        frame = pd.DataFrame({"index": range(len(names)), "path": names, "label": label, "prediction": prediction})
        frame["scores"] = [np.zeros(4)] * len(names)
        if group is not None:
            frame["group"] = [group[name] for name in names]
        (folder / job.hash()).mkdir(exist_ok=True)
        write_scores(folder / job.hash() / "scores.parquet", frame.iloc[::-1], {"heads": [], "merge": "mean_softmax"})
    return job.hash()


def runs_of(jobs: list[Job], scheme: str) -> dict[int, dict[str, float]]:
    return {
        job.spec.seed or 0: dict(zip(NAMES, hits(job).astype(float), strict=True))
        for job in jobs
        if job.spec.model.attention == scheme
    }


def row_of(report: SweepReport, scheme: str) -> dict[Any, Any]:
    (row,) = report.summary.frame[report.summary.frame["attention"] == scheme].to_dict(orient="records")
    return row


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Job], SweepReport]:
    folder, out = tmp_path_factory.mktemp("people"), tmp_path_factory.mktemp("out")
    jobs = sweep_of(folder)
    for job in jobs:
        write(folder, job, hits(job))
    report = sweep_report(folder)
    write_sweep_report(report, folder, out)
    return folder, out, jobs, report


def test_subjects_are_averaged_first(people: tuple[Path, Path, list[Job], SweepReport]) -> None:
    _, _, jobs, report = people
    one, other = (runs_of(jobs, scheme) for scheme in ("divided", "joint"))
    expected, row = crossed_mean(one, GROUP), row_of(report, "divided")
    names = ("measured_top1_percent", "measured_top1_low_percent", "measured_top1_high_percent")
    assert [row[name] for name in names] == pytest.approx((expected.mean, *(expected.interval() or ())))
    assert row["measured_top1_test_groups"] == len(SUBJECTS)
    assert row["measured_top1_each_seed_percent"] == " ".join(f"{point:.1f}" for point in expected.points)
    (pair,) = report.comparisons
    found = crossed_difference(one, other, GROUP)
    assert (pair.difference_points, pair.low_points) == pytest.approx((found.mean, (found.interval() or (0,))[0]))
    assert pair.first_percent - pair.second_percent == pytest.approx(pair.difference_points)
    assert pair.to_dict()["groups"] == len(SUBJECTS)
    assert "Test videos that belong together count as one: 8 groups." in report.findings


def test_the_groups_stay_with_what_is_committed(people: tuple[Path, Path, list[Job], SweepReport]) -> None:
    folder, out, jobs, report = people
    assert not any((out / job.hash()).exists() for job in jobs)
    kept = pd.read_parquet(out / RIGHT)
    assert set(kept["group"]) == set(GROUP.values())
    again = sweep_report(out)
    assert again.summary.frame.equals(report.summary.frame)
    assert again.to_dict()["comparisons"] == report.to_dict()["comparisons"]
    assert difference(folder, out).changes == ()
    record = with_hits(read_records(folder / LOG)[0], folder)
    clusters, right = clusters_of(record), hits_of(record)
    by_name = dict(zip(sorted(NAMES), zip(right.values(), clusters.values(), strict=True), strict=True))
    assert {len({by_name[n][1] for n in NAMES if GROUP[n] == group}) for group in GROUP.values()} == {1}
    assert len(set(clusters.values())) == len(SUBJECTS)
    assert [by_name[name][0] for name in NAMES] == hits(jobs[0]).tolist()
    with pytest.raises(InputError, match="test_groups: expected one for each of 20 test videos"):
        clusters_of(record | {"test_groups": [0, 1]})


def test_changes_of_two_folders_are_over_groups(
    people: tuple[Path, Path, list[Job], SweepReport], tmp_path: Path
) -> None:
    folder, _, jobs, _ = people
    for job in jobs:
        write(tmp_path, job, hits(job, 0.4))
    change = next(each for each in difference(folder, tmp_path).changes if each.place == {"attention": "divided"})
    assert change.metric == "top1_percent"
    before = runs_of(jobs, "divided")
    after = {
        job.spec.seed or 0: dict(zip(NAMES, hits(job, 0.4).astype(float), strict=True))
        for job in jobs
        if job.spec.model.attention == "divided"
    }
    expected = crossed_difference(after, before, GROUP)
    assert (change.low, change.high) == pytest.approx(expected.interval())


def test_two_speakers_are_taken_as_given(tmp_path: Path) -> None:
    speakers = {name: "ab"[number % 2] for number, name in enumerate(NAMES)}
    for job in sweep_of(tmp_path):
        write(tmp_path, job, hits(job), group=speakers)
    report = sweep_report(tmp_path)
    said = "conditional on these 2 groups of test videos, too few to speak of others"
    assert f"attention divided: {said}." in report.findings
    sentence = report.comparisons[0].sentence()
    assert said in sentence
    assert "for new seeds and new test videos of these 2 groups" in sentence


def test_runs_that_group_the_same_videos_differently_are_refused(tmp_path: Path) -> None:
    first, *others = sweep_of(tmp_path)
    write(tmp_path, first, hits(first), group=dict.fromkeys(NAMES, "x"))
    for job in others:
        write(tmp_path, job, hits(job))
    with pytest.raises(InputError, match=r"test video s0_0\.mp4: in group 's0' of one run and in 'x' of another"):
        sweep_report(tmp_path)


# Seeds that fail


def levelled(folder: Path, accuracies: dict[str, list[float]], level: float | None = 60.0) -> SweepReport:
    seeds = max(map(len, accuracies.values()))
    for job in sweep_of(folder, tuple(accuracies), seeds):
        share = accuracies[job.spec.model.attention][job.spec.seed or 0]
        notes = {} if level is None else {"failed_below_percent": level}
        write(folder, job, np.arange(len(NAMES)) < round(share / 100 * len(NAMES)), group=None, **notes)
    return sweep_report(folder)


def test_failed_seeds_are_counted_and_hide_the_mean_s_interval(tmp_path: Path) -> None:
    report = levelled(tmp_path, {"divided": [90, 85, 30, 90, 95, 25, 90], "joint": [80, 85, 80, 85, 80, 85, 80]})
    fallen, whole = row_of(report, "divided"), row_of(report, "joint")
    assert np.isnan(fallen["measured_top1_low_percent"])
    assert fallen["measured_top1_two_humps"] == "2 of 7 below 60 %, median 90.0 %"
    assert 60 < whole["measured_top1_low_percent"] < whole["measured_top1_percent"]
    assert pd.isna(whole["measured_top1_two_humps"])
    (said,) = [each for each in report.findings if "seeds fail" in each]
    assert said.startswith(
        "attention divided: 2 of 7 seeds fail (below 60 %): 29 % of trainings (4 to 71 %); median 90.0 %"
    )
    assert "(25.0 to 95.0 %)" in said  # seven seeds: the median lies within their whole range in 98 % of cases
    assert "no interval of the mean: too few seeds for two humps" in said
    assert any(column.title == "Failed seeds" for column in report.tables["summary"].columns)
    plain = levelled(tmp_path / "plain", {"divided": [90, 30], "joint": [80, 85]}, level=None)
    assert plain.summary.frame["measured_top1_two_humps"].isna().all()


# Strange sweeps


def test_one_seed_has_no_verdict(tmp_path: Path) -> None:
    jobs = sweep_of(tmp_path, seeds=1)
    for job in jobs:
        write(tmp_path, job, hits(job))
    report = sweep_report(tmp_path)
    (pair,) = report.comparisons
    assert pair.verdict in ("these two models differ", "these two models are not told apart")
    assert pair.to_dict()["direction_p"] is None
    assert json.dumps(report.to_dict(), allow_nan=False)


def test_seeds_that_all_reach_the_same(tmp_path: Path) -> None:
    report = levelled(tmp_path, {"divided": [90, 90, 90], "joint": [80, 80, 80]})
    (pair,) = report.comparisons
    assert pair.judgement is not None
    assert pair.judgement.direction_p is not None
    assert pair.judgement.direction_p > 0.01  # two videos of twenty, whatever the number of seeds
    assert "the 3 seeds do not differ" in pair.sentence()


def test_a_failed_run_among_paired_seeds_leaves_the_others(tmp_path: Path) -> None:
    jobs = sweep_of(tmp_path, seeds=4)
    for job in jobs[1:]:
        write(tmp_path, job, hits(job))
    failure = {"outcome": "failed", "reason": "x", "reason_kind": "error"}
    append_record(
        tmp_path / LOG,
        make_record(jobs[0].spec, started_utc="2026-01-01T00:00:00Z", wall_seconds=1.0, **failure, **jobs[0].belongs),
    )
    report = sweep_report(tmp_path)
    (pair,) = report.comparisons
    assert pair.seeds == (1, 2, 3)
    one, other = ({s: r for s, r in runs_of(jobs, scheme).items() if s} for scheme in ("divided", "joint"))
    assert pair.difference_points == pytest.approx(crossed_difference(one, other, GROUP).mean)
    assert row_of(report, "divided")["runs_failed"] == 1


def test_variants_on_different_test_sets_are_compared_by_their_seeds_alone(tmp_path: Path) -> None:
    for job in sweep_of(tmp_path):
        other = job.spec.model.attention == "joint"
        names = [f"t{name}" for name in NAMES] if other else NAMES
        groups = {f"t{name}": group for name, group in GROUP.items()} if other else GROUP
        write(tmp_path, job, hits(job), names=names, group=groups, fingerprint="other" if other else "test")
    (pair,) = sweep_report(tmp_path).comparisons
    assert (pair.spread.over, pair.spread.note) == ("seeds alone", "the test videos are not the same")
    assert pair.first_percent - pair.second_percent == pytest.approx(pair.difference_points)


def test_seeds_of_which_some_share_test_videos(tmp_path: Path) -> None:
    """A run of three could not read a video: the others' are not all the same, nor all different."""
    for job in sweep_of(tmp_path):
        kept = slice(1, None) if job.spec.seed == 0 else slice(None)
        write(tmp_path, job, hits(job)[kept], names=NAMES[kept])
    report = sweep_report(tmp_path)
    assert row_of(report, "divided")["measured_top1_interval_over"] == "seeds alone"
    (pair,) = report.comparisons
    assert (pair.spread.over, pair.spread.note) == ("seeds alone", "some seeds share test videos and others do not")


def test_an_accuracy_that_is_no_number_is_refused(tmp_path: Path) -> None:
    for number, job in enumerate(sweep_of(tmp_path)):
        write(tmp_path, job, hits(job), scores=bool(number))
    lines = (tmp_path / LOG).read_text().splitlines()
    record = json.loads(lines[0])
    record["metrics"]["top1_percent"] = float("nan")
    (tmp_path / LOG).write_text("\n".join([json.dumps(record), *lines[1:]]) + "\n")
    with pytest.raises(InputError, match=r"records\.jsonl:1: not a record, .*NaN is no number"):
        sweep_report(tmp_path)


def test_some_runs_without_their_videos_allow_seeds_alone(tmp_path: Path) -> None:
    for job in sweep_of(tmp_path):
        write(tmp_path, job, hits(job), scores=job.spec.seed != 1)
    report = sweep_report(tmp_path)
    assert row_of(report, "joint")["measured_top1_interval_over"] == "seeds alone"
    (pair,) = report.comparisons
    assert pair.spread.note == "which test videos were right is not known"
    assert "more test videos are needed" not in pair.sentence()


def test_seeds_that_reach_the_same_without_their_videos(tmp_path: Path) -> None:
    for job in sweep_of(tmp_path):
        share = 18 if job.spec.model.attention == "divided" else 16
        write(tmp_path, job, np.arange(len(NAMES)) < share, scores=False)
    (pair,) = sweep_report(tmp_path).comparisons
    assert (pair.spread.over, pair.verdict) == ("seeds alone", "undecided")
    assert "the 3 seeds do not differ: the interval is that of one more seed, as far from them as can be" in (
        pair.sentence()
    )
    assert "not even 1000 seeds would find 2" in pair.sentence()


def test_a_video_that_the_list_names_twice_counts_twice(tmp_path: Path) -> None:
    names = [*NAMES[:-1], NAMES[0]]
    for job in sweep_of(tmp_path):
        write(tmp_path, job, hits(job), names=names)
    report = sweep_report(tmp_path)
    assert row_of(report, "joint")["measured_top1_test_groups"] == len(SUBJECTS)
    write_sweep_report(report, tmp_path, tmp_path / "out")
    assert sweep_report(tmp_path / "out").summary.frame.equals(report.summary.frame)
