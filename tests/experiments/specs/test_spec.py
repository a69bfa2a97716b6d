"""Descriptions of runs: what they accept, what they say about bad ones, and what their hash depends on."""

import pickle

import pytest
import yaml

from tests.experiments.spec_fakes import SIZES, fields, image, small
from timesformer import TimeSformer
from timesformer.checkpoints import save_model
from timesformer.data.probes.difficulty import DIFFICULTY
from timesformer.errors import InputError
from timesformer.training.recipe import Recipe
from timesformer_experiments.specs.run import RunSpec, load_specs, resolve, with_dependencies


def test_what_follows_from_the_data():
    spec = small()
    assert spec.model.num_classes == spec.data.num_classes == 8
    assert spec.preprocessing.crop == 16
    assert spec.preprocessing.num_frames == 2
    assert spec.preprocessing.short_side == 20
    assert image().preprocessing.short_side == 40  # the probe's own size
    assert spec.data.difficulty == DIFFICULTY["quick"]


def test_python_values_are_as_good_as_plain_ones():
    plain = small(recipe={"steps": 4, "batch_size": 8})
    objects = RunSpec(
        name="small",
        data=plain.data,
        model=plain.model,
        recipe=Recipe(steps=4, batch_size=8),
        protocol="clip",
        threads=1,
    )
    assert objects == plain
    assert objects.hash() == plain.hash()


def test_a_spec_crosses_process_boundaries():
    spec = small(init_from=image())
    again = pickle.loads(pickle.dumps(spec))
    assert again == spec
    assert again.hash() == spec.hash()


def test_the_hash_names_what_decides_the_result():
    base = small().hash()
    assert len(base) == 16
    same = [
        {"name": "other"},
        {"threads": 2},
        {"recipe": {"steps": 4, "batch_size": 8, "workers": 2, "checkpoint_every": 1}},
        {"recipe": {"steps": 4, "batch_size": 8, "weight_decay": 0.05, "clip_grad_norm": None}},
        {"model": fields()["model"] | {"mlp_ratio": 4}},
        {"data": fields()["data"] | {"cache": False, "difficulty": "quick"}},
    ]
    other = [
        {"seed": 1},
        {"recipe": {"steps": 5, "batch_size": 8}},
        {"protocol": "paper"},
        {"model": fields()["model"] | {"attention": "joint"}},
        {"data": fields()["data"] | {"difficulty": "full"}},
        {"data": fields()["data"] | {"seed": 1}},
        {"data": fields()["data"] | {"preprocessing": {"short_side": 24}}},
        {"init_from": image()},
        {"init_from": image(seed=1)},
    ]
    assert {small(**change).hash() for change in same} == {base}
    assert len({base} | {small(**change).hash() for change in other}) == 1 + len(other)


def test_the_hash_of_csv_data_is_of_their_content(tmp_path):
    def spec(folder):
        folder.mkdir()
        for name in ("train.csv", "test.csv"):
            (folder / name).write_text("a.mp4 0\n")
        paths = {"train_csv": str(folder / "train.csv"), "test_csv": str(folder / "test.csv"), "num_classes": 3}
        return small(data=paths)

    first, second = spec(tmp_path / "a"), spec(tmp_path / "b")
    assert first.hash() == second.hash()
    assert first.model.num_classes == 3
    assert str(tmp_path) not in str(first.definition())
    (tmp_path / "b" / "train.csv").write_text("a.mp4 1\n")
    assert first.hash() != second.hash()
    (tmp_path / "a" / "test.csv").unlink()
    with pytest.raises(InputError, match=r"data\.test_csv: no such annotation file"):
        first.hash()


def test_a_models_folder_counts_by_content(tmp_path):
    spec = image()
    for name in ("a", "b"):
        model = TimeSformer(spec.model)
        model.head.weight.data.fill_(0.1)
        for parameter in model.parameters():
            parameter.data.fill_(0.1)
        save_model(tmp_path / name, model)
    first, second = (small(init_from=str(tmp_path / name)).hash() for name in ("a", "b"))
    assert first == second != small().hash()


BAD = [
    (
        {"data": {"probe": "texture", "num_train": 1, "num_test": 1}},
        "data.probe: expected one of appearance, motion",
    ),
    (
        {"data": {"probe": "motion", "num_train": 0, "num_test": 2}},
        r"data\.num_train: .*greater than or equal to 1, got 0",
    ),
    ({"data": {"probe": "motion", "num_train": 1, "num_test": 3}}, "num_test: expected an even number"),
    ({"data": {"probe": "motion", "num_train": 1}}, r"data\.num_test: Field required"),
    ({"data": {"probe": "motion", "num_train": 1, "num_test": 2, "flip": True}}, "flip: a mirrored clip"),
    (
        {"data": {"probe": "motion", "num_train": 1, "num_test": 2, "difficulty": "hard"}},
        r"data\.difficulty: expected one",
    ),
    (
        {"data": {"probe": "motion", "num_train": 1, "num_test": 2, "difficulty": {"noise": 3}}},
        r"data\.difficulty: difficulty: noise",
    ),
    (
        {"data": {"probe": "motion", "num_train": 1, "num_test": 2, "difficulty": {"dust": 3}}},
        r"data\.difficulty: unknown field 'dust'",
    ),
    (
        {"data": {"probe": "motion", "num_train": 1, "num_test": 2, "difficulty": 3}},
        r"data\.difficulty: expected one of",
    ),
    ({"data": {"train_csv": "a.csv", "num_classes": 3}}, r"data\.test_csv: Field required"),
    ({"data": 3}, "data: expected `probe: …` or `train_csv: …`"),
    ({"data": fields()["data"] | {"colour": 1}}, r"data\.colour: unknown field"),
    (
        {"data": fields()["data"] | {"preprocessing": {"crop": 8}}},
        r"data\.preprocessing: crop: it follows from the model",
    ),
    ({"data": fields()["data"] | {"preprocessing": {"num_frames": 8}}}, r"data\.preprocessing: num_frames: it follows"),
    ({"data": fields()["data"] | {"preprocessing": {"std": 1}}}, r"data\.preprocessing: "),
    (
        {"data": {"probe": "motion", "num_train": 1, "num_test": 2, "difficulty": {"contrast": 3}}},
        r"data\.difficulty: ",
    ),
    ({"data": fields()["data"] | {"preprocessing": {"blur": 1}}}, r"data\.preprocessing: .*unknown field 'blur'"),
    ({"data": fields()["data"] | {"preprocessing": 1}}, r"data\.preprocessing: expected fields"),
    ({"data": fields()["data"] | {"preprocessing": {"short_side": 8}}}, "short_side must be at least the crop"),
    ({"data": fields()["data"] | {"stills": True}}, r"data\.stills: an image model has num_frames 1, got 2"),
    ({"model": {"attention": "wishful"}}, "model: .*wishful"),
    ({"model": {"attention": "joint", "heads": 3}}, "model: .*unknown field 'heads'"),
    ({"model": {"attention": "joint", "num_classes": 5}}, "model: num_classes: 5 here, but the data have 8"),
    ({"model": 3}, "model: expected fields of a model"),
    ({"recipe": {"steps": -1}}, "recipe: steps: expected an integer of at least 1, got -1"),
    ({"recipe": {"steps": 1, "seed": 3}}, "recipe: seed: it belongs to the run"),
    ({"recipe": Recipe(steps=1, seed=3)}, "recipe: seed 3 here, but the run's is 0"),
    ({"recipe": 3}, "recipe: expected fields of a recipe"),
    ({"protocol": "best"}, "protocol: unknown name 'best'"),
    ({"protocol": "coverx1"}, 'clips "cover" needs dense sampling, .*data.preprocessing: {sampling: dense, frame_rate'),
    ({"threads": 0}, "threads: .*got 0"),
    ({"speed": 3}, "speed: unknown field"),
    ({"scheme_file": "nowhere.py"}, "scheme_file: no such file"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_fields_are_named(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        RunSpec.parse(fields(**changes), "x.yaml")
    assert str(caught.value).startswith("x.yaml: ")


def test_a_file_with_one_run(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(fields()))
    assert load_specs(path) == [small()]


def test_a_file_with_several_runs(tmp_path):
    shared = {key: value for key, value in fields().items() if key not in ("name", "model")}
    defaults = shared | {"model": {**SIZES, "num_frames": 2, "attention": "joint"}}
    runs = [
        {"name": "video", "init_from": "first", "model": {"attention": "space"}},
        {"name": "first"},
        {"name": "csv", "data": {"train_csv": "a.csv", "test_csv": "b.csv", "num_classes": 2}},
    ]
    path = tmp_path / "runs.yaml"
    del defaults["data"]
    runs[0]["data"] = runs[1]["data"] = fields()["data"]
    path.write_text(yaml.safe_dump({"defaults": defaults, "runs": runs}))
    video, first, csv = load_specs(path)
    assert video.init_from == first
    assert (video.model.attention, first.model.attention) == ("space", "joint")
    assert csv.data.train_csv == tmp_path / "a.csv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: [", "run.yaml: not a YAML file"),
        ("[1]", "run.yaml: expected the fields of a run, got list"),
        ("runs: []", "run.yaml: runs: expected a list"),
        ("runs: [1]", r"run.yaml: runs\.0: expected the fields of a run, got 1"),
        ("runs: [{name: a}]", r"run.yaml: runs\.0: data: Field required"),
        ("{runs: [], speed: 1}", "run.yaml: unknown field 'speed' beside runs"),
        ("!!python/object/apply:os.system [exit]", "run.yaml: not a YAML file"),
        ("name: a\ndata: 3", "run.yaml: data: expected `probe"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_specs(path)


def test_missing_files(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.yaml: no such file"):
        load_specs(tmp_path / "nothing.yaml")
    with pytest.raises(InputError, match="directory"):
        load_specs(tmp_path)


def test_dependencies():
    start = image()
    by_name, by_hash = small(name="b", init_from="image"), small(name="c", init_from=start.hash(), seed=1)
    resolved = resolve([by_name, by_hash, start])
    assert [spec.init_from for spec in resolved] == [start, start, None]
    chain = small(name="d", seed=2, init_from=resolved[0])
    assert [spec.name for spec in with_dependencies([chain, start]).values()] == ["image", "b", "d"]


def test_impossible_dependencies():
    with pytest.raises(InputError, match=r"in a circle: a <- b <- a"):
        resolve([small(name="a", init_from="b"), small(name="b", init_from="a")])
    with pytest.raises(InputError, match="two different runs are called 'a'"):
        resolve([small(name="a"), small(name="a", seed=1)])
    with pytest.raises(InputError, match="'elsewhere' is neither the name nor the hash of another run nor a model's"):
        resolve([small(init_from="elsewhere")])
    with pytest.raises(InputError, match="'0123456789abcdef' is neither"):
        resolve([small(init_from="0123456789abcdef")])


def test_numbers_with_an_exponent_and_repeated_keys(tmp_path):
    path = tmp_path / "run.yaml"
    text = "name: x\ndata: {probe: motion, num_train: 8, num_test: 8}\nmodel: {image_size: 16, patch_size: 8}\n"
    path.write_text(text + "recipe: {lr: 1e-3, steps: 1}\n")
    (spec,) = load_specs(path)
    assert spec.recipe.lr == 0.001
    path.write_text(text + "recipe: {steps: 1}\nname: y\n")
    with pytest.raises(InputError, match=r"run\.yaml:5: 'name' is given twice, first in line 1"):
        load_specs(path)
