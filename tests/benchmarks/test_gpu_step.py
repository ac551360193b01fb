"""The GPU benchmark: its table, its options, and parts that fail."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from gpu_step_builders import GRID, REPO, benchmark_module, shape_of, tiny_configuration

gpu_flops = benchmark_module("gpu_flops")
gpu_process = benchmark_module("gpu_process")
gpu_step = benchmark_module("gpu_step")
gpu_training = benchmark_module("gpu_training")
gpu_watch = benchmark_module("gpu_watch")
compute_score = benchmark_module("gpu_reward").compute_score
largest_difference = benchmark_module("gpu_sleep").largest_difference
render = benchmark_module("gpu_report").render
Sample = gpu_watch.Sample
PLAN = benchmark_module("gpu_plan").Plan("tiny", "/nowhere", True, prompts=2, answers=4, steps=3, grid=GRID, peak=1e12)


@pytest.fixture(scope="module")
def tiny_config():
    return tiny_configuration()


def test_the_reward_spreads_and_keeps_to_its_range():
    found = [compute_score(solution_str=f"answer {number}", data_source="x")["score"] for number in range(200)]
    assert 0 <= min(found) < 0.1 and 0.9 < max(found) < 1
    assert compute_score("\ud800") == compute_score("\ud800")  # half a surrogate pair does not stop a run


def metrics(step: float, gen: float) -> dict[str, float]:
    """Metrics of a step as verl logs them, with one second that no timer covers."""
    phases = {"gen": gen, "old_log_prob": 2.0, "ref": 1.5, "adv": 0.5, "update_actor": 4.0, "update_weights": 1.0}
    return {f"timing_s/{name}": seconds for name, seconds in phases.items()} | {
        "timing_s/step": step,
        "prompt_length/mean": 70.0,
        "response_length/mean": 30.0,
        "training/rollout_actor_probs_pearson_corr": 0.9999,
        "actor/gate/share": 0.2,
        "filter/groups_kept": 2,
    }


@pytest.fixture
def recorded(tmp_path) -> list[gpu_training.Record]:
    """Three steps from a metrics file that grows; the arrival of each is known."""
    path, reader = tmp_path / "steps.jsonl", gpu_training.MetricReader(tmp_path / "steps.jsonl")
    assert reader.poll(0) == []
    lines = [json.dumps({"step": n, "data": metrics(s, s - 10)}) for n, s in ((1, 20.0), (2, 12.0), (3, 14.0))]
    path.write_text(lines[0] + "\n" + lines[1][:20])
    assert [record.step for record in reader.poll(1020.0)] == [1]
    path.write_text(lines[0] + "\n" + lines[1] + "\n" + json.dumps({"step": 2, "data": {"val/x": 1}}) + "\n")
    assert [record.step for record in reader.poll(1033.0)] == [2]
    with open(path, "a") as file:
        file.write(lines[2] + "\n")
    reader.poll(1048.0)
    return reader.records


def test_the_table_of_a_recorded_run(recorded, tiny_config, tmp_path):
    shape = shape_of(tiny_config, tmp_path)
    rows = {row.phase: row for row in gpu_training.step_rows(recorded, PLAN, shape, estimate={"update": 3 * 2**30})}
    assert next(iter(rows)) == "generation" and list(rows)[-2:] == ["transport, other", "whole step"]
    assert rows["generation"].seconds == (10.0, 2.0, 4.0) and rows["generation"].typical == 3.0
    assert rows["transport, other"].seconds == pytest.approx((1.5, 1.5, 1.5))  # the untimed second, and advantages
    needed = gpu_flops.phase_flops(shape, gpu_flops.Lengths(70, 30, GRID), 2, 4)
    assert rows["update"].mfu == pytest.approx(needed["update"] / 4.0 / 1e12)
    assert rows["whole step"].mfu == pytest.approx(sum(needed.values()) / 13.0 / 1e12)
    assert rows["weight sync"].mfu is None and rows["update"].estimate_gib == 3.0
    found = gpu_training.summary(recorded, PLAN, shape)
    assert found["tokens_per_second_per_gpu"] == pytest.approx(2 * 4 * 100 / 13)
    assert found["gate_share"] == [0.2] * 3 and found["groups_kept"] == [2] * 3


def test_memory_and_load_are_those_of_the_phase(recorded, tiny_config, tmp_path):
    # Step 2 lasts from 1020 to 1032: an untimed second, generation from 1021 to 1023, old log-probs to 1025.
    samples = [Sample(1021.5, 2 * 2**30, 50), Sample(1024.0, 4 * 2**30, 80), Sample(1031.5, 6 * 2**30, 10)]
    rows = {row.phase: row for row in gpu_training.step_rows(recorded, PLAN, shape_of(tiny_config, tmp_path), samples)}
    peaks = {phase: row.usage.peak_gib for phase, row in rows.items() if row.usage}
    assert peaks == {"generation": 2, "old log-probs": 4, "weight sync": 6, "whole step": 6}
    assert rows["whole step"].usage.mean_load == pytest.approx(140 / 3)


def test_spans_of_a_step():
    spans = gpu_watch.phase_spans(100.0, 10.0, {"a": 2.0, "b": 3.0, "c": 4.0})
    assert spans == {"a": (101.0, 103.0), "b": (103.0, 106.0), "c": (106.0, 110.0)}
    assert gpu_watch.usage([Sample(1.0, 2**30, 5)], 2.0, 3.0) is None


def test_the_doctors_estimate_stands_beside_the_phases(tiny_config, tmp_path):
    from omniq_verl.doctor.gpu_memory import PHASES

    shape_of(tiny_config, tmp_path)
    plan = replace(PLAN, model=str(tmp_path), out=str(tmp_path), parameters=10**9, gpu_bytes=80 * 2**30)
    plan = replace(plan, prompt_tokens=101, prompt_tokens_mean=100.0)
    found = gpu_training.doctor_estimate(plan)
    assert set(found) == {"generation", "old log-probs", "reference", "update", "weight sync", "whole step"}
    assert found["update"] > 16e9 and found["whole step"] == max(found.values())
    assert gpu_training.doctor_estimate(replace(plan, on_gpu=False)) == {}
    # The doctor has two phases for the update; both are known here.
    assert gpu_training.by_phase(dict.fromkeys(PHASES, 1.0)).keys() == found.keys()
    assert gpu_training.by_phase({"update_passes": 4, "optimizer_step": 5})["update"] == 5


def test_bit_equality_is_told_from_rounding_and_from_other_tokens():
    before = [([1, 2], [-1.0, -2.0]), ([3], [-0.5])]
    assert largest_difference(before, [([1, 2], [-1.0, -2.0]), ([3], [-0.5])]) == 0.0
    assert largest_difference(before, [([1, 2], [-1.0, -2.25]), ([3], [-0.5])]) == 0.25
    assert largest_difference(before, [([1, 2], [-1.0, -2.0]), ([4], [-0.5])]) is None


@pytest.mark.parametrize("on_gpu", [True, False])
def test_the_recipe_composes_with_all_overrides(on_gpu, tmp_path):
    from omniq_verl.doctor.compose import compose_recipe
    from omniq_verl.doctor.settings import check_settings

    plan = replace(PLAN, on_gpu=on_gpu, out=str(tmp_path), prompt_tokens=101, eager=True)
    plan = replace(plan, overrides=("data.seed=7", "actor_rollout_ref.rollout.n=3"))
    config = compose_recipe(gpu_training.recipe(plan), gpu_training.overrides(plan), REPO / "recipes")
    assert not check_settings(config)
    assert config.trainer.n_gpus_per_node == 1 and config.trainer.total_training_steps == 3
    assert config.data.max_prompt_length == 112 and config.actor_rollout_ref.rollout.max_model_len == 112 + 512
    assert config.data.seed == 7 and config.actor_rollout_ref.rollout.n == 3  # the user's come last
    assert config.trainer.v1.sampler.sampler_kwargs.mode == "drop"
    assert config.actor_rollout_ref.actor.policy_loss.gate_rho == 0.2
    assert Path(config.reward.custom_reward_function.path).is_file()


def test_parts_run_in_their_own_order():
    args = gpu_step.arguments(["--out", "x", "--parts", "rali, step"])
    assert args.parts == ("step", "rali")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--parts", "step,sleeep"], "'sleeep' is not one of step, forward"),
        (["--parts", ","], "is not one of"),
        (["--answers", "1"], "--answers must be at least 2"),
        (["--steps", "0"], "must be at least 1, got 0"),
        (["--override", "data.seed"], "--override data.seed: write KEY=VALUE"),
        (["--quick", "--size", "3b"], "--quick implies --size tiny"),
        (["--size", "70b"], "invalid choice: '70b'"),
        (["--minutes", "nan"], "must be above 0"),
    ],
)
def test_bad_options_are_named(words, said, capsys):
    with pytest.raises(SystemExit):
        gpu_step.arguments(["--out", "x", *words])
    assert said in capsys.readouterr().err


def test_sizes_follow_machine_and_options():
    options = gpu_step.arguments(["--out", "x", "--answers", "5"])
    gpu, cpu = gpu_step.make_plan(options, True), gpu_step.make_plan(options, False)
    assert (gpu.size, gpu.prompts, gpu.answers, gpu.answer_tokens, gpu.width) == ("3b", 8, 5, 512, 1024)
    assert (cpu.size, cpu.prompts, cpu.answers, cpu.answer_tokens, cpu.width) == ("mini", 4, 5, 24, 224)
    assert gpu_step.make_plan(gpu_step.arguments(["--out", "x", "--quick"]), True).size == "tiny"


def test_help_shows_examples():
    done = subprocess.run(
        [sys.executable, REPO / "benchmarks/gpu_step.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "--size 3b --out runs/gpu_step" in done.stdout and "--peak-tflops" in done.stdout


@pytest.mark.parametrize("stand_by", [False, True])
def test_a_part_that_fails_costs_no_other(stand_by, tmp_path):
    # There is no plan.json, so both fail; each is reported with the end of its log.
    benchmark = gpu_step.Benchmark(replace(PLAN, out=str(tmp_path), on_gpu=False), 240, "gpu_step.py")
    assert not benchmark.run(["forward", "rali"], stand_by)
    saved = json.loads((tmp_path / "gpu_step.json").read_text())["parts"]
    assert all("plan.json" in saved[name]["error"] for name in ("forward", "rali"))
    page = (tmp_path / "gpu_step.md").read_text()
    assert "**forward: failed with exit code 1" in page and "**rali: failed with exit code 1" in page


def test_parts_that_wait_for_their_turn_end_when_the_run_is_interrupted(tmp_path):
    benchmark = gpu_step.Benchmark(replace(PLAN, out=str(tmp_path), on_gpu=False), 240, "gpu_step.py")
    benchmark.plan.write(tmp_path / "plan.json")
    found = []

    def interrupt(text: str) -> None:
        found.extend(process.poll() for process in benchmark._waiting.values())
        raise KeyboardInterrupt

    benchmark.say = interrupt  # called as the part's turn comes
    with pytest.raises(KeyboardInterrupt):
        benchmark.run(["rali"], stand_by=True)
    assert found == [None]  # it was there, waiting
    assert [process.poll() for process in benchmark._waiting.values()] == [-signal.SIGTERM]


def test_control_c_ends_everything_at_once(tmp_path):
    command = [sys.executable, REPO / "benchmarks/gpu_step.py", "--quick", "--out", tmp_path, "--parts", "rali"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "prepare.log").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130 and "interrupted" in said and "Traceback" not in said
    assert children and not any(alive(int(child)) for child in children)


def test_a_second_run_keeps_the_other_parts_of_the_same_benchmark(tmp_path):
    plan = replace(PLAN, out=str(tmp_path), on_gpu=False)
    gpu_step.Benchmark(plan, 5, "gpu_step.py").run(["rali"])
    again = gpu_step.Benchmark(plan, 5, "gpu_step.py")
    again.run(["forward"])
    assert set(again.results["parts"]) == {"rali", "forward"}
    other = gpu_step.Benchmark(replace(plan, answers=5), 5, "gpu_step.py")
    other.run(["forward"])
    assert set(other.results["parts"]) == {"forward"}
    (tmp_path / "gpu_step.json").write_text("{")
    gpu_step.Benchmark(plan, 5, "gpu_step.py").run(["forward"])
    assert set(json.loads((tmp_path / "gpu_step.json").read_text())["parts"]) == {"forward"}


def test_no_part_begins_without_time(tmp_path):
    benchmark = gpu_step.Benchmark(replace(PLAN, out=str(tmp_path), on_gpu=False), 5, "gpu_step.py")
    assert not benchmark.run(["rali"])
    assert "no time was left" in benchmark.results["parts"]["rali"]["error"]


def test_a_training_that_is_stopped_reports_its_finished_steps(recorded, tiny_config, tmp_path):
    folder = tmp_path / "run"
    shape_of(tiny_config, folder)
    benchmark = gpu_step.Benchmark(replace(PLAN, out=str(folder), model=str(folder), on_gpu=False), 120, "gpu_step.py")
    part = {"error": "stopped, its 300 s were over"}
    benchmark.results["parts"]["step"] = part
    benchmark._report_steps(part, recorded[:2], gpu_step.Watch())
    benchmark.write()
    page = (folder / "gpu_step.md").read_text()
    assert "**step: stopped, its 300 s were over**" in page
    assert "| generation | 10.00 | 2.00 | 2.00 | - | - | - | - |" in page


def test_old_log_probs_stand_beside_a_bare_forward_pass():
    results = {
        "plan": {"size": "3b", "on_gpu": True, "prompts": 8, "answers": 16, "grid": [27, 37]},
        "machine": {"card": "NVIDIA H200", "memory": "141 GiB", "driver": "580.1"},
        "versions": {"torch": "2.11"},
        "date": "2026-01-02",
        "command": "gpu_step.py --size 3b",
        "wall_seconds": 500.0,
        "parts": {
            "step": {"error": "exit code 1; the end of step.log:\nno room", "wall_seconds": 9.0},
            "forward": {"seconds": 5.0, "mfu": 0.5},
        },
    }
    page = render(results)
    assert "NVIDIA H200 (141 GiB), driver 580.1" in page and "```\nno room\n```" in page
    assert "5.00 s, MFU 50.0%." in page and "old log-probs take" not in page
    rows = [{"phase": phase, "typical": typical} for phase, typical in (("old log-probs", 6.0), ("weight sync", 2.5))]
    row = {"seconds": [1.0], "mfu": None, "mean_load": 13.4, "peak_gib": 86.5, "estimate_gib": None}
    results["parts"]["step"] = {
        "rows": [row | each for each in rows],
        "recipe": "omniquality_r/stage2",
        "summary": {
            "steps": 1,
            "tokens_per_second_per_gpu": 1999.6,
            "prompt_tokens": 1050.0,
            "response_tokens": 512.0,
            "rollout_actor_correlation": [0.99998],
            "gate_share": [None],
            "groups_kept": [8],
            "allocated_gib": 60.0,
            "forward_flops_per_answer": 2.6e13,
            "flops_saved_by_sharing_prompts": 3.8,
        },
    }
    page = render(results)
    assert "old log-probs take 1.20 times as long (target: 1.3), weight sync 2.5 s (target: 3 s)." in page
    assert "| old log-probs | 1.00 | 6.00 | - | 13% | 86.5 | - |" in page
    assert "- 2,000 tokens/s/GPU" in page and "0.999980" in page and "gate: -;" in page


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_process_past_its_time_ends_with_its_children(tmp_path):
    code = (
        "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        f"print(child.pid, file=open({str(tmp_path / 'child')!r}, 'w'), flush=True); print('begun', flush=True);"
        "time.sleep(60)"
    )
    began = time.monotonic()
    with pytest.raises(gpu_process.PartFailed, match=r"stopped after its limit of 3 s[\s\S]*begun"):
        process = gpu_process.start([sys.executable, "-c", code], os.environ, tmp_path / "log")
        gpu_process.finish(process, tmp_path / "log", 3)
    assert time.monotonic() - began < 20
    child = int((tmp_path / "child").read_text())
    for _ in range(50):
        if not alive(child):
            break
        time.sleep(0.1)
    assert not alive(child)
