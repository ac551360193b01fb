"""What generation of a training step takes, as a ratio to vLLM itself with the same requests.

    python benchmarks/generation.py --run runs/quickstart      # nine minutes on two busy CPU cores

One engine answers both. First it is asked through our agent loop, with rewards and TransferQueue, from handing out the
prompts until all rows are there. Then vLLM's own ``AsyncLLM.generate`` gets the same prompts, images, seeds and
sampling parameters at once. Caches of prompts and images are emptied before each. CPU time is that of all processes.
"""

import argparse
import os
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from rollout import Batches, configuration, prompts, start

WAYS = ("ours", "verl", "vLLM")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of the quickstart, with data/ and a model")
    parser.add_argument("--model", type=Path, help="the model; the run's last SFT checkpoint unless it is given")
    parser.add_argument("--prompts", type=int, default=16, help="prompts of a batch")
    parser.add_argument("--answers", type=int, default=16, help="answers to each prompt")
    parser.add_argument("--side", type=int, default=80, help="pixels of a side that images are resized to")
    parser.add_argument("--repeats", type=int, default=5, help="batches of each way; one more warms up")
    parser.add_argument("--verl", action="store_true", help="also through verl's own agent loop")
    return parser.parse_args()


def sft_checkpoint(run: Path) -> Path:
    found = sorted(run.glob("sft/global_step_*/huggingface"), key=lambda path: int(path.parent.name.split("_")[-1]))
    if not found:
        raise SystemExit(f"{run} has no SFT checkpoint. Fix: finish the quickstart, or give --model")
    return found[-1]


def cpu_seconds() -> Counter[str]:
    """CPU time of this process and all below it so far, by kind of process."""
    found: Counter[str] = Counter()
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            times, words = process.cpu_times(), process.cmdline()
        except psutil.Error:  # it has just ended
            continue
        found[kind_of(words)] += times.user + times.system
    return found


def kind_of(words: list[str]) -> str:
    """E.g. ``GroupAgentLoopWorker`` of ``ray::GroupAgentLoopWorker.generate_sequences``."""
    name = Path(words[0]).name if words else "?"
    return name.removeprefix("ray::").split(".")[0]


class Engine:
    """A server of verl's with vLLM in it, and the client that agent loops get."""

    def __init__(self, config: Any):
        import ray
        from replaying_server import ReplayingServer
        from verl.workers.rollout.llm_server import LLMServerClient
        from verl.workers.rollout.replica import RolloutMode
        from verl.workers.rollout.router import get_router_handle

        rollout = config.actor_rollout_ref.rollout
        self.server = ray.remote(ReplayingServer).options(max_concurrency=2000).remote(
            config=rollout, model_config=config.actor_rollout_ref.model, rollout_mode=RolloutMode.STANDALONE,
            workers=[], replica_rank=0, node_rank=0, gpus_per_node=1, nnodes=1, cuda_visible_devices="0",
        )  # fmt: skip
        ray.get(self.server.launch_server.remote())
        ray.get(self.server.record.remote())
        handle = get_router_handle(servers={"here": self.server}, router_config_path=None, full_determinism=False)
        self.client = LLMServerClient(config=config, load_balancer_handle=handle)

    def replay(self, rollouts: int) -> float:
        """The time vLLM itself takes for the requests of the last batch."""
        import ray

        seconds, asked, same = ray.get(self.server.replay.remote())
        assert asked == rollouts, f"{asked} requests were recorded"
        # vLLM's sums depend on what it batches together, which may change a few tokens.
        assert same > 0.9 * rollouts, f"only {same} of {rollouts} answers are the same"
        return seconds


class Spent:
    """Wall and CPU time of one way, by batch."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[Counter[str]] = []

    def add(self, wall: float, before: Counter[str]) -> None:
        self.wall.append(wall)
        self.cpu.append(cpu_seconds() - before)

    def line(self, rollouts: int) -> str:
        wall, cpu = self.medians()
        most = sum(self.cpu, Counter()).most_common(5)
        parts = ", ".join(f"{name} {seconds / len(self.cpu):.2f}" for name, seconds in most)
        return f"{wall:.2f} s, {wall / rollouts * 1000:.1f} ms each; CPU {cpu:.2f} s ({parts})"

    def medians(self) -> tuple[float, float]:
        return statistics.median(self.wall), statistics.median(one.total() for one in self.cpu)


def measure(args: argparse.Namespace, engine: Engine, batches: Batches) -> dict[str, Spent]:
    import ray

    spent = {way: Spent() for way in WAYS if way != "verl" or args.verl}
    for repeat in range(args.repeats + 1):
        for way, one in spent.items():
            if way != "vLLM":
                ray.get(engine.server.clear.remote())
            before = cpu_seconds()
            wall = engine.replay(args.prompts * args.answers) if way == "vLLM" else batches.seconds(way)
            if repeat:  # the first loads and warms up
                one.add(wall, before)
            print(f"batch {repeat}, {way}: {wall:.2f} s", flush=True)
    return spent


def main() -> None:
    args = parse()
    args.run = args.run.resolve()
    os.environ["VERL_PLATFORM"] = "cpu"
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; otherwise vLLM takes nearly half of the memory
    config = configuration(args, args.model or sft_checkpoint(args.run))
    start(config)
    rows = prompts(config, args.prompts)
    engine = Engine(config)
    spent = measure(args, engine, Batches(config, rows, engine.client))
    rollouts = args.prompts * args.answers
    print(f"{args.prompts} prompts x {args.answers} answers, images of {args.side} pixels squared:")
    for way, one in spent.items():
        print(f"  {way}: {one.line(rollouts)}")
    alone = spent["vLLM"].medians()
    for way in spent.keys() - {"vLLM"}:
        wall, cpu = (mine / other for mine, other in zip(spent[way].medians(), alone, strict=True))
        print(f"  {way} / vLLM: wall {wall:.2f}, CPU {cpu:.2f}", flush=True)


if __name__ == "__main__":
    main()
