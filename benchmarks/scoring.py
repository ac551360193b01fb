"""Images per second of ``Scorer``, as ratios to two baselines in the same run, on the same model and images.

    python benchmarks/scoring.py --run runs/quickstart

``--run`` is a folder ``make quickstart`` has finished. Its trained model answers in some 15 tokens, its untrained one
goes on to ``--tokens``. The baselines: a loop of ``transformers.generate``, one image at a time, as READMEs of this
field have it; and ``vllm serve`` driven by 32 clients. Each in a process of its own, start-up not counted. The
lengths of the Scorer are those of its texts encoded again, which is not how a random model wrote them.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

WAYS = ("transformers, one at a time", "vllm serve, 32 clients", "Scorer")
LENGTH = 288  # tokens of question and answer together, enough for the quickstart's images


def images_of(run: Path, number: int) -> list[bytes]:
    rows = pq.read_table(run / "data" / "test.parquet", columns=["images"]).slice(0, number + 8).to_pylist()
    return [row["images"][0]["bytes"] for row in rows]


def timed(score: Callable[[Sequence[bytes]], list[int]], images: list[bytes], rounds: int) -> dict[str, float]:
    """Median images per second, and mean length of the answers; eight other images come before."""
    score(images[:8])
    rest, speeds, lengths = images[8:], [], []
    for _ in range(rounds):
        start = time.perf_counter()
        lengths = score(rest)
        speeds.append(len(rest) / (time.perf_counter() - start))
    return {"images_per_second": float(np.median(speeds)), "tokens": float(np.mean(lengths))}


def by_transformers(model: Path, tokens: int) -> Callable[[Sequence[bytes]], list[int]]:
    from omniq_verl.generation.spec import EngineSpec
    from omniq_verl.generation.transformers_model import TransformersModel

    return by_engine(TransformersModel(EngineSpec(str(model), "hf", dtype="float32", max_model_len=LENGTH), 1), tokens)


def by_engine(engine: object, tokens: int) -> Callable[[Sequence[bytes]], list[int]]:
    from omniq_verl.generation.request import Request, Sampling
    from omniq_verl.tasks import TECHNICAL

    def score(images: Sequence[bytes]) -> list[int]:
        requests = [Request(str(n), TECHNICAL.messages(None), (data,)) for n, data in enumerate(images)]
        return [answers[0].tokens for answers in engine.answer(requests, Sampling(max_tokens=tokens))]

    return score


def by_scorer(model: Path, tokens: int) -> Callable[[Sequence[bytes]], list[int]]:
    from transformers import AutoTokenizer

    from omniq_verl import Scorer

    settings = {"dtype": "float32", "memory": 0.2, "max_model_len": LENGTH}
    scorer = Scorer(model, max_tokens=tokens, **settings)
    tokenizer = AutoTokenizer.from_pretrained(model)

    def score(images: Sequence[bytes]) -> list[int]:
        return [len(tokenizer(one.answer).input_ids) for one in scorer.score(images)]

    return score


def serve(model: Path) -> tuple[subprocess.Popen, str]:
    """Start `vllm serve` and wait until it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The program `vllm` asks for the version of the distribution of that name, which the CPU build has not.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--port", str(port)]
    command += ["--dtype", "float32", "--max-model-len", str(LENGTH), "--limit-mm-per-prompt", '{"image": 1}']
    command += ["--enforce-eager", "--no-enable-chunked-prefill", "--gpu-memory-utilization", "0.2"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return server, f"http://127.0.0.1:{port}/v1"
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("vllm serve did not start") from None
            time.sleep(1)


def measure(way: str, model: Path, images: list[bytes], tokens: int, rounds: int) -> dict[str, float]:
    if way == "Scorer":
        return timed(by_scorer(model, tokens), images, rounds)
    if way.startswith("transformers"):
        return timed(by_transformers(model, tokens), images, rounds)
    from omniq_verl.generation.openai_api import Endpoint

    server, address = serve(model)
    try:
        return timed(by_engine(Endpoint(str(model), address, at_once=32), tokens), images, rounds)
    finally:
        os.killpg(server.pid, 15)
        server.wait()


def compare(model: Path, args: argparse.Namespace) -> None:
    found = {}
    for way in WAYS:
        words = ["--run", str(args.run), "--model", str(model), "--way", way, "--images", str(args.images)]
        words += ["--tokens", str(args.tokens), "--rounds", str(args.rounds)]
        done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        found[way] = json.loads(done.stdout.splitlines()[-1])
    ours = found["Scorer"]["images_per_second"]
    for way, figures in found.items():
        speed = figures["images_per_second"]
        print(f"  {way:30} {speed:8.1f} images/s, {figures['tokens']:5.1f} tokens; Scorer is {ours / speed:.2f} of it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="finished folder of make quickstart")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=100, help="longest answer (default: 100)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        images = images_of(args.run, args.images)
        print(json.dumps(measure(args.way, args.model, images, args.tokens, args.rounds)))
        return
    for title, model in (("trained", last_model(args.run)), ("untrained", args.run / "model")):
        print(f"{title} tiny model, {args.images} images, median of {args.rounds} rounds")
        compare(model, args)


def last_model(run: Path) -> Path:
    steps = sorted(run.glob("grpo/global_step_*"), key=lambda path: int(path.name.rsplit("_", 1)[1]))
    return steps[-1] / "actor" / "huggingface"


if __name__ == "__main__":
    main()
