"""Which curves benchmarks/shared_prompt_curves.py calls the same, and what its runs change."""

import json
from pathlib import Path

import pytest
from gpu_step_builders import benchmark_module

from omniq_verl.pipeline.stage import needs
from omniq_verl.pipeline.tiny_stages import Settings

curves = benchmark_module("shared_prompt_curves")


def runs(shared: list[list[float]], separate: list[list[float]]) -> dict[str, dict[str, list[float]]]:
    names = dict(zip((*curves.SHARED, *curves.SEPARATE), [*shared, *separate], strict=True))
    return {run: dict.fromkeys(curves.METRICS, values) for run, values in names.items()}


def test_the_distance_is_the_root_mean_square_of_the_difference():
    assert curves.distance([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == 0
    assert curves.distance([0.0, 0.0], [3.0, -1.0]) == pytest.approx(5**0.5)


def test_equal_runs_and_runs_that_differ_are_compared_by_their_means():
    found = runs([[0.0], [2.0]], [[5.0], [9.0]])
    # Equal: 2 and 4. With and without: 5, 9, 3 and 7.
    assert curves.distances(found, curves.METRICS[0]) == (3.0, 6.0)
    assert curves.same_curve(3.0, 6.0, extent=1.0)
    assert not curves.same_curve(3.0, 6.1, extent=1.0)
    del found[curves.SEPARATE[1]]  # of a run with --three
    assert curves.distances(found, curves.METRICS[0]) == (2.0, 4.0)


@pytest.mark.parametrize(("shift", "verdict"), [(0.0, "yes"), (1.3e-3, "yes"), (1.5e-3, "no")])
def test_where_equal_runs_are_equal_to_the_bit_a_thousandth_of_the_range_is_allowed(shift, verdict):
    found = runs([[1.0, 2.0]] * 2, [[1.0, 2.0 + shift]] * 2)  # a distance of shift / sqrt(2)
    lines = curves.report(found)[2:]
    assert [line.split(" | ")[-1] for line in lines] == [f"{verdict} |"] * len(curves.METRICS)


def test_a_step_that_is_missing_is_an_error(tmp_path: Path):
    values = dict.fromkeys(curves.METRICS, 1.0)
    lines = [json.dumps({"step": step, "data": values}) for step in (1, 3)]
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "001.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"of step 2\. Fix: start this script again"):
        curves.read_run(tmp_path, 3)


def test_runs_differ_in_nothing_else(tmp_path: Path):
    stages = {
        stage.name: stage
        for stage in curves.build(Settings(curves.REPO, tmp_path), Path("/start"), [*curves.ORDER, curves.VERL])
    }
    words = {
        name: {word.replace(f"/{name}", "/NAME") for word in stage.command if "=" in word}
        for name, stage in stages.items()
    }
    assert words["shared"] == words["shared_again"]
    assert words["separate"] == words["separate_again"] == words["shared"] | {"trainer.v1.shared_prompt=off"}
    manager = "actor_rollout_ref.rollout.agent.agent_loop_manager_class=null"
    assert words["verl"] == words["separate"] | {manager}


def test_a_finished_quickstart_saves_the_cold_start(tmp_path: Path):
    settings = Settings(curves.REPO, tmp_path)
    stages = curves.build(settings, Path("/start"), curves.ORDER)
    assert [stage.name for stage in stages] == list(curves.ORDER)
    assert set(needs(stages, tmp_path).values()) == {()}
    assert all(str(path).startswith("/start/") for stage in stages for path in stage.reads)
    assert [stage.name for stage in curves.build(settings, None, curves.ORDER)] == [
        "data",
        "model",
        "sft",
        *curves.ORDER,
    ]
