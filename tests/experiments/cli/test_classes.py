"""Classes are matched by name, wherever a model meets data: a model that always says `b` on videos of class `b`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from tests.data.conftest import write_video
from tests.experiments.spec_fakes import SIZES
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.checkpoints import export, load_model, save_model
from timesformer.data import Preprocessing
from timesformer.heads import Labels
from timesformer_experiments.cli.main import app
from timesformer_experiments.jobs.plan import run_one
from timesformer_experiments.specs.run import load_specs

PREPROCESSING = Preprocessing(short_side=16, crop=16, num_frames=2).to_dict()


def command(*words: object) -> Any:
    return CliRunner().invoke(app, list(map(str, words)))


def evaluated(*words: object) -> dict[str, Any]:
    done = command("evaluate", *words, "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["evaluations"]
    return dict(found)


def refused(*words: object) -> str:
    done = command("evaluate", *words)
    assert done.exit_code == 2, done.output
    return " ".join(done.stderr.split())


def model(folder: Path, labels: Labels | None, says: tuple[int, ...], classes: int | tuple[int, ...] = 3) -> Path:
    """A model that gives these logits the highest scores, whatever it sees."""
    torch.manual_seed(0)
    network = TimeSformer(TimeSformerConfig(attention="divided", num_frames=2, num_classes=classes, **SIZES))
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.zero_()
        network.head.bias[list(says)] = 10.0
    return save_model(folder, network, preprocessing=PREPROCESSING, labels=labels)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of classes whose one video is of class b, and lists of the same video."""
    folder = tmp_path_factory.mktemp("classes")
    (folder / "clips" / "b").mkdir(parents=True)
    write_video(folder / "clips" / "b" / "v.mp4", frames=4, size=(16, 16))
    return folder


def run_file(place: Path, labels: str, label: int = 0, num_classes: object = 3) -> Path:
    """A run's file whose one video is of class 0."""
    (place / "list.csv").write_text(f"clips/b/v.mp4 {label}\n")
    path = place / "run.yaml"
    sizes = json.dumps({"attention": "divided", "num_frames": 2, **SIZES}).replace('"', "")
    path.write_text(
        f"name: run\ndata: {{train: list.csv, test: list.csv, num_classes: {num_classes}{labels}}}\n"
        f"model: {sizes}\nrecipe: {{steps: 1, batch_size: 1}}\nprotocol: clip\nthreads: 1\n"
    )
    return path


def test_the_same_classes_in_another_order(place: Path, tmp_path: Path) -> None:
    file = run_file(place, ", labels: [b, a, c]")
    found = evaluated(file, "--checkpoint", model(tmp_path / "m", ["a", "b", "c"], (1,)), "--runs", tmp_path)
    assert (found["top1_percent"], found["classes"]) == (100.0, "by name, in another order")
    found = evaluated(file, "--checkpoint", tmp_path / "m", "--runs", tmp_path, "--classes", "number")
    assert (found["top1_percent"], found["classes"]) == (0.0, "by number")
    shown = command("evaluate", file, "--checkpoint", tmp_path / "m", "--runs", tmp_path, "--classes", "number").stdout
    assert "classes compared by number" in " ".join(shown.split())
    found = evaluated(file, "--checkpoint", model(tmp_path / "same", ["b", "a", "c"], (0,)), "--runs", tmp_path)
    assert (found["top1_percent"], found["classes"]) == (100.0, "by name")


def test_one_name_is_different(place: Path, tmp_path: Path) -> None:
    file = run_file(place, ", labels: [b, a, see]")
    source = model(tmp_path / "m", ["a", "b", "c"], (1,))
    said = refused(file, "--checkpoint", source, "--runs", tmp_path)
    assert "3 classes here, 3 there; only here: 'see'; only there: 'c' (here: the data, there: the model)" in said
    assert "--classes FILE says which class is which, --classes number compares by number" in said
    table = tmp_path / "words.yaml"
    table.write_text("see: c\n")
    found = evaluated(file, "--checkpoint", source, "--runs", tmp_path, "--classes", table)
    assert (found["top1_percent"], found["classes"]) == (100.0, "by words.yaml, in another order")
    table.write_text("sea: c\n")
    assert "'sea' is no class of the data" in refused(file, "--checkpoint", source, "--classes", table)
    assert "expected names, number, or a .yaml file" in refused(file, "--checkpoint", source, "--classes", "nmaes")


def test_more_classes_are_refused(place: Path, tmp_path: Path) -> None:
    file = run_file(place, ", labels: [b, a, c]")
    source = model(tmp_path / "m", ["a", "b", "c", "d"], (1,), 4)
    assert "3 classes here, 4 there; only there: 'd'" in refused(file, "--checkpoint", source, "--runs", tmp_path)
    said = refused(file, "--checkpoint", source, "--runs", tmp_path, "--classes", "number")
    assert "its head has 4 classes, the data have 3" in said


@pytest.mark.parametrize("side", ["data", "model"])
def test_names_that_are_missing_on_one_side(place: Path, tmp_path: Path, side: str) -> None:
    file = run_file(place, "" if side == "data" else ", labels: [b, a, c]")
    source = model(tmp_path / "m", ["b", "a", "c"] if side == "data" else None, (0,))
    done = command("evaluate", file, "--checkpoint", source, "--runs", tmp_path)
    assert f"classes are compared by number: those of the {side} have no names" in " ".join(done.stderr.split())
    found = evaluated(file, "--checkpoint", source, "--runs", tmp_path)
    assert (found["top1_percent"], found["classes"]) == (
        100.0,
        f"by number: the classes of the {side} have no names",
    )


def test_several_heads(place: Path, tmp_path: Path) -> None:
    """Heads of 2 and 3 classes, verb and noun, that the model has in the other order."""
    (place / "epic.csv").write_text(
        "narration_id,participant_id,video_id,start_frame,stop_frame,verb_class,noun_class\nP_0,P,V,1,4,0,2\n"
    )
    (place / "P").mkdir(exist_ok=True)
    write_video(place / "P" / "V.mp4", frames=8, size=(16, 16))
    labels = ", format: epic_kitchens, labels: {verb: [put, take], noun: [cup, knife, pan]}"
    file = run_file(place, labels, num_classes="[2, 3]")
    file.write_text(file.read_text().replace("list.csv", "epic.csv"))
    theirs = {"noun": ["pan", "cup", "knife"], "verb": ["take", "put"]}
    source = model(tmp_path / "m", theirs, (0, 4), (3, 2))
    found = evaluated(file, "--checkpoint", source, "--runs", tmp_path)
    assert (found["top1_percent"], found["classes"]) == (100.0, "by name, in another order")
    other = {"noun": ["pan", "cup", "fork"], "verb": ["take", "put"]}
    said = refused(file, "--checkpoint", model(tmp_path / "n", other, (0, 4), (3, 2)), "--runs", tmp_path)
    assert "noun: 3 classes here, 3 there; only here: 'knife'; only there: 'fork'" in said


def test_annotation_files_that_bring_names(place: Path, tmp_path: Path) -> None:
    """A vocabulary beside the file says what its numbers mean; the model numbers the classes otherwise."""
    folder = place / "ssv2"
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    write_video(folder / "videos" / "1.webm", frames=4, size=(16, 16), codec="libvpx")
    (folder / "something-something-v2-labels.json").write_text(json.dumps({"b": "0", "a": "1", "c": "2"}))
    file = folder / "something-something-v2-validation.json"
    file.write_text(json.dumps([{"id": "1", "template": "b", "label": "b"}]))
    source = model(tmp_path / "m", ["a", "b", "c"], (1,))
    words = (file, "--format", "ssv2", "--root", folder / "videos", "--checkpoint", source, "--runs", tmp_path)
    found = evaluated(*words)
    assert (found["top1_percent"], found["classes"]) == (100.0, "by name, in another order")
    assert evaluated(*words, "--classes", "number")["top1_percent"] == 0.0
    (folder / "something-something-v2-labels.json").write_text(json.dumps({"b": "0", "a": "1", "d": "2"}))
    assert evaluated(*words)["top1_percent"] == 100.0  # the data's own classes are among the model's
    file.write_text(json.dumps([{"id": "1", "template": "d", "label": "d"}]))
    assert "has no class 'd'; its classes are 'a', 'b', 'c'" in refused(*words)
    table = tmp_path / "words.yaml"
    table.write_text("d: b\n")
    assert evaluated(*words, "--classes", table)["top1_percent"] == 100.0


def test_two_classes_of_the_data_are_not_counted_as_one_of_the_model(place: Path, tmp_path: Path) -> None:
    """A class of the vocabulary that no video has does not matter."""
    folder = place / "two"
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    for name in ("1", "2"):
        write_video(folder / "videos" / f"{name}.webm", frames=4, size=(16, 16), codec="libvpx")
    (folder / "something-something-v2-labels.json").write_text(json.dumps({"b": "0", "a": "1", "d": "2"}))
    file = folder / "something-something-v2-validation.json"
    entries = [{"id": "1", "template": "d", "label": "d"}, {"id": "2", "template": "b", "label": "b"}]
    file.write_text(json.dumps(entries))
    source = model(tmp_path / "m", ["a", "b", "c"], (1,))
    words = (file, "--format", "ssv2", "--root", folder / "videos", "--checkpoint", source, "--runs", tmp_path)
    table = tmp_path / "words.yaml"
    table.write_text("d: b\n")
    said = refused(*words, "--classes", table)
    assert "words.yaml: 'b', 'd' are both 'b' in the model" in said
    table.write_text("d: c\n")
    assert evaluated(*words, "--classes", table)["top1_percent"] == 50.0
    table.write_text("{d: b, b: a}\n")
    assert evaluated(*words, "--classes", table)["classes"] == "by words.yaml, in another order"
    table.write_text("{d: b, a: b}\n")
    file.write_text(json.dumps(entries[:1]))
    assert evaluated(*words, "--classes", table)["top1_percent"] == 100.0


def test_a_vocabulary_that_cannot_be_read_is_not_passed_over(place: Path, tmp_path: Path) -> None:
    """Its numbers would be taken for the model's."""
    folder = place / "diving"
    folder.mkdir()
    write_video(folder / "v.mp4", frames=4, size=(16, 16))
    file = folder / "Diving48_V2_test.json"
    file.write_text(json.dumps([{"vid_name": "v", "label": 0, "start_frame": 0, "end_frame": 4}]))
    words = (file, "--format", "diving48", "--checkpoint", model(tmp_path / "m", ["a", "b", "c"], (1,)))
    (folder / "Diving48_vocab.json").write_text(json.dumps(["b", "a"]))
    assert evaluated(*words)["top1_percent"] == 100.0
    (folder / "Diving48_vocab.json").write_text(json.dumps(["b", "b"]))
    assert "classes 0 and 1 have the same name, 'b'" in refused(*words)


def test_a_rule_for_names_that_nothing_lists_is_refused(place: Path, tmp_path: Path) -> None:
    folder = place / "unlisted"
    folder.mkdir()
    write_video(folder / "1.webm", frames=4, size=(16, 16), codec="libvpx")
    file = folder / "validation.json"
    file.write_text(json.dumps([{"id": "1", "template": "b", "label": "b"}]))
    words = (file, "--format", "ssv2", "--root", folder, "--checkpoint", model(tmp_path / "m", ["a", "b", "c"], (1,)))
    assert evaluated(*words)["top1_percent"] == 100.0
    table = tmp_path / "words.yaml"
    table.write_text("b: a\n")
    for rule in ("number", table):
        assert "class names are missing" in refused(*words, "--classes", rule)


def test_a_name_that_several_classes_have(place: Path, tmp_path: Path) -> None:
    source = model(tmp_path / "m", ["b", "b", "c"], (0,))
    said = refused(place / "clips", "--checkpoint", source)
    assert "has several classes of the name 'b'" in said
    folder = place / "twice"
    folder.mkdir()
    write_video(folder / "1.webm", frames=4, size=(16, 16), codec="libvpx")
    file = folder / "validation.json"
    file.write_text(json.dumps([{"id": "1", "template": "b", "label": "b"}]))
    said = refused(file, "--format", "ssv2", "--root", folder, "--checkpoint", source)
    assert "classes 0 and 1 have the same name, 'b'" in said


def test_a_folder_with_some_of_the_classes(place: Path, tmp_path: Path) -> None:
    source = model(tmp_path / "m", ["a", "b", "c"], (1,))
    assert evaluated(place / "clips", "--checkpoint", source, "--runs", tmp_path)["top1_percent"] == 100.0


def test_predict_export_and_back(place: Path, tmp_path: Path) -> None:
    names = [f"class of {letter}" for letter in "cab"] + [f"class {number}" for number in range(3, 12)]
    source = model(tmp_path / "m", names, (2,), 12)
    theirs = export(load_model(source), tmp_path / "theirs")
    ours = export(load_model(theirs), tmp_path / "ours", "timesformer-ablations")
    for folder in (source, theirs, ours):
        assert load_model(folder).labels == names
        done = command("predict", place / "clips", "--checkpoint", folder, "--json")
        assert json.loads(done.stdout)["videos"][0]["top"][0]["label"] == "class of b"


HEAD = "head.bias"


@pytest.mark.parametrize(
    ("labels", "rule", "note"),
    [
        ("[b, a, c]", "names", "head: reordered: the same classes in another order"),
        ("[a, b, c]", "names", "head: kept: the same classes"),
        ("[a, b, d]", "names", "only here: 'd'; only there: 'c'"),
        ("[a, b, c, d]", "names", "another number of classes: 4 classes here, 3 there; only here: 'd'"),
        ("[a, b, d]", "number", None),
        ("[a, b, c]", "fresh", "head: starts from random weights: as asked for (init_head: fresh)"),
        (None, "names", "these classes have no names"),
    ],
)
def test_fine_tuning_keeps_the_head_where_the_names_agree(
    place: Path, tmp_path: Path, labels: str | None, rule: str, note: str | None
) -> None:
    source = model(tmp_path / "m", ["a", "b", "c"], (1,))
    classes = 3 if labels is None else labels.count(",") + 1
    file = run_file(place, "" if labels is None else f", labels: {labels}", num_classes=classes)
    text = file.read_text().replace("steps: 1,", "steps: 1, lr: 0.000001,")
    file.write_text(text + f"init_from: {source}\n" + (f"init_head: {rule}\n" if rule != "names" else ""))
    (spec,) = load_specs(file)
    assert spec.init_head == rule
    record = run_one(spec, tmp_path / "runs", data_dir=tmp_path / "cache", progress=False)
    trained = load_model(tmp_path / "runs" / record["hash"] / "model")
    says = "b" if note is None or "kept" in note or "reordered" in note else None
    bias = trained.model.state_dict()[HEAD]
    assert (bias.max() > 9.9) == (says is not None)
    if says is not None:
        assert trained.labels[int(bias.argmax())] == says  # type: ignore[index]
    notes = trained.provenance["started_from"]["notes"]
    assert any(note in line for line in notes) if note else notes == []


def test_the_rule_is_a_part_of_what_defines_a_run(place: Path, tmp_path: Path) -> None:
    source = model(tmp_path / "m", ["a", "b", "c"], (1,))
    file = run_file(place, ", labels: [a, b, c]")
    text = file.read_text()

    def definition(more: str) -> dict[str, Any]:
        file.write_text(text + more)
        (spec,) = load_specs(file)
        return spec.definition()

    start = f"init_from: {source}\n"
    rules = {rule: definition(f"{start}init_head: {rule}\n") for rule in ("names", "number", "fresh")}
    assert definition(start) == rules["names"]
    assert "init_head" not in rules["number"]  # as it was before there was a choice
    assert [rules[rule]["init_head"] for rule in ("names", "fresh")] == ["names", "fresh"]
    assert definition("init_head: fresh\n") == definition("")  # without a start there is nothing to choose


def test_the_names_in_a_checkpoint_are_a_part_of_what_defines_a_run_that_keeps_its_head_by_them(
    place: Path, tmp_path: Path
) -> None:
    """The same weights with corrected names are another start."""
    ours = model(tmp_path / "ours", ["a", "b", "c"], (1,))
    theirs = export(load_model(ours), tmp_path / "theirs")
    file = run_file(place, ", labels: [a, b, c]")
    text = file.read_text()

    def hashes(rule: str) -> list[str]:
        found = []
        for source in (ours, ours / "model.safetensors", theirs):
            file.write_text(f"{text}init_from: {source}\ninit_head: {rule}\n")
            found += [spec.hash() for spec in load_specs(file)]
        return found

    before = {rule: hashes(rule) for rule in ("names", "number", "fresh")}
    (ours / "labels.json").write_text(json.dumps(["b", "a", "c"]))
    config = json.loads((theirs / "config.json").read_text())
    (theirs / "config.json").write_text(json.dumps(config | {"id2label": {"0": "b", "1": "a", "2": "c"}}))
    after = {rule: hashes(rule) for rule in before}
    assert all(one != other for one, other in zip(before["names"], after["names"], strict=True))
    assert all(before[rule] == after[rule] for rule in ("number", "fresh"))
