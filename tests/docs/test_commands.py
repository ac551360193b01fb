"""Commands of the documentation exist, with the options and settings they are shown with."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer
from docs_builders import REPO, Block, blocks, code_words, pages

from omniq_verl.cli import app
from omniq_verl.cot.run import CotConfig
from omniq_verl.doctor.compose import compose_recipe
from omniq_verl.generation.config import read_config
from omniq_verl.pipeline.cli import surplus
from omniq_verl.pipeline.experiments import build
from omniq_verl.pipeline.stage import chosen, needs
from omniq_verl.ract.align import AlignConfig

SHELL = ("cd", "source", "export", "curl", "git", "pre-commit")
"""Programs that are not ours and need no check."""
ALL_COMMANDS = [block for page in pages() for block in blocks(page, "bash")]
OPTION = re.compile(r"--[a-z][a-z-]*")
CONFIGS = {"cot": CotConfig, "ract": AlignConfig}


def commands(block: Block) -> Iterator[list[str]]:
    """The commands of a block, each as its words, without loops, variables before them and comments."""
    for line in block.text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.replace("$(basename $step)", "STEP"), posix=True, punctuation_chars=";&")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word not in (";", "&&"):
                words.append(word)
                continue
            while words and (words[0] == "do" or re.match(r"^[A-Z_]+=", words[0])):
                words = words[1:]
            if words and words[0] not in ("for", "done"):
                yield words
            words = []


@pytest.mark.parametrize("block", ALL_COMMANDS, ids=str)
def test_the_commands_of_a_block_are_real(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the reader's folder, with the reader's pictures
    found = list(commands(block))
    assert found, "a block of commands without a command"
    for words in found:
        for word in words:
            if word.endswith((".png", ".jpg")):
                Path(word).touch()
        check(words)


def check(words: list[str]) -> None:
    """Fail if a command cannot be called like this."""
    program, rest = words[0].removeprefix(".venv/bin/"), words[1:]
    checks = {
        "omniq": check_omniq,
        "python": check_python,
        "torchrun": check_torchrun,
        "make": check_make,
        "pip": check_pip,
    }
    if program in checks:
        checks[program](rest)
    elif program.endswith("submit.sh"):
        assert (REPO / program).is_file()
        compose(rest[1], rest[2:])
    else:
        assert program in SHELL, "nobody checks this program"


def check_torchrun(words: list[str]) -> None:
    """Two runs on one machine would share a port without ``--standalone``."""
    assert "--standalone" in words
    check_python(words[words.index("-m") :])


def check_omniq(words: list[str]) -> None:
    """Parse as typer does, and compose what the command would."""
    group = typer.main.get_command(app)
    path = []
    while hasattr(group, "commands") and not (group.invoke_without_command and not words):
        assert words and words[0] in group.commands, f"no command {' '.join([*path, *words[:1]])}"
        group, path, words = group.commands[words[0]], [*path, words[0]], words[1:]
    context = group.make_context("omniq", list(words), resilient_parsing=False)
    if path == ["doctor"]:
        compose(context.params["recipe"], context.params["overrides"] or [])
    elif path == ["data"] and words[0] == "status":
        check_options(REPO / "omniq_verl" / "pipeline" / "data_status.py", words[1:])
    elif path == ["data"]:
        check_python([f"data_prep/{words[0]}.py", *words[1:]])
    elif path == ["reproduce"]:
        check_stages(context.params)
    elif path[0] in CONFIGS:
        check_config(CONFIGS[path[0]], words)


def check_stages(params: dict) -> None:
    """Build the experiment, and choose the stages that are asked for."""
    root = Path("runs").resolve()
    _, names = surplus(params["more"] or [], True, True)
    found = build(params["experiment"], params["scale"], root, [0], None, None)
    chosen(found.stages, [*(params["only"] or []), *names], needs(found.stages, root))


@pytest.mark.parametrize("page", pages(), ids=str)
def test_commands_within_a_sentence_have_the_options_they_are_named_with(page):
    for word in code_words(page):
        if word.startswith("omniq "):
            group, words = typer.main.get_command(app), word.split()[1:]
            while words and hasattr(group, "commands"):
                assert words[0] in group.commands, f"{page} names {word}"
                group, words = group.commands[words[0]], words[1:]
            known = {option for parameter in group.params for option in parameter.opts}
            assert {word for word in words if OPTION.match(word)} <= known, f"{page} names {word}"


def check_config(kind: type, words: list[str]) -> None:
    file = Path(words[0]) if words and "=" not in words[0] else None
    read_config(kind, REPO / file if file else None, words[1:] if file else words)


def compose(recipe: str, overrides: list[str]) -> None:
    """Compose a recipe, unless it is one that the page itself writes."""
    if recipe.startswith("my_"):
        recipe = "omniquality_r/stage1"
    composed(recipe, tuple(overrides))


@cache
def composed(recipe: str, overrides: tuple[str, ...]) -> None:
    compose_recipe(recipe, [word.replace("$", "") for word in overrides], REPO / "recipes")


def check_python(words: list[str]) -> None:
    if words[0] == "-m":
        module, rest = words[1], words[2:]
        if module.startswith("verl."):
            folders = ("recipes", "$(omniq recipes path)")
            assert rest[0] == "--config-dir" and rest[1] in folders and rest[2] == "--config-name", "an unusual call"
            compose(rest[3], rest[4:])
        elif module == "omniq_verl.cli":
            check_omniq(rest)
        elif module.startswith("omniq_verl."):
            check_options(source(REPO.joinpath(*module.split("."))), rest)
        else:
            assert module in ("venv", "pytest"), module
    elif not words[0].startswith("my_"):
        script = REPO / words[0]
        assert script.is_file(), f"no {words[0]}"
        check_options(script, words[1:])


def source(path: Path) -> Path:
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__main__.py"


def check_options(script: Path, words: list[str]) -> None:
    """Every option is written in the script or in a module of the package that it imports, or that these import."""
    text = script.read_text(encoding="utf-8")
    for _ in range(2):
        for name in set(re.findall(r"^from (omniq_verl[\w.]*|[a-z_]+) import", text, re.MULTILINE)):
            for ref in (REPO.joinpath(*name.split(".")), script.parent / name):
                if ref.with_suffix(".py").is_file():
                    text += ref.with_suffix(".py").read_text(encoding="utf-8")
    for word in words:
        if OPTION.match(word):
            assert f'"{word}"' in text, f"{script.name} has no option {word}"


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([\w$()/.-]+):", (REPO / "Makefile").read_text(), re.MULTILINE)
    known = {target.replace("$(VENV)", ".venv") for target in targets}
    assert set(words) <= known, f"make has no {words}"


def check_pip(words: list[str]) -> None:
    extras = set(re.findall(r'^        "([\w-]+)": \[', (REPO / "setup.py").read_text(), re.MULTILINE))
    for word in words:
        if found := re.search(r"\[([\w,-]+)\]", word):
            assert set(found[1].split(",")) <= extras, f"no extra {found[1]}"
    if "-c" in words:
        assert (REPO / words[words.index("-c") + 1]).is_file()


@pytest.mark.parametrize(
    "command",
    [
        "omniq nothing",
        "omniq score photos --model m --nothing 1",
        "omniq doctor quickstart/grpo data.nothing=1",
        "omniq doctor quickstart/nothing",
        "omniq reproduce nothing --out runs",
        "omniq reproduce ract --out runs --only nothing",
        "omniq data status --nothing",
        "omniq cot run nothing=1",
        "omniq ract align examples/ract/align.yaml nothing=1",
        "python -m verl.trainer.main_ppo --config-dir recipes --config-name q_insight/joint trainer.nothing=1",
        "python -m omniq_verl.quickstart --nothing",
        "python data_prep/koniq.py --nothing",
        "python data_prep/nothing.py",
        "examples/omniquality_r/submit.sh http://HEAD:8265 omniquality_r/nothing",
        "make nothing",
        "pip install -e '.[nothing]'",
        "nothing",
    ],
)
def test_a_wrong_command_is_found(command):
    with pytest.raises(Exception, match=r".") as found:
        check(shlex.split(command))
    assert not isinstance(found.value, (KeyError, IndexError, TypeError, AttributeError))


def test_commands_are_split_as_a_shell_does():
    text = "# a comment\nA=1 omniq score x \\\n    --model m  # why\nfor s in a b; do\n    make $s && cd y\ndone\n"
    found = list(commands(Block(Path("page.md"), 1, "bash", text, ("", ""))))
    assert found == [["omniq", "score", "x", "--model", "m"], ["make", "$s"], ["cd", "y"]]


def test_the_recipe_of_the_page_composes(tmp_path):
    (block,) = [block for block in blocks(Path("docs/extending.md"), "yaml") if block.marker[0] == "file"]
    name = block.marker[1].removeprefix("recipes/")
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    for path in (REPO / "recipes").iterdir():
        (recipes / path.name).symlink_to(path)
    (recipes / name).parent.mkdir()
    (recipes / name).write_text(block.text, encoding="utf-8")
    config = compose_recipe(name.removesuffix(".yaml"), [], recipes)
    assert config.reward.custom_reward_function.reward_kwargs.sigma == 1.2 and config.actor_rollout_ref.rollout.n == 8


def test_the_workflow_and_the_hooks_call_what_there_is():
    import yaml

    workflow = yaml.safe_load((REPO / ".github/workflows/ci.yml").read_text())
    steps = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert {"make lint", "make test-fast", "make docs"} <= set(steps)
    for step in steps:
        check(shlex.split(step))
    hooks = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text())
    pinned = re.search(r"^ruff==(.+)$", (REPO / "constraints/cpu.txt").read_text(), re.MULTILINE)[1]
    assert hooks["repos"][0]["rev"] == f"v{pinned}"
