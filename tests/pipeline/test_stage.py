"""Which stages need which, which are chosen, and what their marks see."""

import os
from pathlib import Path

import pytest
from pipeline_builders import diamond, python_stage, writer

from omniq_verl.packaged import RECIPES
from omniq_verl.pipeline import marks
from omniq_verl.pipeline.marks import differences, marks_of, read_mark, recipe_files, write_mark
from omniq_verl.pipeline.stage import PlanError, Stage, chosen, matches, needs

ROOT = Path("/somewhere/run")


def test_needs_are_read_from_the_commands():
    found = needs(diamond(ROOT), ROOT)
    assert found == {"run/a": (), "run/b": ("run/a",), "run/c": ("run/a",), "run/d": ("run/b", "run/c")}


@pytest.mark.parametrize(
    "word", ["data.train_files=[{0}/a/x.parquet,{0}/b/y.parquet]", "--data={0}/a/x:{0}/b", "'{0}/a' {0}/b"]
)
def test_paths_are_found_however_they_are_written(word):
    reader = Stage("c", "", ["x", word.format(ROOT)])
    assert needs([Stage("a", "", []), Stage("b", "", []), reader], ROOT)["c"] == ("a", "b")


def test_what_the_environment_names_and_what_is_said_are_needed_too():
    last = Stage("c", "", ["x"], environment={"DATA": f"{ROOT}/a/x"}, after=("b",))
    assert needs([Stage("a", "", []), Stage("b", "", []), last], ROOT)["c"] == ("a", "b")


def test_a_folder_with_a_longer_name_is_another_one():
    assert needs([Stage("a", "", []), Stage("ab", "", []), Stage("c", "", [f"{ROOT}/ab/x"])], ROOT)["c"] == ("ab",)


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([Stage("a", "", [f"{ROOT}/b/x"]), Stage("b", "", [])], "which no earlier stage writes"),
        ([Stage("a", "", [], after=("b",)), Stage("b", "", [])], "needs b, which is not an earlier stage"),
        ([Stage("a", "", []), Stage("a", "", [])], "two stages a"),
        ([Stage("a", "", []), Stage("a/b", "", [])], "lies in the folder of stage a"),
        ([Stage("../a", "", [])], "not a valid name of a stage's folder"),
        ([Stage("marks/a", "", [])], "not a valid name of a stage's folder"),
        ([Stage("", "", [])], "not a valid name of a stage's folder"),
    ],
)
def test_lists_that_cannot_be_run_are_rejected(stages, said):
    with pytest.raises(PlanError, match=said):
        needs(stages, ROOT)


@pytest.mark.parametrize("data", ["run/data/koniq", "run/data/koniq/below", "run/data", "run", "link"])
def test_data_from_outside_may_not_lie_where_a_stage_writes(tmp_path, data):
    (tmp_path / "run" / "data" / "koniq" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "run" / "data" / "koniq")
    stage = Stage("data/koniq", "", ["x"], reads=(tmp_path / data,))
    with pytest.raises(PlanError, match=rf"would write into .* and the run reads .*{data}, .* Fix: "):
        needs([stage], tmp_path / "run")
    assert needs([stage], tmp_path / "other") == {"data/koniq": ()}


def test_what_is_chosen_comes_with_what_it_needs():
    stages = diamond(ROOT)
    need = needs(stages, ROOT)
    assert [one.name for one in chosen(stages, ["c"], need)] == ["run/a", "run/c"]
    assert [one.name for one in chosen(stages, ["b", "run/c"], need)] == ["run/a", "run/b", "run/c"]
    assert chosen(stages, ["run/"], need) == stages
    with pytest.raises(PlanError, match=r"--only x matches no stage. Fix: use one of run/a, run/b"):
        chosen(stages, ["x"], need)


@pytest.mark.parametrize(
    ("name", "pattern", "true"),
    [
        ("seed0/table4/sft", "sft", True),
        ("seed0/table4/sft", "table4/sft", True),
        ("seed0/table4/sft", "table4", False),
        ("seed0/table4/sft", "seed0/table4", True),
        ("seed0/table4/sft", "seed?/*", True),
        ("seed0/table4/sft_test", "sft", False),
        ("seed0/table4/sft_test", "sft*", True),
    ],
)
def test_patterns_name_stages(name, pattern, true):
    assert matches(name, pattern) is true


def marks_now(root: Path, stages: list[Stage]):
    return marks_of(stages, needs(stages, root))


def test_a_change_of_settings_reaches_what_follows_and_nothing_else():
    before = marks_now(ROOT, diamond(ROOT))
    stages = diamond(ROOT)
    stages[1] = writer(ROOT, "run/b", "run/a", environment={"X": "1"})
    after = marks_now(ROOT, stages)
    assert {name: differences(before[name], after[name]) for name in before} == {
        "run/a": [],
        "run/b": ["settings"],
        "run/c": [],
        "run/d": ["settings"],
    }


def test_a_change_of_outside_data_is_seen(tmp_path):
    data = tmp_path / "data"
    (data / "below").mkdir(parents=True)
    (data / "below" / "x").write_text("1")
    stages = [Stage("a", "", ["x"], reads=(data,)), Stage("b", "", [f"{ROOT}/a"])]
    first = marks_now(ROOT, stages)
    assert marks_now(ROOT, stages) == first
    (data / "below" / "x").write_text("22")
    second = marks_now(ROOT, stages)
    assert [differences(first[name], second[name]) for name in ("a", "b")] == [["data"], ["data"]]
    os.utime(data / "below" / "x", ns=(1, 1))
    third = marks_now(ROOT, stages)
    (data / "y").write_text("")
    fourth = marks_now(ROOT, stages)
    assert differences(second["a"], third["a"]) == differences(third["a"], fourth["a"]) == ["data"]


def test_other_code_is_seen(monkeypatch):
    before = marks_now(ROOT, diamond(ROOT))
    monkeypatch.setattr(marks, "code_digest", lambda: "other")
    after = marks_now(ROOT, diamond(ROOT))
    assert all(differences(before[name], after[name]) == ["code"] for name in before)


def test_the_digest_of_the_code_sees_sources_recipes_and_scripts(tmp_path):
    names = ("omniq_verl/a/b.py", "recipes/base/x.yaml", "data_prep/y.py")
    folders = [tmp_path / name.partition("/")[0] for name in names]
    digests = [marks.code_digest.__wrapped__(*folders)]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("1")
        digests.append(marks.code_digest.__wrapped__(*folders))
    (tmp_path / "omniq_verl/a/b.py").write_text("2")
    digests.append(marks.code_digest.__wrapped__(*folders))
    assert len(set(digests)) == 5
    assert len({marks.code_digest(), marks.code_digest.__wrapped__(*folders)}) == 2


def test_the_recipe_of_a_command_belongs_to_its_settings(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "b.yaml").write_text("x: 1\n")
    (tmp_path / "r.yaml").write_text("defaults:\n  - /base/b\n  - /ppo_trainer\n  - _self_\n")
    stage = Stage("a", "", ["python", "--config-dir", str(tmp_path), "--config-name", "r"])
    before = marks_now(ROOT, [stage])
    (tmp_path / "base" / "b.yaml").write_text("# Why it is 1.\nx:   1\n")
    assert differences(before["a"], marks_now(ROOT, [stage])["a"]) == []
    (tmp_path / "base" / "b.yaml").write_text("x: 2\n")
    assert differences(before["a"], marks_now(ROOT, [stage])["a"]) == ["settings"]


def test_recipes_lead_to_all_they_are_made_of():
    found = [path.relative_to(RECIPES).as_posix() for path in recipe_files(RECIPES, "omniquality_r/cpu_tiny_stage2")]
    names = ("omniquality_r/cpu_tiny_stage2", "omniquality_r/cpu_tiny_stage1", "quickstart/grpo", "base/grpo")
    assert found == [f"{name}.yaml" for name in (*names, "hardware/cpu")]


def test_recipes_of_groups_are_followed():
    found = {path.relative_to(RECIPES).as_posix() for path in recipe_files(RECIPES, "q_insight/score_only")}
    assert {"q_insight/joint.yaml", "base/grpo.yaml"} <= found


def named(*names: str, recipe: str, words: tuple[str, ...] = ()) -> list[bool]:
    found = {path.relative_to(RECIPES).as_posix() for path in recipe_files(RECIPES, recipe, words)}
    return [f"{name}.yaml" in found for name in names]


def test_a_group_of_the_command_takes_the_place_of_the_recipes_own():
    names = ("omniquality_r/stage1", "omniquality_r/cpu_tiny_stage1", "quickstart/grpo")
    assert named(*names, recipe="ablation/sigma_06") == [True, False, False]
    words = ("data.seed=0", "omniquality_r=cpu_tiny_stage1")
    assert named(*names, recipe="ablation/sigma_06", words=words) == [False, True, True]


def test_a_recipe_overrides_the_group_of_another_one():
    names = ("omniquality_r/stage1_authors_code", "omniquality_r/stage2")
    assert named(*names, recipe="omniquality_r/stage2_authors_code") == [True, True]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("/base: b", ()),
        ("/base@trainer: b", ()),
        ("optional /base: b", ()),
        ("/base: [c, b]", ()),
        ("/base: null", ("base=b",)),
        ("/base@trainer: c", ("base@trainer=b",)),
        ("_self_", ("+base=b",)),
    ],
)
def test_every_way_to_name_a_recipe_belongs_to_the_settings(tmp_path, entry, words):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "b.yaml").write_text("x: 1\n")
    (tmp_path / "r.yaml").write_text(f"defaults:\n  - {entry}\n")
    stage = Stage("a", "", ["python", "--config-dir", str(tmp_path), "--config-name", "r", *words])
    before = marks_now(ROOT, [stage])
    (tmp_path / "base" / "b.yaml").write_text("x: 2\n")
    assert differences(before["a"], marks_now(ROOT, [stage])["a"]) == ["settings"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"settings": "a"}', '{"nothing": 1}'])
def test_a_mark_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / "marks").mkdir()
    (tmp_path / "marks" / "a.json").write_text(text)
    assert read_mark(tmp_path, "a") is None


def test_a_mark_is_read_as_it_was_written(tmp_path):
    mark = marks.Mark("1", "2", "3", True, 4.5)
    write_mark(tmp_path, "seed0/a", mark)
    assert read_mark(tmp_path, "seed0/a") == mark and read_mark(tmp_path, "seed0") is None


def test_a_stage_may_read_its_own_folder():
    assert needs([python_stage("a", "", f"{ROOT}/a/x")], ROOT) == {"a": ()}
