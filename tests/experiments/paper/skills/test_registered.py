"""What is registered: complete, consistent, and as the code proves it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.experiments.paper.skills.skill_files import RECIPE, in_place
from timesformer import TimeSformer, TimeSformerConfig
from timesformer.attention.partition import Grid
from timesformer.data.probes.kinds.contact import Contact
from timesformer.errors import InputError
from timesformer_experiments.paper.recipes import Recipes, read_recipes
from timesformer_experiments.paper.skills.bounds import (
    PARTS,
    blind_to_order,
    bound_percent,
    in_part,
    met,
    met_before_reading,
    parts_of_sum,
    share_met,
)
from timesformer_experiments.paper.skills.plan import cells, followups, spec_of
from timesformer_experiments.paper.skills.registered import SKILLS, read_skills, skills

GRID: Grid = (2, 4, 4)
FOLLOW = {"probe": "bind", "scheme": "joint", "value": 1, "depth": 2, "says": "?", "change": {"recipe.lr": 1}}


def test_every_scheme_is_predicted_at_every_point() -> None:
    found = skills()
    assert list(found.probes) == ["match", "shell", "contact", "cue", "bind", "spin"]
    assert found.schemes == ("joint", "divided", "local_global", "axial", "trajectory", "space")
    for name, skill in found.probes.items():
        quick = skill.points("quick")
        left_out = skill.left_out.get("quick", ())
        assert [value for depth, value in quick if depth == 2] == [v for v in skill.values if v not in left_out], name
        if set(left_out) == set(skill.values):
            assert name in ("cue", "spin")
            continue
        assert {each.value for each in skill.expected if each.depth == 2} == set(skill.values)
        assert (1, skill.registered) in quick
    for skill in found.probes.values():
        assert len(skill.values) >= 3
        assert skill.points("smoke")[0] == (2, skill.registered)
    assert {depth for depth, _ in found.probes["match"].points("full")} == {1, 2, 3, 4}
    assert found.seeds["quick"] == 1


def test_bounds_are_those_of_the_code() -> None:
    for probe, skill in skills().probes.items():
        clips = skill.within == "clips"
        for each in skill.expected:
            for scheme, predicted in each.schemes.items():
                spec = spec_of(probe, skill.registered if clips else each.value, scheme, each.depth, 0, "smoke")
                found = bound_percent(spec, str(each.value) if clips else "all")
                assert found == pytest.approx(predicted.bound_percent, abs=1e-3), (
                    probe,
                    each.depth,
                    each.value,
                    scheme,
                )


def test_nothing_is_proved_where_one_block_reaches_everything() -> None:
    """The reason of every bound of 100, and what is left for a scheme that keeps frames apart."""
    for scheme in skills().schemes:
        for depth in (1, 2):
            parts = parts_of_sum(spec_of("shell", 1, scheme, depth, 0, "smoke").model)
            assert parts is not None
            frames = np.kron(np.eye(2, dtype=bool), np.ones((16, 16), dtype=bool))
            assert (parts == frames).all() if scheme == "space" else parts.all(), (scheme, depth)
    for change in ({"class_token": True}, {"fc_norm": True}, {"pool": "attentive"}):
        assert parts_of_sum(spec_of("shell", 1, "space", 2, 0, "smoke").model.changed(**change)) is None


def test_a_sum_is_a_sum() -> None:
    """A model of `space` without a class token: the logits of four clips that share their frames two by two add up."""
    torch.manual_seed(0)
    for scheme, adds in (("space", True), ("divided", False)):
        model = TimeSformer(spec_of("shell", 1, scheme, 2, 0, "smoke").model).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.3)
            one, other = torch.randn(2, 2, 3, 32, 32, dtype=torch.float64)
            clips = [torch.stack([one[a], other[b]]) for a in (0, 1) for b in (0, 1)]
            kept, second, first, both = model(torch.stack(clips))
        assert torch.allclose(kept + both, second + first, atol=1e-9) == adds


def test_the_bounds_of_sums_by_hand() -> None:
    shell = [bound_percent(spec_of("shell", 1, scheme, 1, 0, "smoke")) for scheme in skills().schemes]
    assert shell == [100, 100, 100, 100, 100, 75]
    space, joint = (spec_of("contact", "all", scheme, 2, 0, "smoke") for scheme in ("space", "joint"))
    assert [bound_percent(space, part) for part in ("frame", "place", "elsewhere")] == [100, 75, 75]
    assert bound_percent(space) == pytest.approx((12 * 100 + 25 * 75) / 37)
    assert bound_percent(joint) == 100


@pytest.mark.parametrize("scheme", ["space", "divided", "joint"])
def test_a_model_that_is_said_to_be_blind_to_order_is(scheme: str) -> None:
    spec = spec_of("match", "axis", scheme, 2, 0, "smoke")
    torch.manual_seed(0)
    model = TimeSformer(spec.model).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    clip = torch.randn(2, 2, 3, 32, 32, dtype=torch.float64)
    same = torch.allclose(model(clip), model(clip.flip(1)), atol=1e-9)
    assert same == blind_to_order(spec) == (scheme == "space")


def test_what_meets_before_the_class_token_reads() -> None:
    """By hand on two frames of four by four patches."""
    frame, row, column = np.indices(GRID).reshape(3, -1)
    place = (row[:, None] == row) & (column[:, None] == column)
    quadrant = (row[:, None] // 2 == row // 2) & (column[:, None] // 2 == column // 2)
    assert not met_before_reading("joint", GRID, 1).any()
    assert not met_before_reading("space", GRID, 1).any()
    assert (met_before_reading("divided", GRID, 1) == place).all()
    assert (met_before_reading("local_global", GRID, 1) == quadrant).all()
    assert met_before_reading("joint", GRID, 2).all()
    within = frame[:, None] == frame
    assert (met_before_reading("space", GRID, 2) == within).all()
    assert (met_before_reading("divided", GRID, 2) == (place | within)).all()


def without_class_token(scheme: str, depth: int) -> TimeSformerConfig:
    return TimeSformerConfig(scheme, num_frames=2, image_size=32, patch_size=8, depth=depth, class_token=False)


def test_without_a_class_token_every_step_counts() -> None:
    frame, row, column = np.indices(GRID).reshape(3, -1)
    place = (row[:, None] == row) & (column[:, None] == column)
    within = frame[:, None] == frame
    assert met(without_class_token("joint", 1)).all()
    assert (met(without_class_token("space", 1)) == within).all()
    assert (met(without_class_token("divided", 1)) == (place | within)).all()
    lines = within & ((row[:, None] == row) | (column[:, None] == column))
    assert (met(without_class_token("axial", 1)) == (place | lines)).all()
    with_token = TimeSformerConfig("joint", num_frames=2, image_size=32, patch_size=8, depth=1)
    assert not met(with_token).any()


def test_the_predicted_map_follows_from_who_meets_whom() -> None:
    skill, kind = skills().probes["contact"], Contact()
    assert list(skill.map_percent) == [" ".join(map(str, offset)) for offset in kind.offsets]
    for place, scheme in enumerate(skills().schemes):
        for depth, most in ((1, 15), (2, 45)):
            pairs = met(without_class_token(scheme, depth))
            percents = {offset: 50 + most * share_met(kind, pairs, offset) for offset in kind.offsets}
            if depth == 2:
                for offset, percent in percents.items():
                    assert skill.map_percent[" ".join(map(str, offset))][place] == round(percent)
            for part in PARTS:
                own = [percent for offset, percent in percents.items() if in_part(offset, part)]
                assert skill.prediction(scheme, depth, part).predicted_percent == round(float(np.mean(own)), 1)


def test_share_met_by_hand() -> None:
    kind, none = Contact(), np.zeros((32, 32), dtype=bool)
    assert share_met(kind, none, (1, 1, 1)) == 0
    assert share_met(kind, ~none, (1, 1, 1)) == 1
    place = met_before_reading("divided", GRID, 1)
    assert share_met(kind, place, (1, 0, 0)) == 1
    assert share_met(kind, place, (1, 0, 1)) == 0
    quadrants = met_before_reading("local_global", GRID, 1)
    assert share_met(kind, quadrants, (1, 0, 1)) == pytest.approx(8 / 12)
    assert share_met(kind, quadrants, (1, 1, 1)) == pytest.approx(4 / 9)
    assert share_met(kind, quadrants, (1, 1, 2)) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.update(colour="red"), "colour: unknown field"),
        (lambda file: file["probes"]["bind"].update(colour="red"), "probes.bind.colour: unknown field"),
        (lambda file: file["probes"]["bind"]["expected"].pop(), r"bind: expected: .*\(1, 1\)"),
        (
            lambda file: file["probes"]["bind"]["expected"][0]["schemes"].pop("axial"),
            "bind: depth 2, 1: expected joint",
        ),
        (
            lambda file: file["probes"]["bind"]["expected"][0]["schemes"]["space"].update(predicted_percent=51),
            "predicted_percent: 51 is above the bound 50",
        ),
        (lambda file: file["probes"]["bind"].update(registered=9), "registered: expected one of"),
        (
            lambda file: file["probes"]["bind"].update(left_out={"quick": [1]}),
            "left_out: expected values .* or all, got 1",
        ),
        (lambda file: file["probes"]["contact"]["map_percent"].update({"0 0 1": [1, 2]}), "0 0 1: expected 6 numbers"),
        (lambda file: file.update(followups=[FOLLOW | {"change": {}}]), "change, start: expected one of them"),
        (lambda file: file.update(followups=[FOLLOW | {"value": 7}]), "followups: no run of bind joint 2 7"),
        (lambda file: file["seeds"].update(quick=0), "seeds.quick: Input should be greater than or equal to 1, got 0"),
        (lambda file: file["seeds"].pop("quick"), "seeds: expected a number for each profile .* none for quick"),
        (lambda file: file["hit"].update(not_learnt=0.9), "not_learnt: expected less than learnt 0.8, got 0.9"),
    ],
)
def test_a_faulty_file_is_refused(tmp_path: Path, change: Any, said: str) -> None:
    values = yaml.safe_load(SKILLS.read_text())
    change(values)
    path = tmp_path / "skills.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(InputError, match=said) as error:
        read_skills(path)
    assert "skills.yaml" in str(error.value)


def test_the_digest_is_of_what_was_registered(tmp_path: Path) -> None:
    """Follow-ups come after the misses and change nothing of it; a prediction does."""
    before = skills().digest()
    with in_place(tmp_path, [FOLLOW]):
        assert skills().digest() == before
    values = yaml.safe_load(SKILLS.read_text())
    values["probes"]["bind"]["expected"][0]["schemes"]["joint"]["predicted_percent"] = 12
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    assert read_skills(tmp_path / "other.yaml").digest() != before


def test_a_hit_is_near_or_at_the_same_level() -> None:
    hit = skills().hit
    assert hit.level(85, 25) == "learnt"
    assert hit.level(84.9, 25) == "in part"
    assert hit.level(40, 25) == "not seen to learn"
    assert hit.is_hit(86, 99, 25)
    assert not hit.is_hit(84, 99, 25)
    assert hit.is_hit(45, 35, 25)  # within ten points, of another level
    assert not hit.is_hit(46, 35, 25)


def test_runs_of_a_profile(tmp_path: Path) -> None:
    assert len(cells("smoke")) == 36
    assert followups("smoke") == []
    with in_place(tmp_path):
        found = cells("quick")
        assert len(found) == 132
        assert len({cell.spec.hash() for cell in found}) == 132
        cell = next(each for each in found if each.point == ("match", "knight", "axial", 2))
        assert (cell.spec.model.attention, cell.spec.model.depth, cell.spec.recipe.lr) == ("axial", 2, 0.003)
        assert cell.spec.data.dials["move"] == "knight"
        assert cell.spec.protocol == "clip"
        assert cell.spec.selection is not None
        assert cell.spec.selection.best_percent == 90
        assert {(c.spec.data.num_test, c.spec.model.depth) for c in found if c.probe == "contact"} == {
            (2368, 1),
            (2368, 2),
        }
        full = [cell.spec for cell in cells("full") if cell.point == ("match", "axis", "joint", 2)]
        assert [(spec.seed, spec.data.seed) for spec in full] == [
            (n, 200 + n) for n in range(5)
        ]  # at the registered value


def test_a_recipe_that_is_missing_is_named(tmp_path: Path) -> None:
    with in_place(tmp_path, without=("cue", "axial")):
        assert cells("smoke")
        with pytest.raises(InputError, match=r"skills_recipes\.yaml: no recipe of axial on cue"):
            cells("quick")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"recipe.lr": 0.1}, "bind.joint.selection: Field required"),
        (RECIPE | {"data.num_train": 9}, r"bind\.joint: data\.num_train: expected selection, or a field"),
        (RECIPE | {"selection": RECIPE["selection"] | {"on": "test"}}, "bind.joint.selection.on"),
        (RECIPE | {"selection": RECIPE["selection"] | {"luck": 1}}, "bind.joint.selection.luck: unknown field"),
        ({"selection": RECIPE["selection"]}, "bind.joint.fields"),
        (3, "bind.joint: expected fields of a run, got 3"),
    ],
)
def test_a_faulty_recipe_is_refused(tmp_path: Path, recipe: Any, said: str) -> None:
    path = tmp_path / "skills_recipes.yaml"
    path.write_text(yaml.safe_dump({"bind": {"joint": recipe}}))
    with pytest.raises(InputError, match=said):
        read_recipes(path)


def test_on_needs_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "skills_recipes.yaml"
    path.write_text(yaml.safe_dump({"bind": {"joint": RECIPE}}).replace("'on'", "on"))
    assert "\n      on: validation" in path.read_text()
    assert read_recipes(path).root["bind"]["joint"].selection.on == "validation"


def test_committed_recipes_make_runs() -> None:
    """Each names fields that a run has."""
    assert read_recipes(Path("nowhere.yaml")) == Recipes({})
    from timesformer_experiments.paper.skills.recipes import recipes

    for probe, of_schemes in recipes().root.items():
        skill = skills().probes[probe]
        for scheme in of_schemes:
            assert spec_of(probe, skill.registered, scheme, 2, 0, "quick").model.attention == scheme


def test_a_value_that_is_left_out_is_not_run_and_not_followed_up(tmp_path: Path) -> None:
    with in_place(tmp_path, [FOLLOW | {"value": 3}, FOLLOW | {"value": 2}]):
        assert [cell.value for cell in followups("quick")] == [3, 2]
        values = yaml.safe_load((tmp_path / "skills.yaml").read_text())
        values["probes"]["bind"]["left_out"] = {"quick": [3]}
        (tmp_path / "skills.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        skills.cache_clear()
        cells.cache_clear()
        assert [cell.value for cell in followups("quick")] == [2]
        assert {cell.value for cell in cells("quick") if cell.probe == "bind"} == {1, 2}
        assert {cell.value for cell in cells("full") if cell.probe == "bind"} == {1, 2, 3}


def test_a_followup_changes_the_run_and_may_start_from_another(tmp_path: Path) -> None:
    follow = {"probe": "match", "scheme": "divided", "value": "knight", "depth": 2, "says": "slowly?"}
    changes = {"change": {"recipe.steps": 99}, "start": "axis"}
    with in_place(tmp_path, [follow | changes]):
        (cell,) = followups("quick")
        assert cell.spec.recipe.steps == 99
        start = cell.spec.init_from
        assert not isinstance(start, str)
        assert start is not None
        assert start.hash() == spec_of("match", "axis", "divided", 2, 0, "quick").hash()
        assert start.recipe.steps == 10
