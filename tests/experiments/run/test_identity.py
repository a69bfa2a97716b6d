"""A result belongs to the videos that it was made with, and to no others."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.data.conftest import write_video
from tests.experiments.spec_fakes import SIZES, image, small
from timesformer import TimeSformer
from timesformer.data import Preprocessing, VideoDataset, probes, read_annotations
from timesformer.errors import InputError
from timesformer.training import loop
from timesformer_experiments.cli.main import app
from timesformer_experiments.jobs.plan import run_all, run_one
from timesformer_experiments.records.log import LOG, RECORD_VERSION, read_records
from timesformer_experiments.records.read import load_results
from timesformer_experiments.run import identity
from timesformer_experiments.run.identity import OtherData
from timesformer_experiments.specs.run import RunSpec, resolve
from timesformer_experiments.specs.sweep import parse_sweep

NAMES = ("a.mp4", "b.mp4")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `old` and `new` of two videos each, of the same names and sizes in bytes; a list of them."""
    folder = tmp_path_factory.mktemp("videos")
    # The third is so much longer that its frames are far brighter: a loss of it is another one on any machine.
    lengths = enumerate((4, 5, 40))
    made = [write_video(folder / f"{number}.mp4", frames=frames, size=(24, 32)) for number, frames in lengths]
    size = max(path.stat().st_size for path in made) + 8
    for number, path in enumerate(made):
        pad = size - path.stat().st_size
        for where in {0: ("old/a.mp4", "new/a.mp4"), 1: ("old/b.mp4",), 2: ("new/b.mp4",)}[number]:
            (folder / where).parent.mkdir(exist_ok=True)
            box = struct.pack(">I4s", pad, b"free") + bytes(pad - 8)
            (folder / where).write_bytes(path.read_bytes() + box)
    for name in ("train", "test"):
        (folder / f"{name}.csv").write_text("a.mp4 0\nb.mp4 1\n")
    return folder


@pytest.fixture
def place(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "place"))


def run_of(place: Path, root: str = "old", **changes: Any) -> RunSpec:
    lists = {name: str(place / f"{name.removesuffix('_csv')}.csv") for name in ("train_csv", "test_csv")}
    data = {**lists, "root": str(place / root), "num_classes": 2, **changes.pop("data", {})}
    recipe = {"steps": 2, "batch_size": 2, "checkpoint_every": 1}
    return small(**{"name": "tiny", "data": data, "recipe": recipe, **changes})


def train(spec: RunSpec, place: Path, runs: str = "runs") -> dict[str, Any]:
    return run_one(spec, place / runs, progress=False)


def trained(place: Path) -> int:
    """How many runs have been trained here."""
    return len(read_records(place / "runs" / LOG))


def test_the_same_list_with_another_root_is_another_result(place: Path) -> None:
    record = train(run_of(place), place)
    assert record["record_version"] == RECORD_VERSION == 2
    assert record["dataset"]["identity"] == {
        "kind": "files",
        "full": False,
        "train": record["dataset"]["train"]["fingerprint"],
        "test": record["dataset"]["test"]["fingerprint"],
        "start": None,
    }
    assert record["dataset"]["train"]["fingerprint_seconds"] > 0
    other = run_of(place, "new")
    assert other.hash() == record["hash"]
    expected = r"run 'tiny': its stored result belongs to other videos: train: 1 of 2 files has changed: b\.mp4; test"
    with pytest.raises(OtherData, match=expected + r".*after removing .*runs"):
        train(other, place)
    with pytest.raises(OtherData, match=expected):
        run_all([other], place / "runs", progress=False)
    assert train(other, place, "others")["dataset"]["identity"]["train"] != record["dataset"]["identity"]["train"]
    # The same content in another place is the same data.
    shutil.copytree(place / "old", place / "copy")
    assert train(run_of(place, "copy"), place) == record
    # Removing the run's folder is how today's videos take its place, and then the new record holds.
    shutil.rmtree(place / "runs" / record["hash"])
    (again,) = run_all([other], place / "runs", progress=False)
    assert again["dataset"]["identity"]["train"] != record["dataset"]["identity"]["train"]
    assert run_all([other], place / "runs", progress=False) == [again]
    with pytest.raises(OtherData, match="belongs to other videos"):
        run_all([run_of(place)], place / "runs", progress=False)


def test_a_failure_of_a_run_that_is_trained_anew_is_not_hidden(place: Path) -> None:
    record = train(run_of(place), place)
    whole = (place / "old" / "b.mp4").read_bytes()
    shutil.rmtree(place / "runs" / record["hash"])
    (place / "old" / "b.mp4").write_bytes(b"no video")
    for _ in range(2):
        with pytest.raises(InputError, match=r"b\.mp4: not a video"):
            train(run_of(place), place)
        assert list(load_results(place / "runs")["outcome"]) == ["failed"]
    (place / "old" / "b.mp4").write_bytes(whole)
    shutil.rmtree(place / "runs" / record["hash"])  # with its checkpoint, which belongs to the other file
    assert train(run_of(place), place)["outcome"] == "done"
    assert list(load_results(place / "runs")["outcome"]) == ["done"]


def test_a_file_replaced_by_one_of_the_same_size_is_noticed_and_a_touched_one_is_not(place: Path) -> None:
    spec = run_of(place)
    record = train(spec, place)
    for name in NAMES:
        (place / "old" / name).touch()
    assert train(spec, place) == record
    assert run_all([spec], place / "runs", progress=False) == [record]
    assert trained(place) == 1
    assert (place / "old" / "b.mp4").stat().st_size == (place / "new" / "b.mp4").stat().st_size
    shutil.copyfile(place / "new" / "b.mp4", place / "old" / "b.mp4")
    with pytest.raises(OtherData, match=r"1 of 2 files has changed: b\.mp4"):
        train(spec, place)
    (place / "old" / "b.mp4").unlink()
    with pytest.raises(OtherData, match=r"1 of 2 files has changed, 1 of them missing: b\.mp4"):
        train(spec, place)
    assert trained(place) == 1


def test_a_full_digest_on_request(place: Path) -> None:
    plain, full = run_of(place), run_of(place, data={"fingerprint": "full"})
    assert plain.hash() == full.hash()
    record = train(full, place)
    assert record["dataset"]["identity"]["full"]
    assert train(plain, place) == record  # held against today's files by what it has
    train(plain, place, "sampled")
    with pytest.raises(
        OtherData, match="knows its videos by samples of each file, but the run states fingerprint: full"
    ):
        train(full, place, "sampled")


def test_results_of_one_run_on_different_videos_are_not_read_as_one(place: Path) -> None:
    for root in ("old", "new"):
        train(run_of(place, root), place, f"all/{root}")
    shutil.copytree(place / "old", place / "copy")
    train(run_of(place, "copy"), place, "same/copy")
    shutil.copytree(place / "all" / "old", place / "same" / "old")
    assert len(load_results(place / "same")) == 1
    assert len(load_results(place / "all" / "old")) == 1
    with pytest.raises(InputError, match=r"all/new/.*:1 and .*all/old/.*:1: results of one run \('tiny', .*different"):
        load_results(place / "all")


def older(record: dict[str, Any], runs: Path) -> dict[str, Any]:
    """A record as version 1 wrote it, in its run's folder and in the log."""
    halves = {half: dict(record["dataset"][half]) for half in ("train", "test")}
    for audit in halves.values():
        del audit["fingerprint_seconds"], audit["fingerprint_read"]
    old = {**record, "record_version": 1, "dataset": halves}
    (runs / record["hash"] / "record.json").write_text(json.dumps(old))
    (runs / LOG).write_text(json.dumps(old) + "\n")
    return old


def test_a_record_of_version_1_stays_valid_where_its_videos_are_the_same(place: Path) -> None:
    spec = run_of(place)
    old = older(train(spec, place), place / "runs")
    assert train(spec, place) == old
    assert run_all([spec], place / "runs", progress=False) == [old]
    with pytest.raises(OtherData, match="train: some of its files have changed; test: some of its files have changed"):
        train(run_of(place, "new"), place)


def test_a_probe_made_again_is_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = image()
    record = run_one(spec, tmp_path / "runs", progress=False)
    shutil.rmtree(tmp_path / ".cache")
    assert run_one(spec, tmp_path / "runs", progress=False) == record
    assert run_all([spec], tmp_path / "runs", progress=False) == [record]
    old = older(record, tmp_path / "runs")
    assert run_one(spec, tmp_path / "runs", progress=False) == old
    (tmp_path / "runs" / record["hash"] / "record.json").write_text(json.dumps(record))
    monkeypatch.setattr(probes.generate, "_GENERATOR", 1000)
    with pytest.raises(OtherData, match="train: the probe's generator makes other videos today"):
        run_one(spec, tmp_path / "runs", progress=False)


class Stopped(RuntimeError):
    pass


def stop_at(step: int) -> Callable[[int, int, float], None]:
    def on_step(done: int, total: int, loss: float) -> None:
        if done == step:
            raise Stopped

    return on_step


def test_a_run_is_not_resumed_over_changed_videos(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "REPORT_EVERY", 1)
    spec = run_of(place, recipe={"steps": 4, "batch_size": 2, "checkpoint_every": 1})
    with pytest.raises(Stopped):
        run_one(spec, place / "runs", progress=stop_at(3))
    with pytest.raises(InputError, match=r"checkpoint of a run on other videos: 1 of 2 files has changed: b\.mp4"):
        train(run_of(place, "new", recipe=spec.recipe), place)
    (folder,) = [path for path in (place / "runs").iterdir() if path.is_dir()]
    assert (folder / "checkpoint" / "checkpoint.safetensors").is_file()
    assert train(spec, place)["outcome"] == "done"


def test_a_plain_training_loop_does_not_resume_over_changed_videos(place: Path, tmp_path: Path) -> None:
    """Without specs and records the dataset says what its videos are."""
    spec = run_of(place)
    record = Preprocessing(num_frames=2, short_side=16, crop=16)

    def resumed(root: str) -> loop.FitResult:
        videos = VideoDataset(read_annotations("kinetics", place / "train.csv", place / root), record, train=True)
        return loop.fit(TimeSformer(spec.model), videos, spec.recipe, tmp_path / "fit", progress=False)

    assert [resumed("old").resumed_from for _ in range(2)] == [0, 2]
    with pytest.raises(InputError, match=r"checkpoint of a run on other videos: 1 of 2 files has changed: b\.mp4"):
        resumed("new")


def test_a_probe_made_again_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "REPORT_EVERY", 1)
    spec = image(recipe={"steps": 4, "batch_size": 8, "checkpoint_every": 1})
    with pytest.raises(Stopped):
        run_one(spec, tmp_path / "runs", progress=stop_at(3))
    shutil.rmtree(tmp_path / ".cache")
    assert run_one(spec, tmp_path / "runs", progress=False)["outcome"] == "done"


def test_videos_that_change_while_a_run_is_at_work(place: Path) -> None:
    def change(done: int, total: int, loss: float) -> None:
        shutil.copyfile(place / "new" / "b.mp4", place / "old" / "b.mp4")

    with pytest.raises(OtherData, match=r"its videos changed while it was at work: train: 1 of 2 .*b\.mp4; test: "):
        run_one(run_of(place), place / "runs", progress=change)
    (record,) = read_records(place / "runs" / LOG)
    assert (record["outcome"], record["reason_kind"]) == ("failed", "bad_input")


def test_a_result_belongs_to_the_videos_behind_its_start(place: Path) -> None:
    """The first run is made anew on other videos: what was started from it before is not taken for its successor."""
    first = run_of(place, name="first", data={"root": str(place / "new")})
    second = run_of(place, name="second", init_from="first", seed=1)
    runs = place / "runs"
    before = run_all([first, second], runs, progress=False)
    assert before[1]["dataset"]["identity"]["start"] is not None
    assert run_all([first, second], runs, progress=False) == before
    changed = run_of(place, name="first")
    (resolved,) = [spec for spec in resolve([changed, second]) if spec.name == "second"]
    with pytest.raises(OtherData, match="run 'first': its stored result belongs to other videos"):
        run_all([changed, second], runs, progress=False)
    shutil.rmtree(runs / first.hash())
    with pytest.raises(OtherData, match=r"run 'second'.*the run that it starts from was trained on other videos"):
        run_one(resolved, runs, progress=False)


def test_frames_and_probes_that_are_kept_are_those_of_today(place: Path) -> None:
    spec = run_of(place, data={"cache": True})
    record = train(spec, place)
    frames = sorted((place / ".cache" / "frames").rglob("*.frames"))
    assert len(frames) == 2
    other = run_one(run_of(place, "new", data={"cache": True}), place / "others", data_dir=place / ".cache")
    assert len(sorted((place / ".cache" / "frames").rglob("*.frames"))) == 3  # a.mp4 is the same, b.mp4 is not
    uncached = train(run_of(place, "new", name="uncached"), place, "uncached")
    same = ("train_loss", "top1_percent")
    assert [other["metrics"][name] for name in same] == [uncached["metrics"][name] for name in same]
    assert other["metrics"]["train_loss"] != record["metrics"]["train_loss"]


def test_a_probe_whose_files_were_changed_is_refused(tmp_path: Path) -> None:
    def make() -> probes.ProbeInfo:
        return probes.make_probe("motion", tmp_path, num_train=4, num_test=2)

    made = make()
    assert make() == made
    clip = made.folder / "train" / "000001.mp4"
    content = clip.read_bytes()
    shutil.copyfile(made.folder / "train" / "000000.mp4", clip)
    with pytest.raises(InputError, match=r"not as it was made: 1 of its \d+ files changed: train/000001\.mp4; remove"):
        make()
    info = json.loads((made.folder / "info.json").read_text())
    del info["files"]  # one that was made before files were listed
    (made.folder / "info.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match="not as it was made: its files have changed; remove the folder"):
        make()
    clip.write_bytes(content)
    assert make() == made
    assert "files" in json.loads((made.folder / "info.json").read_text())


def test_a_sweep_over_roots_trains_a_run_for_each(place: Path) -> None:
    base = run_of(place)
    fields = {
        "data": {name: str(getattr(base.data, name)) for name in ("train_csv", "test_csv")} | {"num_classes": 2},
        "model": {"attention": "divided", "num_frames": 2, **SIZES},
        "recipe": {"steps": 1, "batch_size": 2},
        "protocol": "clip",
    }
    roots = [str(place / name) for name in ("old", "new")]
    jobs = parse_sweep({"name": "roots", "base": fields, "axes": {"data.root": roots}}).jobs()
    assert len(jobs) == 2
    versions = [job.spec.data.version for job in jobs.values()]  # type: ignore[union-attr]
    assert None not in versions
    (again,) = parse_sweep({"name": "roots", "base": fields, "axes": {"data.root": roots[:1]}}).jobs().values()
    assert again.spec.data.version is None  # type: ignore[union-attr]
    shutil.copytree(place / "old", place / "copy")
    with pytest.raises(InputError, match="are the same"):
        parse_sweep({"name": "roots", "base": fields, "axes": {"data.root": [roots[0], str(place / "copy")]}}).jobs()


def test_runs_that_differ_in_their_videos_alone_need_a_version(place: Path) -> None:
    runs = [run_of(place, name="old"), run_of(place, "new", name="new")]
    with pytest.raises(InputError, match=r"new: it differs from 'old' in the content of its videos alone; .*version"):
        run_all(runs, place / "runs", progress=False)
    runs = [run_of(place, root, name=root, data={"version": root}) for root in ("old", "new")]
    assert len({run.hash() for run in [*runs, run_of(place)]}) == 3
    found = run_all(runs, place / "runs", progress=False)
    assert len({record["dataset"]["identity"]["train"] for record in found}) == 2


def test_nothing_is_read_again_where_a_remembered_fingerprint_holds(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timesformer.data.fingerprint.SETTLED_SECONDS", -1.0)
    first = train(run_of(place), place)["dataset"]
    assert (first["train"]["fingerprint_read"], first["test"]["fingerprint_read"]) == (2, 0)
    second = train(run_of(place, seed=1), place)["dataset"]
    assert (second["train"]["fingerprint_read"], second["test"]["fingerprint_read"]) == (0, 0)
    assert second["identity"] == first["identity"]
    assert (place / ".cache" / identity.STORE).is_file()


def test_an_unreadable_file_that_is_listed_twice_counts_twice(place: Path) -> None:
    (place / "old" / "c.mp4").write_bytes(b"no video")
    for name in ("train", "test"):
        (place / f"{name}.csv").write_text("a.mp4 0\nb.mp4 1\nc.mp4 0\nc.mp4 1\n")
    record = train(run_of(place, data={"allow_unreadable": True}), place)
    for half in ("train", "test"):
        audit = record["dataset"][half]
        assert (audit["num_videos"], audit["num_unreadable"]) == (4, 2)
        assert [video["path"] for video in audit["unreadable"]] == ["c.mp4", "c.mp4"]
    metrics = record["metrics"]
    assert (metrics["test_videos"], metrics["test_videos_unreadable"], metrics["train_videos_unreadable"]) == (2, 2, 2)


def test_a_report_says_where_its_runs_were_made_on_different_videos(place: Path) -> None:
    def findings(runs: Path) -> str:
        done = CliRunner().invoke(app, ["report", str(runs), "--out", str(place / "out")])
        assert done.exit_code == 0, done.output
        return " ".join(done.stdout.split())

    shutil.copytree(place / "old", place / "copy")
    for runs, other in (("same", "copy"), ("mixed", "new")):
        train(run_of(place, protocol="clip"), place, runs)
        train(run_of(place, other, protocol="clip", seed=1), place, runs)
    assert "different videos" not in findings(place / "same")
    assert "2 runs of the same data were made on different videos" in findings(place / "mixed")
