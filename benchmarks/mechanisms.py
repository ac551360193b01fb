"""Cost of rewards, filter and gate, relative to a named baseline in the same run.

    python benchmarks/mechanisms.py                           # gate, memory, rewards: half a minute
    python benchmarks/mechanisms.py --run runs/quickstart     # also whole GRPO steps: about ten minutes
    python benchmarks/mechanisms.py --run runs/quickstart --trl trl/bin/python    # also TRL's (see trl_steps.py)

``--run`` is the folder of a finished ``make quickstart``. Its data and its SFT model are trained for a few steps by
unmodified verl, by this package with everything switched off, and with filter and gate.
"""

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from omniq_verl.losses import entropy_gate_mask
from omniq_verl.metric_log import next_metric_file, read_metrics
from omniq_verl.rewards import compute_score

REPO = Path(__file__).parents[1]
VOCABULARY = 151_936  # Qwen2.5-VL's
PLAIN = {
    "actor_rollout_ref.rollout.agent.default_agent_loop": "single_turn_agent",
    "trainer.v1.trainer_mode": "sync",
    "trainer.v1.sampler.custom_sampler.path": "null",
    "trainer.v1.sampler.custom_sampler.name": "null",
    "trainer.v1.sampler.sampler_kwargs": "{}",
}
# verl polls for finished rollouts every 2 s; to compare the rest fairly, poll every 0.1 s like this package.
QUICK = {
    **PLAIN,
    "trainer.v1.sampler.custom_sampler.path": str(REPO / "benchmarks" / "quick_poll.py"),
    "trainer.v1.sampler.custom_sampler.name": "QuickPoll",
}
GATE = {"actor_rollout_ref.actor.policy_loss.gate_rho": 0.2}
# The median of the tiny model's group deviations is about 0.3, so the paper's tau would drop nothing.
FILTER = {"trainer.v1.sampler.sampler_kwargs.mode": "drop", "trainer.v1.sampler.sampler_kwargs.tau": 0.28}
VARIANTS = {
    "verl, looking every 0.1 s": QUICK,
    "verl as it is": PLAIN,
    "this package, nothing switched on": {},
    "with the gate": GATE,
    "with gate and filter (drops groups)": {**GATE, **FILTER},
}


def best_of(function: Callable[[], object], times: int = 7) -> float:
    """Seconds of the fastest call, which is the least disturbed by other processes."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        found.append(time.perf_counter() - started)
    return min(found)


def gate_speed() -> None:
    torch.set_num_threads(1)
    entropy = torch.rand(1024, 1024)
    mask = torch.ones(1024, 1024, dtype=torch.bool)
    seconds = best_of(lambda: entropy_gate_mask(entropy, mask))
    baseline = best_of(lambda: entropy.sort())
    print(f"gate, 1 M tokens, one core: {seconds * 1e3:.1f} ms = {seconds / baseline:.2f} of sorting the rows")


def _entropy_and_gate(logits: torch.Tensor) -> None:
    from verl.utils.torch_functional import entropy_from_logits_with_chunking

    with torch.no_grad():
        entropy = entropy_from_logits_with_chunking(logits, chunk_size=128)[None]
    entropy_gate_mask(entropy, torch.ones_like(entropy))


def _kept_in_graph(logits: torch.Tensor) -> None:
    logits.requires_grad_()
    probabilities, log_probabilities = logits.softmax(-1), logits.log_softmax(-1)
    entropy = -(probabilities * log_probabilities).sum(-1)[None]
    torch.quantile(entropy, 0.8)
    _entropy_and_gate.keep = entropy  # keep the graph until backward, as a loss does


def _peak(work: Callable[[torch.Tensor], None], tokens: int) -> int:
    """Growth of the process's peak memory in bytes while ``work`` ran on existing logits."""
    torch.set_num_threads(1)
    work(torch.randn(2, 1000))  # one-time loading and allocation
    logits = torch.randn(tokens, VOCABULARY)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work(logits)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def gate_memory(tokens: int = 2048) -> None:
    pool = multiprocessing.get_context("spawn").Pool
    with pool(1) as process:
        ours = process.apply(_peak, (_entropy_and_gate, tokens))
    with pool(1) as process:
        graph = process.apply(_peak, (_kept_in_graph, tokens))
    print(
        f"peak memory of entropy and gate, {tokens} tokens x {VOCABULARY:,}: {ours / 2**20:.0f} MiB ="
        f" {ours / graph:.3f} of softmax and log-softmax kept in the graph ({graph / 2**20:.0f} MiB)"
    )


def reward_speed(answers: int = 20_000) -> None:
    reasoning = "The picture is sharp, yet its shadows are noisy and the sky shows bands. " * 22
    text = f"<think>{reasoning}</think><answer>3.42</answer>"  # about 400 tokens
    info, truth = {"task": "technical"}, json.dumps({"score": 3.5})

    def score() -> None:
        for _ in range(answers):
            compute_score("koniq", text, truth, info, sigma=0.8)

    def search() -> None:
        for _ in range(answers):
            float(text[text.index("<answer>") + 8 : text.index("</answer>")])

    ours, baseline = best_of(score, 3), best_of(search, 3)
    print(
        f"rewards, answers of {len(text)} characters, one core: {answers / ours:,.0f} per second ="
        f" {ours / baseline:.1f} times two str.index and a float()"
    )


def sft_model(run: Path) -> Path:
    """The last SFT checkpoint of a quickstart run."""
    return max((run / "sft").glob("global_step_*/huggingface"), key=lambda path: int(path.parent.name.split("_")[-1]))


def train(run: Path, out: Path, overrides: dict[str, object], steps: int) -> dict[str, float]:
    """Medians over the steps after the first, which is a warm-up of the engines."""
    model = sft_model(run)
    settings = {
        "actor_rollout_ref.model.path": model,
        "data.train_files": run / "data" / "train.parquet",
        "data.val_files": run / "data" / "val.parquet",
        "trainer.default_local_dir": out,
        "trainer.total_training_steps": steps,
        **dict.fromkeys(("trainer.save_freq", "trainer.test_freq"), -1),
        "trainer.val_before_train": False,
        **overrides,
    }
    words = [f"{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-dir", str(REPO / "recipes")]
    environment = {"VERL_PLATFORM": "cpu", "RAY_worker_niceness": "0", "OMP_WAIT_POLICY": "PASSIVE"}
    environment["VLLM_CPU_KVCACHE_SPACE"] = "1"
    environment["VERL_FILE_LOGGER_PATH"] = str(next_metric_file(out))
    (out / "metrics").mkdir()
    with open(out / "log", "w") as log:
        arguments = ["--config-name", "quickstart/grpo", *words]
        code = subprocess.call([*command, *arguments], env={**os.environ, **environment}, stdout=log, stderr=log)
    if code != 0:
        sys.exit((out / "log").read_text()[-3000:])
    later = [values for step, values in read_metrics(out).items() if step > 1]
    tokens = [v["response_length/mean"] * v.get("filter/groups_kept", 16) * 16 for v in later]
    seconds = [v["timing_s/step"] for v in later]
    return {
        "step": float(np.median(seconds)),
        "train": float(np.median([s - v["timing_s/gen"] for s, v in zip(seconds, later, strict=True)])),
        "token": float(np.median([s / t for s, t in zip(seconds, tokens, strict=True)])),
        "kept": float(np.mean([v.get("filter/groups_kept", 16) for v in later])),
    }


def whole_steps(run: Path, steps: int) -> float:
    """Print all variants; returns the seconds per step of this package with nothing switched on."""
    print(f"\nGRPO steps of 16 prompts x 16 rollouts, median of {steps - 1} (in brackets: relative to the first line)")
    found: dict[str, dict[str, float]] = {}
    for name, overrides in VARIANTS.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = train(run, Path(folder), overrides, steps)
        base, now = next(iter(found.values())), found[name]
        print(
            f"  {name:36} step {now['step']:5.1f} s ({now['step'] / base['step']:.2f}), without rollouts"
            f" {now['train']:5.2f} s ({now['train'] / base['train']:.2f}), per trained token"
            f" {now['token'] * 1e3:.2f} ms ({now['token'] / base['token']:.2f}), groups kept {now['kept']:.1f}",
            flush=True,
        )
    return found["this package, nothing switched on"]["step"]


def trl_steps(run: Path, python: Path, steps: int, ours: float) -> None:
    """Time TRL's GRPOTrainer on the same model, data, reward and lengths; ``ours``: this package's seconds per step."""
    model = sft_model(run)
    command = [str(python), str(REPO / "benchmarks" / "trl_steps.py"), str(model), str(run / "data" / "train.parquet")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    output = subprocess.run([*command, str(steps)], env=environment, check=True, capture_output=True, text=True).stdout
    found = json.loads(output.splitlines()[-1])
    theirs = float(np.median(found["seconds"][1:]))
    print(
        f"TRL's GRPOTrainer: step {theirs:.1f} s = {theirs / ours:.2f} of this package's;"
        f" {256 / theirs:.1f} samples per second against {256 / ours:.1f}"
        f" (answers of {np.mean(found['lengths']):.1f} tokens)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a finished make quickstart")
    parser.add_argument("--trl", type=Path, help="Python of an environment with TRL")
    parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args()
    gate_speed()
    reward_speed()
    gate_memory()
    if args.run:
        ours = whole_steps(args.run.resolve(), args.steps)
        if args.trl:
            trl_steps(args.run.resolve(), args.trl, args.steps, ours)


if __name__ == "__main__":
    main()
