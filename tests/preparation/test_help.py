"""What every script says of itself: an example, and no option that it does not have."""

import re
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "data_prep"
OPTION = re.compile(r"--[a-z][a-z-]*")
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))


def help_of(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[str, str, str]:
    """Its usage, what it says of itself, and its options."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as finish_reason:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert finish_reason.value.code == 0
    usage, _, rest = capsys.readouterr().out.partition("\n\n")
    said, _, options = rest.partition("\noptions:\n")
    return usage, said, options


def required(usage: str) -> set[str]:
    """Options outside of brackets; of several in parentheses one is enough, so none is required."""
    before = ""
    while before != usage:  # brackets within brackets go from the inside out
        before, usage = usage, re.sub(r"\[[^][]*]|\([^()]*\)", "", usage)
    return set(OPTION.findall(usage))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_shows_how_it_is_called_with_options_that_it_has(name, monkeypatch, capsys):
    usage, said, options = help_of(name, monkeypatch, capsys)
    known = set(OPTION.findall(options))
    examples = re.findall(rf"    omniq data {name} ((?:.*\\\n)*.*)\n", said)
    assert examples, "an example to copy"
    assert set(OPTION.findall(said)) <= known
    for example in examples:
        assert required(usage) <= set(OPTION.findall(example))


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_option_of_a_script_has_its_help(name, monkeypatch, capsys):
    _, _, options = help_of(name, monkeypatch, capsys)
    entries = re.split(r"\n(?=  -)", "\n" + options)[1:]
    # The help follows on the next line, or behind two spaces.
    assert [entry for entry in entries if not re.search(r"\S(  +|\n +)\S", entry)] == []
