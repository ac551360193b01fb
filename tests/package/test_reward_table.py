"""The table and page of ``examples/rewards``, from runs that are made up; what is run is the chain of stages."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from doctor_builders import composed
from omegaconf import OmegaConf
from scipy import stats

REPO = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(REPO / "examples/rewards"))
    yield
    for name in ("table", "reward_page"):
        sys.modules.pop(name, None)


def made_up(root: Path, seeds: list[int], names: list[str]) -> None:
    """What stages leave: held-out metrics and a run's steps."""
    for seed in seeds:
        for name in ("sft_test", *(f"{name}_test" for name in names)):
            folder = root / f"seed{seed}" / name
            folder.mkdir(parents=True)
            greedy = {"srcc": 0.5 + 0.1 * seed, "plcc": None, "mae": 0.4, "parsed": 1.0}
            (folder / "metrics.json").write_text(json.dumps({"greedy": greedy}))
        for name in names:
            lines = [{"step": 0, "data": {"val-core/a/srcc": 0.1}}]
            for step in (1, 2, 3):
                data = {"filter/groups_kept": 12, "filter/groups_dropped": 4, "filter/reward_group_std": 0.1 * step}
                data |= {"timing_s/step": 40.0 if step == 1 else 10.0 + step, "filter/reward_drawn": 0.2 * step}
                lines.append({"step": step, "data": data})
            (root / f"seed{seed}" / name / "metrics").mkdir(parents=True)
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (root / f"seed{seed}" / name / "metrics" / "0.jsonl").write_text(text)


def test_the_table_has_intervals_over_the_seeds_and_the_page_its_curves(tmp_path):
    from reward_page import collect, write_page

    names, seeds = ["gaussian", "visualquality_r1", *"abcdef"], [0, 1, 2]
    made_up(tmp_path, seeds, names)
    found = collect(names)([tmp_path / f"seed{seed}" for seed in seeds])
    assert found["gaussian"]["s a step"] == [12.5] * 3 and found["gaussian"]["groups kept"] == [0.75] * 3
    assert found["gaussian"]["reward spread"] == pytest.approx([0.2] * 3)
    assert math.isnan(found["cold start"]["s a step"][0]) and math.isnan(found["gaussian"]["PLCC"][0])
    (tmp_path / "table.json").write_text(json.dumps({"seeds": seeds, "steps": 3, "rows": found}))
    page = write_page(tmp_path, names, seeds).read_text()
    low, _ = stats.t.interval(0.95, 2, 0.6, np.std([0.5, 0.6, 0.7], ddof=1) / math.sqrt(3))
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert f"| gaussian | 0.600 ± {0.6 - low:.3f} | - | 0.400 ± 0.000 |" in lines[3]
    assert lines[2].startswith("| cold start | 0.600") and lines[2].endswith("| - | - | - |")
    assert page.count("data:image/png;base64,") == 2 * 3 and "width=device-width" in page
    assert 'class="wide"><table>' in page and f"0.600 ± {0.6 - low:.3f}" in page


def test_every_row_has_a_recipe_and_every_recipe_of_a_reward_or_loss_a_row():
    from table import AFTER, FILTER, RUNS

    shipped = {path.stem for folder in ("rewards", "losses") for path in (REPO / "recipes" / folder).glob("*.yaml")}
    assert shipped - set(RUNS) == {"ranking_and_length", "several_heads"}  # two rewards at once; data of their own
    assert len(RUNS) >= 15 and set(AFTER) <= set(RUNS) and "trainer.v1.sampler.sampler_kwargs.tau" in FILTER


def test_a_row_that_starts_from_another_needs_it(monkeypatch, capsys):
    import table

    monkeypatch.setattr(sys, "argv", ["table.py", "--only", "evoquality_round2"])
    with pytest.raises(SystemExit):
        table.main()
    assert "--only needs evoquality_round1 as well" in capsys.readouterr().err


@pytest.mark.slow  # composes eighteen recipes
def test_the_rows_set_keys_that_their_recipes_have(tmp_path):
    from table import RUNS, build

    from omniq_verl.pipeline.tiny_stages import Settings

    training = [
        stage for stage in build(Settings(REPO, tmp_path), list(RUNS)) if "verl.trainer.main_ppo" in stage.command
    ]
    assert len(training) == len(RUNS)
    for stage in training:
        first = stage.command.index("--config-name")
        recipe = composed(stage.command[first + 1])
        for word in stage.command[first + 2 :]:
            key, _, value = word.partition("=")
            if "." not in key:  # a group: another file for one that the recipe names
                assert (REPO / "recipes" / key / f"{value}.yaml").is_file()
                continue
            key = key.removeprefix("+")
            assert key.rpartition(".")[2] in OmegaConf.select(recipe, key.rpartition(".")[0]), (stage.name, word)
