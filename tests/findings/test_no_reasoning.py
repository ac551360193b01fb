"""A model with and without reasoning: figures by hand, which images count, and the real engine on a tiny model."""

import json

import numpy as np
import pytest
from findings_builders import answer_text, answered_with, save_model, setup_of, write_rows
from rich.console import Console
from scipy import stats

from omniq_verl.findings import no_reasoning
from omniq_verl.findings.no_reasoning import Run, compare_modes, find_no_reasoning
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.speed import Speed

RNG = np.random.default_rng(0)
TARGET = np.linspace(1.2, 4.8, 20)


def scores(noise: float) -> np.ndarray:
    return np.clip(TARGET + RNG.normal(scale=noise, size=20), 1, 5).round(1)


def test_figures_are_those_of_the_images_that_both_modes_score(tmp_path):
    setup = setup_of(tmp_path, [tmp_path / "step"], [write_rows(tmp_path / "rows.parquet", list(TARGET))])
    one, other = scores(0.3), scores(2.0)
    one[3], other[5] = np.nan, np.nan
    speeds = Speed(20, 10.0, 400), Speed(20, 2.0, 60)
    runs = [
        Run(answered_with(setup, side[:, None]), mode, speed, None)
        for side, mode, speed in zip((one, other), ("reason", "direct"), speeds, strict=True)
    ]
    [row] = compare_modes(runs, 200)
    both = np.isfinite(one) & np.isfinite(other)
    assert row["images"] == both.sum() == 18 and row["reason"]["scored"] == row["direct"]["scored"] == 19
    expected = [stats.spearmanr(side[both], TARGET[both])[0] for side in (one, other)]
    assert [row[mode]["srcc"]["value"] for mode in ("reason", "direct")] == pytest.approx(expected)
    assert row["srcc_difference"]["difference"] == pytest.approx(expected[1] - expected[0])
    assert row["between"] == pytest.approx(stats.spearmanr(one[both], other[both])[0])
    assert row["srcc_difference"]["p_holm"] == row["srcc_difference"]["p"]


def test_an_engine_without_probabilities_is_rejected(tmp_path):
    setup = setup_of(tmp_path / "out", [], [write_rows(tmp_path / "rows.parquet", [1.0])])
    setup = type(setup)((EngineSpec("gpt", "openai"),), setup.data, setup.out)
    with pytest.raises(ValueError, match="Fix"):
        find_no_reasoning(setup, Console(quiet=True))


def test_both_modes_of_a_tiny_model_by_the_real_engine(tmp_path):
    folder = save_model(tmp_path / "step")
    setup = setup_of(tmp_path / "out", [folder], [write_rows(tmp_path / "rows.parquet", [1.5, 2.5, 3.5, 4.5])])
    find_no_reasoning(setup, Console(quiet=True))
    numbers = json.loads((tmp_path / "out/no_reasoning.json").read_text())
    [row] = numbers["rows"]
    assert row["direct"]["scored"] == 4, "an expectation is there whatever the model would write"
    assert row["reason"]["scored"] == 0, "random weights write no score"
    direct = numbers["costs"]["step, without reasoning"]
    assert 0 < direct["outside"] <= 1 and direct["images_per_second"] > 0
    assert numbers["costs"]["step, with reasoning"]["tokens_per_image"] == 24
    assert (tmp_path / "out/no_reasoning.html").is_file()


def test_the_page_names_both_modes(tmp_path, monkeypatch):
    setup = setup_of(tmp_path / "out", [tmp_path / "step"], [write_rows(tmp_path / "rows.parquet", list(TARGET))])
    sides = {"reason": scores(0.2), "direct": scores(1.0)}

    def ask(_setup, _spec, name, part, _sampling, _console, mode):
        assert part == f"model_1_{mode}"
        return answered_with(setup, sides[mode][:, None], name)

    monkeypatch.setattr(no_reasoning, "ask", ask)
    find_no_reasoning(setup, Console(quiet=True))
    page = (tmp_path / "out/no_reasoning.html").read_text()
    assert "with reasoning" in page and "without reasoning" in page
    assert answer_text(3.0).startswith("<think>")
