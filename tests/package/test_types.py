"""The type checker looks at every file of the package, and no comment or setting keeps it from finding wrong code."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import tomllib

REPO = Path(__file__).parents[2]
SETTINGS = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["basedpyright"]
WRONG = {
    "reportOptionalMemberAccess": 'import re\n\nre.match("a", "b").group()',
    "reportAttributeAccessIssue": '"text".nonsense',
    "reportCallIssue": "len()",
    "reportArgumentType": "len(1)",
    "reportReturnType": 'def number() -> int:\n    return "one"',
    "reportIndexIssue": "object()[0]",
    "reportPossiblyUnboundVariable": "import sys\n\nif len(sys.argv) > 1:\n    last = 1\nprint(last)",
    "reportUnnecessaryTypeIgnoreComment": "len([])  # pyright: ignore[reportArgumentType]",
}
"""Code with an error, by the rule that finds it."""


def test_the_settings_include_all_files_and_switch_no_rule_off():
    assert SETTINGS["include"] == ["omniq_verl"] and SETTINGS["typeCheckingMode"] == "basic"
    assert not {"exclude", "ignore", "baselineFile", "executionEnvironments"} & SETTINGS.keys()
    rules = {name: level for name, level in SETTINGS.items() if name.startswith("report")}
    assert set(rules.values()) == {"error"} and not SETTINGS["enableTypeIgnoreComments"]


def test_comments_for_the_type_checker_concern_one_line_and_name_the_rules():
    comments = [
        f"{path.relative_to(REPO)}: {comment}"
        for path in (REPO / "omniq_verl").rglob("*.py")
        for comment in re.findall(r"#\s*(?:based)?pyright:.*|#\s*type:\s*ignore.*", path.read_text())
    ]
    assert comments and all(re.search(r": # pyright: ignore\[report\w+(, report\w+)*\]", one) for one in comments)


@pytest.mark.skipif(find_spec("basedpyright") is None, reason="basedpyright is not installed")
def test_each_kind_of_wrong_code_is_found(tmp_path):
    for rule, code in WRONG.items():
        (tmp_path / f"{rule}.py").write_text(code + "\n")
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({**SETTINGS, "include": ["."]}))
    command = [sys.executable, "-m", "basedpyright", "--level", "error", "--outputjson", "-p", str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    by_file = {(Path(one["file"]).stem, one["rule"]) for one in json.loads(found.stdout)["generalDiagnostics"]}
    assert {(rule, rule) for rule in WRONG} <= by_file
