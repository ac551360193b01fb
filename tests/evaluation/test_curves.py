"""Curves over training steps: what is read, what is drawn, and what is rejected."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from omniq_verl.evaluation.curves import PANELS, draw_curves, draw_table, read_curves, short_names


def write_run(folder: Path, steps: dict[int, dict[str, float]]) -> Path:
    """Metrics as verl's file logger writes them."""
    (folder / "metrics").mkdir(parents=True)
    lines = [json.dumps({"step": step, "data": data}) for step, data in steps.items()]
    (folder / "metrics" / "001.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def rising(key: str, steps: int = 3) -> dict[int, dict[str, float]]:
    return {step: {key: step / 10} for step in range(1, steps + 1)}


# Reading


@pytest.mark.parametrize(
    ("panel", "key"),
    [
        ("reward", "critic/score/mean"),
        ("validation_reward", "val-core/photos/reward/mean@2"),
        ("validation_srcc", "val-core/photos/srcc"),
        ("validation_plcc", "val-core/photos/plcc"),
        ("kl", "actor/kl_loss"),
        ("grad_norm", "actor/grad_norm"),
        ("entropy", "actor/entropy"),
        ("gate_threshold", "actor/gate/threshold"),
        ("gate_share", "actor/gate/share"),
        ("clip_fraction", "actor/pg_clipfrac"),
        ("response_length", "response_length/mean"),
    ],
)
def test_a_panel_has_the_values_of_its_key_and_no_other_panel_does(tmp_path, panel, key):
    table = read_curves(write_run(tmp_path / "run", rising(key)))
    assert list(table) == list(PANELS)
    assert table[panel].to_dict() == {1: 0.1, 2: 0.2, 3: 0.3}
    assert table.drop(columns=panel).isna().all(axis=None)


def test_groups_kept_are_a_share_of_those_kept_and_dropped(tmp_path):
    counts = {1: (16, 0), 2: (12, 4), 3: (1, 15)}
    steps = {n: {"filter/groups_kept": kept, "filter/groups_dropped": gone} for n, (kept, gone) in counts.items()}
    table = read_curves(write_run(tmp_path / "run", steps))
    assert table["groups_kept"].to_dict() == {1: 1.0, 2: 0.75, 3: 0.0625}


def test_validation_is_the_mean_over_sources_each_counting_once(tmp_path):
    values = {"val-core/a/srcc": 0.2, "val-core/b/c/srcc": 0.6, "val-core/mean/srcc": 0.4, "val-aux/a/srcc": 9.0}
    rewards = {"val-core/a/reward/mean@2": 0.5, "val-core/b/c/reward/mean@2": 0.7, "val-core/a/reward/best@2/mean": 9.0}
    table = read_curves(write_run(tmp_path / "run", {10: {**values, **rewards}}))
    assert table["validation_srcc"].to_dict() == {10: pytest.approx(0.4)}
    assert table["validation_reward"].to_dict() == {10: pytest.approx(0.6)}


def test_steps_without_a_value_are_gaps_and_infinities_too(tmp_path):
    run = write_run(tmp_path / "run", {1: {"actor/entropy": 1.0, "actor/gate/threshold": float("inf")}, 2: {"x": 1.0}})
    table = read_curves(run)
    assert table["entropy"].dropna().to_dict() == {1: 1.0}
    assert table["gate_threshold"].isna().all()


# Drawing


def test_runs_are_drawn_side_by_side_and_their_numbers_lie_beside_the_picture(tmp_path):
    runs = [write_run(tmp_path / seed / "grpo", rising("actor/entropy", steps)) for seed, steps in (("a", 2), ("b", 3))]
    out = draw_curves(runs, tmp_path / "new" / "curves.png")
    with Image.open(out) as image:
        assert image.format == "PNG"
    table = pd.read_csv(out.with_suffix(".csv"))
    assert list(table["run"]) == ["a", "a", "b", "b", "b"]
    assert list(table["step"]) == [1, 2, 1, 2, 3]
    assert list(table["entropy"]) == [0.1, 0.2, 0.1, 0.2, 0.3]


def test_panels_are_chosen_by_name_and_in_order(tmp_path):
    steps = {1: {"actor/entropy": 1.0, "critic/score/mean": 0.5, "response_length/mean": 9.0}}
    draw_curves([write_run(tmp_path / "run", steps)], tmp_path / "curves.png", ["response_length", "reward"])
    assert list(pd.read_csv(tmp_path / "curves.csv")) == ["run", "step", "response_length", "reward"]


def table_of(runs: int, panels: tuple[str, ...] = ("entropy", "clip_fraction"), steps: int = 4) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([[f"run {n}" for n in range(runs)], range(1, steps + 1)], names=["run", "step"])
    return pd.DataFrame(np.linspace(0.2, 0.4, len(index))[:, None].repeat(len(panels), 1), index, list(panels))


def test_every_panel_names_its_unit_and_has_whole_steps():
    figure = draw_table(table_of(2, tuple(PANELS), steps=2))
    assert [axis.get_title(loc="left") for axis in figure.axes] == [panel.title for panel in PANELS.values()]
    assert [axis.get_ylabel() for axis in figure.axes] == [panel.unit for panel in PANELS.values()]
    for axis in figure.axes:
        assert axis.get_xlabel() == "GRPO step"
        low, high = axis.get_xlim()
        assert [tick for tick in axis.get_xticks() if low <= tick <= high] == [1, 2]


def test_there_are_no_empty_panels():
    figure = draw_table(table_of(1, tuple(PANELS)[:5]))
    assert len(figure.axes) == 5


def test_the_legend_names_the_runs_where_there_are_several():
    assert [text.get_text() for text in draw_table(table_of(3)).legends[0].get_texts()] == ["run 0", "run 1", "run 2"]
    assert draw_table(table_of(1)).legends == []


def test_runs_differ_in_colour_line_and_marker():
    lines = draw_table(table_of(20)).axes[0].get_lines()
    styles = [(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines]
    assert len(set(styles)) == 20
    for kind in zip(*styles[:4], strict=True):
        assert len(set(kind)) == 4


def test_a_share_is_shown_from_zero_even_if_it_is_zero_throughout():
    table = table_of(1) * 0
    bottom, top = draw_table(table).axes[1].get_ylim()
    assert -0.1 < bottom < 0 < top


@pytest.mark.parametrize("steps", [1, 2000])
def test_runs_of_any_length_are_draw_table(steps):
    (line,) = draw_table(table_of(1, steps=steps)).axes[0].get_lines()
    assert len(line.get_xdata()) == steps


# Names


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["runs/a/grpo"], ["grpo"]),
        (["runs/a/grpo", "runs/b/grpo"], ["a", "b"]),
        (["runs/a/grpo", "runs/b/x/grpo", "runs/c/grpo"], ["a", "b/x", "c"]),
        (["runs/a", "runs/a/b"], ["a", "b"]),
        (["/x/a/b", "/x/a/b/b"], ["/x/a/b", "/x/a/b/b"]),
        (["/a", "/b"], ["a", "b"]),
        (["runs/../a", "b/"], ["a", "b"]),
    ],
)
def test_runs_are_called_by_what_tells_their_folders_apart(folders, names):
    assert short_names([Path(folder) for folder in folders]) == names


# Refusals


def test_a_folder_without_metrics_is_named_and_a_run_below_it_too(tmp_path):
    write_run(tmp_path / "quickstart" / "grpo", rising("actor/entropy"))
    with pytest.raises(ValueError, match=r"quickstart has no metrics .*such as .*quickstart/grpo"):
        draw_curves([tmp_path / "quickstart"], tmp_path / "curves.png")
    with pytest.raises(ValueError, match=r"nothing has no metrics .*trainer\.logger"):
        draw_curves([tmp_path / "nothing"], tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_a_run_of_another_kind_is_rejected(tmp_path):
    run = write_run(tmp_path / "sft", rising("train/loss"))
    with pytest.raises(ValueError, match=r"sft are not those of a GRPO run"):
        draw_curves([run], tmp_path / "curves.png")


def test_a_run_given_twice_is_rejected(tmp_path):
    run = write_run(tmp_path / "grpo", rising("actor/entropy"))
    with pytest.raises(ValueError, match="given twice"):
        draw_curves([run, tmp_path / "x" / ".." / "grpo"], tmp_path / "curves.png")


def test_unknown_panels_and_formats_are_rejected(tmp_path):
    run = write_run(tmp_path / "grpo", rising("actor/entropy"))
    with pytest.raises(ValueError, match=r"unknown panels \['loss'\]; known: reward"):
        draw_curves([run], tmp_path / "curves.png", ["loss"])
    with pytest.raises(ValueError, match=r"no plot can be written as \.csv\. Fix: end it with \.png"):
        draw_curves([run], tmp_path / "curves.csv")
    with pytest.raises(ValueError, match=r"new/curves: the name has no ending.* Fix: end it with \.png"):
        draw_curves([run], tmp_path / "new" / "curves")  # matplotlib would write curves.png
    assert not (tmp_path / "new").exists()
