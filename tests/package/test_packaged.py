"""Recipes and scripts of data preparation, found and run by name wherever one stands."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from omniq_verl import packaged
from omniq_verl.cli import app

WIDE = {"COLUMNS": "400", "TERM": "dumb"}


def invoke(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words], env=WIDE)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_recipe_is_listed_with_a_sentence(elsewhere):
    code, text = invoke("recipes")
    lines = [line.split(maxsplit=1) for line in text.splitlines()]
    assert code == 0 and {name for name, _ in lines} == set(packaged.recipe_names(packaged.RECIPES))
    assert len(lines) > 30 and all(len(sentence) > 10 for _, sentence in lines)


def test_a_recipe_is_shown_as_it_is(elsewhere):
    assert invoke("recipes", "show", "base/grpo") == (0, (packaged.RECIPES / "base/grpo.yaml").read_text())
    assert invoke("recipes", "path") == (0, f"{packaged.RECIPES}\n")


def test_the_folder_given_wins_then_the_local_one_then_ours(elsewhere):
    for folder in ("recipes", "given"):
        (elsewhere / folder).mkdir()
        (elsewhere / folder / f"in_{folder}.yaml").write_text("# Mine. And more.\n")
    assert invoke("recipes") == (0, "in_recipes  Mine.\n")
    assert invoke("recipes", "--recipes", "given") == (0, "in_given  Mine.\n")
    assert invoke("recipes", "--recipes", "given", "show", "in_given")[0] == 0
    assert invoke("recipes", "path")[1].strip() == str(elsewhere / "recipes")
    code, text = invoke("recipes", "--recipes", "missing")
    assert code == 1 and "there is no folder missing" in text and "Fix: " in text


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["recipes", "show", "quickstart/gpro"], "use quickstart/grpo"),
        (["recipes", "show", "grpo"], "use quickstart/grpo, or base/grpo"),
        (["recipes", "show", "../setup"], "see the list of `omniq recipes`"),
        (["doctor", "quickstart/gpro"], "use quickstart/grpo"),
        (["doctor", "zzz"], "see the list of `omniq recipes`"),
        (["data", "konik"], "use koniq"),
        (["data", "zzz"], "use one of agiqa3k, answers, ava"),
        (["data", "../setup"], "use one of agiqa3k, answers, ava"),
    ],
)
def test_a_mistyped_name_is_answered_with_a_similar_one(elsewhere, words, fix):
    code, text = invoke(*words)
    assert code in (1, 2) and f"Fix: {fix}" in text and "Traceback" not in text and "search path" not in text.lower()


def test_ours_is_named_where_a_local_folder_lacks_the_recipe(elsewhere):
    (elsewhere / "recipes").mkdir()
    code, text = invoke("doctor", "quickstart/grpo")
    assert code == 2 and f"Fix: add --recipes {packaged.RECIPES}" in text


def test_the_doctor_says_which_recipe_it_read(elsewhere):
    code, text = invoke("doctor", "quickstart/grpo", "data.train_files=missing.parquet")
    assert code == 1 and f"recipe: {packaged.RECIPES / 'quickstart/grpo.yaml'}" in text


def test_every_script_is_listed_with_its_first_line(elsewhere):
    code, text = invoke("data")
    lines = [line.split(maxsplit=1) for line in text.splitlines()]
    assert code == 0 and [name for name, _ in lines] == packaged.script_names()
    assert len(lines) > 15 and all(len(sentence) > 20 for _, sentence in lines)


def test_a_script_gets_its_own_options_and_its_exit_code(elsewhere):
    assert "--mos {raw,zscore}" in invoke("data", "koniq", "--help")[1]
    code, text = invoke("data", "koniq", "--root", "missing", "--out", "out")
    assert code != 0 and "missing" in text
    code, text = invoke("data", "koniq", "--nonsense")
    assert code == 2 and "error: the following arguments are required" in text
