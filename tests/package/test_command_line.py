"""Every command: an option given twice, options that have no effect, and the meaning of exit codes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from evaluation_builders import COMPARER, RATER, grey, write_scored
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.command_line import StrictCommand

WIDE = {"COLUMNS": "400", "TERM": "dumb"}


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))
SINGLE = [
    (path, option)
    for path, command in COMMANDS.items()
    for option in command.params
    if option.param_type_name == "option" and not option.multiple and option.name != "help"
]


def invoke(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words], env=WIDE)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def test_there_are_commands_and_all_of_them_are_strict():
    assert len(COMMANDS) > 15 and len(SINGLE) > 100
    assert all(isinstance(command, StrictCommand) for command in COMMANDS.values())


@pytest.mark.parametrize(("path", "option"), SINGLE, ids=lambda one: getattr(one, "name", None) or "-".join(one))
def test_an_option_that_is_no_list_is_rejected_by_name_when_it_is_given_twice(path, option):
    flag = max(option.opts, key=len)
    once = [flag] if option.is_flag else [flag, "1"]
    code, text = invoke(*path, *once, *once)
    assert code == 2 and f"Invalid value for '{flag}'" in text and "given 2 times" in text


@pytest.mark.parametrize("words", ["--task technical --task aesthetic", "--task=technical --task=technical"])
def test_two_tasks_are_not_one(words, tmp_path):
    code, text = invoke("score", tmp_path, "--model", "m", *words.split())
    assert code == 2 and "'--task'" in text


def test_lists_may_be_given_again(tmp_path):
    write_scored(tmp_path / "a.parquet", [10, 90, 200], [1, 3, 4])
    code, text = invoke("eval", "--model", "", "--engine", RATER, "--out", tmp_path / "out",
                        "--data", tmp_path / "a.parquet", "--by", "dark", "--by", "split")  # fmt: skip
    assert code == 0, text


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_scored(folder / "test.parquet", [10, 90, 200], [1, 3, 4])
    for name, value in (("a.png", 20), ("b.png", 200)):
        (folder / name).write_bytes(grey(value))
    (folder / "prompts.txt").write_text("a cat\n")
    return folder


EVAL = ["eval", "--model", "m", "--data", "FOLDER/test.parquet", "--out", "FOLDER/out"]
SCORE = ["score", "FOLDER/a.png", "--model", "m"]
PAIR = ["compare-images", "FOLDER/a.png", "FOLDER/b.png", "--model", "m"]
HEAT = ["heatmap", "--model", "m", "--image", "FOLDER/a.png", "--out", "FOLDER/heat"]
PAIRS = ["rali", "pairs", "--model", "m", "--data", "FOLDER/test.parquet", "--out", "FOLDER/pairs"]
FIT = ["rali", "fit", "--data", "FOLDER/test.parquet", "--out", "FOLDER/fit"]
BEST = ["t2i", "best-of-n", "FOLDER/prompts.txt", "--out", "FOLDER/best"]
REFLECT = ["t2i", "reflect", "FOLDER/prompts.txt", "--model", "m", "--out", "FOLDER/reflect"]


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        ([*EVAL, "--seed", "1"], "seed"),
        ([*EVAL, "--temperature", "0", "--seed", "1"], "seed"),
        ([*EVAL, "--base-url", "http://localhost"], "base-url"),
        ([*EVAL, "--engine", "hf", "--memory", "0.5"], "memory"),
        ([*EVAL, "--engine", "hf", "--devices", "2"], "devices"),
        ([*EVAL, "--engine", "openai", "--base-url", "http://localhost", "--dtype", "float32"], "dtype"),
        ([*EVAL, "--engine", "openai", "--base-url", "http://localhost", "--max-model-len", "99"], "max-model-len"),
        ([*EVAL, "--engine", "openai", "--base-url", "http://localhost", "--allow-pickle"], "allow-pickle"),
        ([*SCORE, "--temperature", "0.7"], "temperature"),
        ([*SCORE, "--seed", "1"], "seed"),
        ([*SCORE, "--prompt", "a cat"], "prompt"),
        ([*SCORE, "--out", "FOLDER/scores.csv", "--reasoning"], "reasoning"),
        ([*PAIR, "--seed", "1"], "seed"),
        ([*HEAT, "--question", "Well?", "--task", "aesthetic"], "task"),
        ([*HEAT, "--question", "Well?", "--prompt", "a cat"], "prompt"),
        ([*HEAT, "--answer", "<answer>3</answer>", "--max-tokens", "9"], "max-tokens"),
        ([*PAIRS, "--on", "here", "--workers", "2"], "workers"),
        ([*PAIRS, "--seeds", "1", "--temperature", "0", "--seed", "1"], "seed"),
        ([*FIT, "--epochs", "0", "--learning-rate", "1"], "learning-rate"),
        ([*FIT, "--epochs", "0", "--fit-projection"], "fit-projection"),
        ([*BEST, "--rali", "FOLDER", "--engine", "hf"], "engine"),
        ([*BEST, "--rali", "FOLDER", "--max-tokens", "9"], "max-tokens"),
        ([*BEST, "--model", "m", "--within", "0.1"], "within"),
        ([*BEST, "--model", "m", "--order", "technical", "--weight", "technical=1"], "weight"),
        ([*REFLECT, "--writer-memory", "0.2"], "writer-memory"),
        ([*REFLECT, "--rounds", "0", "--stop-at", "4"], "stop-at"),
        ([*REFLECT, "--rounds", "0", "--writer", "w"], "writer"),
        (["serve", "--rali", "FOLDER", "--dtype", "float32"], "dtype"),
        (["serve", "--rali", "FOLDER", "--max-tokens", "9"], "max-tokens"),
        (["serve", "--model", "m", "--replicas", "3", "--max-replicas", "2"], "max-replicas"),
    ],
)
def test_an_option_without_effect_is_rejected_by_name(made, words, idle):
    code, text = invoke(*(word.replace("FOLDER", str(made)) for word in words))
    assert code == 2 and f"--{idle} has no effect" in text and "Fix: " in text, text
    assert {path.name for path in made.iterdir()} == {"test.parquet", "a.png", "b.png", "prompts.txt"}


@pytest.mark.parametrize(
    "words",
    [
        [*EVAL, "--engine", RATER, "--samples", "2", "--seed", "1", "--memory", "0.5"],
        [*SCORE, "--engine", RATER, "--samples", "2", "--temperature", "0.7", "--seed", "1"],
        [*SCORE, "--engine", RATER, "--task", "alignment", "--prompt", "a cat"],
        [*PAIR, "--engine", COMPARER, "--samples", "2", "--seed", "1"],
    ],
)
def test_options_that_have_an_effect_are_taken(made, tmp_path, words):
    code, text = invoke(*(word.replace("FOLDER/out", str(tmp_path)).replace("FOLDER", str(made)) for word in words))
    assert code == 0, text


@pytest.mark.parametrize(
    "words",
    [
        ["score", "FOLDER/missing.png", "--model", "m", "--engine", RATER],
        ["compare-images", "FOLDER/a.png", "FOLDER/missing.png", "--model", "m", "--engine", COMPARER],
        ["compare-images", "FOLDER/a.png", "FOLDER/b.png", "--reference", "FOLDER/missing.png", "--model", "m",
         "--engine", COMPARER],
        ["heatmap", "--model", "FOLDER/missing", "--image", "FOLDER/missing.png", "--out", "FOLDER/heat"],
        ["eval", "--model", "m", "--engine", RATER, "--data", "FOLDER/missing.parquet", "--out", "FOLDER/out"],
        ["t2i", "geneval", "FOLDER/missing.jsonl"],
        ["t2i", "selectors", "FOLDER/missing"],
        ["compare", "FOLDER/missing"],
        ["curves", "FOLDER/missing"],
        ["cot", "plan", "data=[FOLDER/missing.parquet]", "engine.model=m", "out=FOLDER/cot"],
        ["rali", "score", "FOLDER/a.png", "--model", "FOLDER/missing"],
    ],
)  # fmt: skip
def test_an_input_that_is_not_there_ends_every_command_with_one_line_and_code_1(made, words):
    code, text = invoke(*(word.replace("FOLDER", str(made)) for word in words))
    assert code == 1 and "missing" in text and "Traceback" not in text, text


@pytest.mark.parametrize(
    "words", [["FOLDER/a.png", "FOLDER/a.png"], ["FOLDER/a.png", "FOLDER/./a.png"], ["SUB", "SUB/a.png"]]
)
@pytest.mark.parametrize("out", [[], ["--out", "FOLDER/scores.csv"]])
def test_an_image_that_is_named_twice_is_rejected_before_a_model_is_loaded(tmp_path, words, out):
    (tmp_path / "sub").mkdir()
    for folder in (tmp_path, tmp_path / "sub"):
        (folder / "a.png").write_bytes(grey(20))
    given = [word.replace("FOLDER", str(tmp_path)).replace("SUB", str(tmp_path / "sub")) for word in (*words, *out)]
    code, text = invoke("score", *given, "--model", "m", "--engine", "evaluation_builders:never")
    assert code == 1 and "a.png is named twice" in text and "Fix: " in text
