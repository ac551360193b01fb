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

from omniq_verl.pipeline.marks import Mark, write_mark

REPO = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(REPO / "examples/rewards"))
    yield
    for name in ("table", "reward_page"):
        sys.modules.pop(name, None)


SIZE = {"steps": 3, "prompts": 8, "answers": 2}


def made_up(root: Path, seed: int, name: str, srcc: float | None, steps: int = 3) -> None:
    """What a finished run leaves: its mark, its steps, and a validation after the last one."""
    lines = []
    for step in range(1, steps + 1):
        data = {"filter/groups_kept": 12, "filter/groups_dropped": 4, "filter/reward_group_std": 0.1 * step}
        data |= {"timing_s/step": 40.0 if step == 1 else 10.0 + step, "filter/reward_drawn": 0.2 * step}
        lines.append({"step": step, "data": data})
    held_out = {"val-core/mean/mae": 0.9 - (srcc or 0) / 2, "val-core/mean/parse_failure": 0.25}
    held_out |= {} if srcc is None else {"val-core/mean/srcc": srcc}
    lines.append({"step": steps, "data": held_out})
    folder = root / f"seed{seed}" / name / "metrics"
    folder.mkdir(parents=True)
    (folder / "001.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_mark(root, f"seed{seed}/{name}", Mark("", "", "", done=True))


def test_the_table_has_intervals_over_the_seeds_and_the_page_its_curves(tmp_path):
    from reward_page import by_row, collect, write_page, write_table

    names, seeds = ["gaussian", "visualquality_r1", *"abcdef"], [0, 1, 2]
    for seed in seeds:
        made_up(tmp_path, seed, "cold_start", 0.4, steps=0)
        for name in names:
            made_up(tmp_path, seed, name, 0.5 + 0.1 * seed)
    found = by_row(collect(tmp_path, names, seeds), names)
    assert found["gaussian"]["s a step"] == [12.5] * 3 and found["gaussian"]["groups kept"] == [0.75] * 3
    assert found["gaussian"]["reward spread"] == pytest.approx([0.2] * 3)
    assert found["gaussian"]["SRCC gain"] == pytest.approx([0.1, 0.2, 0.3])
    assert found["gaussian"]["MAE gain"] == pytest.approx([0.05, 0.1, 0.15])
    assert found["gaussian"]["PLCC"] == [None] * 3 and found["gaussian"]["parsable"] == [0.75] * 3
    write_table(tmp_path, names, seeds, SIZE)
    low, _ = stats.t.interval(0.95, 2, 0.6, np.std([0.5, 0.6, 0.7], ddof=1) / math.sqrt(3))
    said, _, head, _, cold, gaussian, *_ = (tmp_path / "table.md").read_text().splitlines()
    assert said.startswith("3 GRPO steps of 8 images") and head.startswith(
        "|  | seeds | SRCC | PLCC | MAE | parsable |"
    )
    assert cold == "| cold_start | 3 | 0.400 ± 0.000 | - | 0.700 ± 0.000 | 0.750 ± 0.000 | - | - | - | - | - |"
    assert gaussian.startswith(f"| gaussian | 3 | 0.600 ± {0.6 - low:.3f} | - |")
    page = write_page(tmp_path, names, seeds).read_text()
    assert page.count("data:image/png;base64,") == 2 * 3 and "width=device-width" in page
    assert 'class="wide"><table>' in page and f"0.600 ± {0.6 - low:.3f}" in page


def test_what_is_not_finished_is_left_out_of_the_table(tmp_path):
    from reward_page import write_page, write_table

    assert write_table(tmp_path, ["gaussian", "tatar"], [0, 1], SIZE) == [["", "seeds"]]
    made_up(tmp_path, 0, "cold_start", None, steps=0)
    made_up(tmp_path, 0, "gaussian", 0.5)
    made_up(tmp_path, 1, "gaussian", 0.5)  # without the cold start of its seed
    made_up(tmp_path, 0, "tatar", 0.5)
    (tmp_path / "marks/seed0/tatar.json").unlink()
    rows = write_table(tmp_path, ["gaussian", "tatar"], [0, 1], SIZE)
    assert [row[:3] for row in rows[1:]] == [["cold_start", "1", "-"], ["gaussian", "1", "0.500"]]
    assert rows[2][rows[0].index("SRCC gain")] == "-"  # the cold start has no correlation
    assert write_page(tmp_path, ["gaussian", "tatar"], [0, 1]).read_text().count("data:image/png") == 2  # of two seeds


def test_seeds_of_another_machine_join_the_table(tmp_path):
    from reward_page import write_table
    from table import Size, other_seeds

    size, names = Size(**SIZE), ["gaussian", "tatar"]
    for seed, folder in ((0, "here"), (1, "there")):
        made_up(tmp_path / folder, seed, "cold_start", None, steps=0)
        made_up(tmp_path / folder, seed, "gaussian", 0.5 + 0.2 * seed)
    made_up(tmp_path / "there", 1, "tatar", 0.3)
    write_table(tmp_path / "there", names, [1], SIZE)
    written = tmp_path / "there/table.json"
    rows = write_table(tmp_path / "here", names, [0], SIZE, other_seeds([written], [0], size))
    assert [row[:2] for row in rows[1:]] == [["cold_start", "2"], ["gaussian", "2"], ["tatar", "1"]]
    assert rows[1][2] == "-" and rows[2][2].startswith("0.600 ± ") and rows[3][2] == "0.300"
    assert "Seeds 0, 1:" in (tmp_path / "here/table.md").read_text()
    joined = json.loads((tmp_path / "here/table.json").read_text())  # which can be added in turn
    assert list(joined["figures"]) == ["0", "1"] and joined["figures"]["1"]["cold_start"]["SRCC"] is None
    assert other_seeds([tmp_path / "here/table.json"], [2], size).keys() == {0, 1}
    (tmp_path / "no.json").write_text('{"rows": {}}')
    for files, seeds, of, message in [
        ([written], [0, 1], size, r"table\.json has seed 1, which is there already\. Fix: leave out"),
        ([written, written], [0], size, r"has seed 1, which is there already"),
        ([written], [0], Size(), r"had \{'steps': 3.*Fix: use the same settings"),
        ([tmp_path / "no.json"], [0], size, r"no\.json is not a table\.json of this script.*Fix: name another"),
    ]:
        with pytest.raises(ValueError, match=message):
            other_seeds(files, seeds, of)


def test_cold_starts_are_the_runs_of_their_seeds(tmp_path):
    from table import chosen_cold_starts

    for seed in (0, 1):
        (tmp_path / f"qs{seed}/sft/global_step_350/huggingface").mkdir(parents=True)
        (tmp_path / f"qs{seed}/data").mkdir()
        (tmp_path / f"qs{seed}/data/dataset_card.json").write_text(json.dumps({"seed": seed}))
    runs = [tmp_path / "qs0", tmp_path / "qs1"]
    assert chosen_cold_starts([0, 1], runs) == runs and chosen_cold_starts([0, 1], None) == [None, None]
    for seeds, given, said in [
        ([1, 0], runs, r"data in .*qs0 have seed 0, not 1\. Fix: name"),
        ([0], runs, r"has 2 runs for 1 seeds\. Fix: name one for each"),
        ([0], [tmp_path], r"has no data or no SFT model\. Fix: name a finished run"),
    ]:
        with pytest.raises(ValueError, match=said):
            chosen_cold_starts(seeds, given)


def test_a_cold_start_of_the_quickstart_is_read_and_not_made_again(tmp_path):
    from table import Size, build

    from omniq_verl.pipeline.tiny_stages import Settings

    settings, ready = Settings(REPO, tmp_path / "seed0", grpo_steps=4), tmp_path / "qs0"
    stages = build(settings, ["gaussian", "gspo"], Size(steps=4), ready)
    assert [stage.name for stage in stages] == ["cold_start", "gaussian", "gspo"]
    for stage in stages:
        assert f"data.train_files={ready}/data/train.parquet" in stage.command and stage.reads
        assert f"actor_rollout_ref.model.path={ready}/sft/global_step_350/huggingface" in stage.command
    assert "trainer.val_only=True" in stages[0].command
    assert [f"actor_rollout_ref.actor.ppo_mini_batch_size={size}" in stages[n].command for n, size in ((1, 8), (2, 2))]
    own = build(settings, ["gaussian"], Size(steps=4))
    assert [stage.name for stage in own] == ["data", "model", "sft", "cold_start", "gaussian"] and not own[-1].reads


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


def test_a_batch_that_cannot_be_cut_is_an_error(monkeypatch, capsys):
    import table

    monkeypatch.setattr(sys, "argv", ["table.py", "--prompts", "6"])
    with pytest.raises(SystemExit):
        table.main()
    assert "--prompts must be a multiple of 4" in capsys.readouterr().err


@pytest.mark.slow  # composes eighteen recipes
def test_the_rows_set_keys_that_their_recipes_have(tmp_path):
    from table import RUNS, Size, build

    from omniq_verl.pipeline.tiny_stages import Settings

    stages = build(Settings(REPO, tmp_path), list(RUNS), Size())
    training = [stage for stage in stages if "verl.trainer.main_ppo" in stage.command]
    assert len(training) == len(RUNS) + 1  # and the cold start
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
