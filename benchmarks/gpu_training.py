"""Training part of ``gpu_step.py``: command, run, and the table of its steps."""

import json
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median
from typing import Any

from gpu_flops import Lengths, ModelShape, forward_flops, group_flops, phase_flops
from gpu_plan import Plan
from gpu_watch import Sample, Usage, phase_spans, usage

REPO = Path(__file__).resolve().parents[1]
TIMERS = {
    "generation": "timing_s/gen",
    "old log-probs": "timing_s/old_log_prob",
    "reference": "timing_s/ref",
    "advantages": "timing_s/adv",
    "update": "timing_s/update_actor",
    "weight sync": "timing_s/update_weights",
}
"""verl's timers, in the order in which the phases run."""
OTHER, STEP = "transport, other", "whole step"
CORRELATION = "training/rollout_actor_probs_pearson_corr"


@dataclass(frozen=True)
class Record:
    """Metrics of one finished step."""

    step: int
    data: Mapping[str, float]
    arrived: float
    """``time.time()`` when the trainer wrote the metrics, which is when the next step began."""


@dataclass(frozen=True)
class Row:
    """One phase of the table."""

    phase: str
    seconds: tuple[float, ...]
    """One entry per step."""
    typical: float
    """Median over the steps after the first, which is a warm-up; the first step's value if it is the only one."""
    mfu: float | None
    usage: Usage | None
    estimate_gib: float | None
    """Peak memory according to the doctor."""


def recipe(plan: Plan) -> str:
    """Recipe of stage 2; without a GPU its tiny CPU variant."""
    return "omniquality_r/stage2" if plan.on_gpu else "omniquality_r/cpu_tiny_stage2"


def overrides(plan: Plan) -> list[str]:
    """KEY=VALUE overrides of the recipe; the user's own come last."""
    rollout = "actor_rollout_ref.rollout"
    values = {
        "actor_rollout_ref.model.path": plan.model,
        "data.train_files": plan.train,
        "data.val_files": plan.train,
        "data.train_batch_size": plan.prompts,
        "data.max_prompt_length": plan.most_prompt_tokens,
        "data.max_response_length": plan.answer_tokens,
        "actor_rollout_ref.actor.ppo_mini_batch_size": plan.prompts,
        f"{rollout}.n": plan.answers,
        f"{rollout}.max_model_len": plan.most_prompt_tokens + plan.answer_tokens,
        f"{rollout}.calculate_log_probs": True,
        "reward.custom_reward_function.path": Path(__file__).with_name("gpu_reward.py"),
        "trainer.v1.sampler.sampler_kwargs.tau": 0.001,
        "trainer.n_gpus_per_node": 1,
        "trainer.nnodes": 1,
        "trainer.total_epochs": 1000,
        "trainer.total_training_steps": plan.steps,
        "trainer.val_before_train": False,
        "trainer.test_freq": -1,
        "trainer.save_freq": -1,
        "trainer.resume_mode": "disable",
        "trainer.default_local_dir": Path(plan.out, "training"),
    }
    if plan.on_gpu and plan.eager:
        values[f"{rollout}.enforce_eager"] = True
    return [f"{key}={value}" for key, value in values.items()] + list(plan.overrides)


def command(plan: Plan) -> list[str]:
    words = ["--config-dir", str(REPO / "recipes"), "--config-name", recipe(plan), *overrides(plan)]
    return [sys.executable, "-m", "verl.trainer.main_ppo", *words]


def environment(plan: Plan) -> dict[str, str]:
    """Environment of all processes of the benchmark: no network, no usage statistics."""
    found = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "WANDB_MODE": "offline",
        "TOKENIZERS_PARALLELISM": "false",
        "HYDRA_FULL_ERROR": "1",
        "PYTHONUNBUFFERED": "1",
        "VERL_FILE_LOGGER_PATH": str(metric_file(plan)),
    }
    if find_spec("flashinfer") is None:
        found["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
    if not plan.on_gpu:
        found |= {"VERL_PLATFORM": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1"}
        found |= {"RAY_worker_niceness": "0", "OMP_WAIT_POLICY": "PASSIVE"}
    # Ray's workers must be able to import the same modules as this process.
    paths = [str(REPO), os.environ.get("PYTHONPATH", "")]
    return found | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def metric_file(plan: Plan) -> Path:
    return Path(plan.out, "step_metrics.jsonl")


def clear_old_run(plan: Plan) -> None:
    """Remove the results of an earlier run, so that its metrics are not mistaken for this one's."""
    metric_file(plan).unlink(missing_ok=True)
    shutil.rmtree(Path(plan.out, "training"), ignore_errors=True)


class MetricReader:
    """Reads the steps of a growing metrics file and remembers when each arrived."""

    def __init__(self, path: Path):
        self._path, self._read = path, 0
        self.records: list[Record] = []

    def poll(self, now: float) -> list[Record]:
        """Records since the last call; an incomplete line is left for the next call."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._read)
                content = file.read()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        lines = [json.loads(line) for line in whole.splitlines() if line.strip()]
        new = [Record(line["step"], line["data"], now) for line in lines if TIMERS["generation"] in line["data"]]
        self.records += new
        return new


def seen_lengths(records: Sequence[Record], plan: Plan) -> Lengths:
    """Mean lengths of prompts and answers in these steps."""
    prompt = fmean(record.data["prompt_length/mean"] for record in records)
    response = fmean(record.data["response_length/mean"] for record in records)
    return Lengths(prompt, response, plan.grid)


def step_rows(
    records: Sequence[Record],
    plan: Plan,
    shape: ModelShape,
    samples: Sequence[Sample] = (),
    estimate: Mapping[str, float] | None = None,
) -> list[Row]:
    """The table: a row per phase, then the time between phases, then the whole step.

    Args:
        records: finished steps.
        plan: sizes of the batch.
        shape: shape of the model.
        samples: readings of the card during the steps.
        estimate: the doctor's estimate of peak memory in bytes by phase; see ``doctor_estimate``.
    """
    times = {phase: [record.data.get(key, 0.0) for record in records] for phase, key in TIMERS.items()}
    whole = [record.data["timing_s/step"] for record in records]
    shown = {phase: seconds for phase, seconds in times.items() if phase != "advantages"}
    shown[OTHER] = [total - sum(shown[phase][n] for phase in shown) for n, total in enumerate(whole)]
    shown[STEP] = whole
    needed = phase_flops(shape, seen_lengths(records, plan), plan.prompts, plan.answers)
    needed[STEP] = sum(needed.values())
    used = _usage_by_phase(records, samples)
    rows = []
    for phase, seconds in shown.items():
        typical = median(seconds[1:] or seconds)
        mfu = needed[phase] / typical / plan.peak if phase in needed and typical > 0 and plan.on_gpu else None
        bytes_ = (estimate or {}).get(phase)
        rows.append(Row(phase, tuple(seconds), typical, mfu, used.get(phase), bytes_ and bytes_ / 2**30))
    return rows


def _usage_by_phase(records: Sequence[Record], samples: Sequence[Sample]) -> dict[str, Usage]:
    """Memory and load of each phase over all steps."""
    parts: dict[str, list[Sample]] = {}
    begun = None
    for record in records:
        whole = record.data["timing_s/step"]
        begun = record.arrived - whole if begun is None else begun
        spans = phase_spans(begun, whole, {phase: record.data.get(key, 0.0) for phase, key in TIMERS.items()})
        spans[STEP] = (begun, begun + whole)
        for phase, (start, end) in spans.items():
            parts.setdefault(phase, []).extend(one for one in samples if start <= one.when <= end)
        begun = record.arrived
    found = {phase: usage(chosen, float("-inf"), float("inf")) for phase, chosen in parts.items()}
    return {phase: used for phase, used in found.items() if used}


def summary(records: Sequence[Record], plan: Plan, shape: ModelShape) -> dict[str, Any]:
    """Figures of the steps that are not in the table."""
    lengths = seen_lengths(records, plan)
    seconds = median([record.data["timing_s/step"] for record in records][1:] or [records[0].data["timing_s/step"]])
    separate = plan.answers * forward_flops(shape, lengths)
    allocated = max(record.data.get("actor/perf/max_memory_allocated_gb", 0.0) for record in records)
    return {
        "steps": len(records),
        "tokens_per_second_per_gpu": plan.prompts * plan.answers * (lengths.prompt + lengths.response) / seconds,
        "prompt_tokens": lengths.prompt,
        "response_tokens": lengths.response,
        "rollout_actor_correlation": [record.data.get(CORRELATION) for record in records],
        "gate_share": [_gate_share(record.data) for record in records],
        "groups_kept": [record.data.get("filter/groups_kept") for record in records],
        "allocated_gib": allocated or None,
        "forward_flops_per_answer": forward_flops(shape, lengths),
        "flops_saved_by_sharing_prompts": separate / group_flops(shape, lengths, plan.answers),
    }


def _gate_share(data: Mapping[str, float]) -> float | None:
    return next((value for key, value in data.items() if key.endswith("gate/share")), None)


def doctor_estimate(plan: Plan) -> dict[str, float]:
    """The doctor's estimate of peak GPU memory in bytes, by phase of this table; empty without a GPU."""
    from omniq_verl.doctor.compose import compose_recipe
    from omniq_verl.doctor.gpu_memory import estimate_phases, read_shape

    shape = read_shape(Path(plan.model), plan.parameters)
    if shape is None or not plan.on_gpu:
        return {}
    config = compose_recipe(recipe(plan), overrides(plan), REPO / "recipes")
    image_share = math.prod(plan.grid) / (plan.prompt_tokens_mean + plan.answer_tokens)
    return by_phase(estimate_phases(config, shape, image_share, plan.gpu_bytes or None))


def by_phase(estimate: Mapping[str, float]) -> dict[str, float]:
    """The doctor's estimate under this table's names; the larger one for two phases that are timed together."""
    names = {"old_log_prob": "old log-probs", "update_passes": "update", "optimizer_step": "update"}
    names |= {"weight_sync": "weight sync"}
    found: dict[str, float] = {}
    for name, size in estimate.items():
        phase = names.get(name, name)
        found[phase] = max(float(size), found.get(phase, 0.0))
    return found | ({STEP: max(found.values())} if found else {})
