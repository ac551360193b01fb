"""Runs of an example on several seeds, and the table of what they measured."""

import json
import math
import sys
from pathlib import Path

import pytest

from omniq_verl.quickstart.stages import Settings, Stage
from omniq_verl.quickstart.tables import Figures, markdown, run_seeds, value_of


def build(settings: Settings) -> list[Stage]:
    measured = settings.root / "measured" / "value"
    code = f"from pathlib import Path; Path({str(measured)!r}).write_text('{settings.seed}')"
    return [Stage("measured", "a test", [sys.executable, "-c", code])]


def collect(roots: list[Path]) -> Figures:
    values = [float((root / "measured" / "value").read_text()) for root in roots]
    return {"row": {"SRCC": values, "PLCC": [math.nan for _ in values]}}


def test_every_seed_is_run_and_the_table_lies_beside_them(tmp_path, capsys):
    run_seeds([Settings(tmp_path, tmp_path / f"seed{seed}", seed, grpo_steps=7) for seed in (0, 1, 2)], build, collect)
    found = json.loads((tmp_path / "table.json").read_text())
    assert found["seeds"] == [0, 1, 2] and found["steps"] == 7 and found["rows"]["row"]["SRCC"] == [0, 1, 2]
    assert (
        tmp_path / "table.md"
    ).read_text() == "|  | SRCC | PLCC |\n| --- | --- | --- |\n| row | 1.000 ± 1.000 | - |\n"
    assert "1.000 ± 1.000" in capsys.readouterr().out


def test_a_failed_seed_ends_the_run_without_a_table(tmp_path):
    def failing(settings: Settings) -> list[Stage]:
        return [Stage("measured", "a test", [sys.executable, "-c", "raise SystemExit(3)"])]

    with pytest.raises(SystemExit, match="measured"):
        run_seeds([Settings(tmp_path, tmp_path / "seed0")], failing, collect)
    assert not (tmp_path / "table.json").exists()


def test_one_seed_has_no_spread():
    assert markdown({"a": {"x": [0.5]}}) == "|  | x |\n| --- | --- |\n| a | 0.500 |\n"


def test_what_is_not_defined_is_no_number():
    assert value_of({"value": 0.25}) == 0.25 and math.isnan(value_of({"value": None}))
