"""Images per second of ``Scorer``, compared with other ways to query the same model about the same images.

    python benchmarks/scoring.py --run runs/quickstart

``--run`` is the folder of a finished ``make quickstart``. Its trained model answers in about 15 tokens; its untrained
model continues to ``--tokens``. Both are tiny models (0.6 million parameters), so this measures the overhead around a
model, not a model of full size.

The baselines are

- a loop of ``transformers.generate``, one image at a time, as in many READMEs in this field;
- ``vllm serve`` with 32 clients;
- vLLM's ``LLM.generate`` with all questions at once, whose images are decoded and resized before the clock starts;
- the same engine given all questions at once after vLLM's image processor has also processed them, so that only
  generation is left.

Three ways without reasoning are measured as well: ``Scorer`` with ``mode="direct"``; ``Scorer`` with the five level
words of Q-ReAlign, which costs the same whether or not a model was trained for them; and with ``--rali`` the
``RaliScorer`` of that folder. All of them decode and prepare the images.

Each way runs in its own process; its start-up is not counted. Every round has new images, so that caches from an
earlier round do not help.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

TRANSFORMERS = "transformers, one at a time"
SERVE = "vllm serve, 32 clients"
DECODED = "vLLM, given decoded images"
PROCESSED = "vLLM, given processed images"
SCORER = "Scorer"
DIRECT = "Scorer, direct"
LEVELS = "Scorer, level words"
RALI = "RaliScorer"
WAYS = (TRANSFORMERS, SERVE, DECODED, PROCESSED, SCORER, DIRECT, LEVELS, RALI)
LENGTH = 288  # total tokens of question and answer, enough for the quickstart's images
WARM_UP = 8

Score = Callable[[Sequence[Any]], list[int]]
"""Scores images; returns the number of tokens of each answer."""


def images_of(run: Path, number: int) -> list[bytes]:
    """Images of the training set, because the test set has too few for several rounds."""
    rows = pq.read_table(run / "data" / "train.parquet", columns=["images"]).slice(0, number).to_pylist()
    if len(rows) < number:
        raise SystemExit(f"{run} has {len(rows)} training images, but {number} are needed. Fix: use fewer --images")
    return [row["images"][0]["bytes"] for row in rows]


def timed(score: Score, rounds: list[list[Any]]) -> dict[str, float]:
    """Median images per second and mean answer length; the first round is a warm-up."""
    score(rounds[0])
    speeds, lengths = [], []
    for images in rounds[1:]:
        start = time.perf_counter()
        lengths = score(images)
        speeds.append(len(images) / (time.perf_counter() - start))
    return {"images_per_second": float(np.median(speeds)), "tokens": float(np.mean(lengths))}


def requests_about(images: Sequence[bytes]) -> list[Any]:
    from omniq_verl.generation.request import Request
    from omniq_verl.tasks import TECHNICAL

    return [Request(str(number), TECHNICAL.messages(None), (data,)) for number, data in enumerate(images)]


def by_engine(engine: Any, tokens: int) -> Score:
    from omniq_verl.generation.request import Sampling

    def score(images: Sequence[bytes]) -> list[int]:
        found = engine.answer(requests_about(images), Sampling(max_tokens=tokens))
        return [answers[0].tokens for answers in found]

    return score


def measure_transformers(model: Path, rounds: list[list[bytes]], tokens: int) -> dict[str, float]:
    from omniq_verl.generation.spec import EngineSpec
    from omniq_verl.generation.transformers_model import TransformersModel

    engine = TransformersModel(EngineSpec(str(model), "hf", dtype="float32", max_model_len=LENGTH), 1)
    return timed(by_engine(engine, tokens), rounds)


def measure_scorer(model: Path, rounds: list[list[bytes]], tokens: int) -> dict[str, float]:
    """``Scorer``, with its time split by activity, in milliseconds per image."""
    from transformers import AutoTokenizer

    from omniq_verl import Scorer

    scorer = Scorer(model, max_tokens=tokens, dtype="float32", memory=0.2, max_model_len=LENGTH)
    answers: list[str] = []

    def score(images: Sequence[bytes]) -> list[int]:
        answers[:] = [one.answer for one in scorer.score(images)]
        return [0]

    score(rounds[0])
    before = asdict(scorer.engine.spent)
    found = timed(score, [rounds[0][:1], *rounds[1:]])
    number = 1 + sum(map(len, rounds[1:]))
    spent = {name: 1000 * (spent - before[name]) / number for name, spent in asdict(scorer.engine.spent).items()}
    # A Score has no token count, and re-encoding a random model's texts may give fewer tokens.
    tokenizer = AutoTokenizer.from_pretrained(model)
    return found | spent | {"tokens": float(np.mean([len(tokenizer(answer).input_ids) for answer in answers]))}


def measure_direct(model: Path, rounds: list[list[bytes]], levels: bool) -> dict[str, float]:
    """``Scorer`` without reasoning: it reads the score from the probabilities of numbers, or of level words."""
    from omniq_verl import Scorer
    from omniq_verl.families.levels import Q_REALIGN

    family = Q_REALIGN if levels else None
    scorer = Scorer(model, mode="direct", family=family, dtype="float32", memory=0.2, max_model_len=LENGTH)
    return timed(scores_of(scorer, 0), rounds)


def measure_rali(folder: Path, rounds: list[list[bytes]]) -> dict[str, float]:
    from omniq_verl import RaliScorer

    return timed(scores_of(RaliScorer(folder), 0), rounds)


def scores_of(scorer: Any, tokens: int) -> Score:
    """Score images, each with this many tokens; stop if an image has no score, because that may take less time."""

    def score(images: Sequence[bytes]) -> list[int]:
        if failed := [one for one in scorer.score(images) if one.score is None]:
            raise SystemExit(f"{len(failed)} images have no score; the first: {failed[0].error or failed[0].status}")
        return [tokens] * len(images)

    return score


def measure_vllm(way: str, model: Path, rounds: list[list[bytes]], tokens: int) -> dict[str, float]:
    """vLLM's engine with the settings of ``Scorer``, given prepared questions."""
    from transformers import AutoProcessor

    from omniq_verl.generation.chat_inputs import banned_tokens
    from omniq_verl.generation.request import Request, Sampling
    from omniq_verl.generation.spec import EngineSpec
    from omniq_verl.generation.vllm_adapter import engine_settings, sampling_params
    from omniq_verl.generation.vllm_offline import vllm_prompt

    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # like Scorer
    from vllm import LLM

    llm = LLM(**engine_settings(EngineSpec(str(model), dtype="float32", memory=0.2, max_model_len=LENGTH)))
    processor = AutoProcessor.from_pretrained(model)

    params = sampling_params(Request("", []), Sampling(max_tokens=tokens), list(banned_tokens(processor).values()))
    ids = count()

    def decoded(image: bytes) -> Any:
        (request,) = requests_about([image])
        return vllm_prompt(processor, request.messages, request.images)

    def generate(prompts: Sequence[Any]) -> list[int]:
        return [len(one.outputs[0].token_ids) for one in llm.generate(prompts, params, use_tqdm=False)]

    def generate_processed(prompts: Sequence[Any]) -> list[int]:
        for prompt in prompts:
            llm.llm_engine.add_request(str(next(ids)), prompt, params)
        return [len(one.outputs[0].token_ids) for one in llm.wait_for_completion(use_tqdm=False)]

    prompts = [[decoded(image) for image in images] for images in rounds]
    if way == DECODED:
        return timed(generate, prompts)
    return timed(generate_processed, [llm.renderer.render_cmpl(some) for some in prompts])


def serve(model: Path) -> tuple[subprocess.Popen, str]:
    """Start `vllm serve` and wait until it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The program `vllm` looks up the version of the distribution "vllm", which the CPU build does not have.
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


def measure_serve(model: Path, rounds: list[list[bytes]], tokens: int) -> dict[str, float]:
    from omniq_verl.generation.openai_api import Endpoint

    server, address = serve(model)
    try:
        return timed(by_engine(Endpoint(str(model), address, at_once=32), tokens), rounds)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def measure(way: str, model: Path, rounds: list[list[bytes]], tokens: int, rali: Path | None) -> dict[str, float]:
    if way == RALI:
        return measure_rali(rali, rounds)
    if way in (DIRECT, LEVELS):
        return measure_direct(model, rounds, way == LEVELS)
    if way == SCORER:
        return measure_scorer(model, rounds, tokens)
    if way == TRANSFORMERS:
        return measure_transformers(model, rounds, tokens)
    if way == SERVE:
        return measure_serve(model, rounds, tokens)
    return measure_vllm(way, model, rounds, tokens)


def compare(model: Path, args: argparse.Namespace) -> None:
    found = {}
    for way in args.ways or [way for way in WAYS if way != RALI or args.rali]:
        words = ["--run", str(args.run), "--model", str(model), "--way", way, "--images", str(args.images)]
        words += ["--tokens", str(args.tokens), "--rounds", str(args.rounds)]
        words += ["--rali", str(args.rali)] if args.rali else []
        done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        found[way] = json.loads(done.stdout.splitlines()[-1])
    ours = found[SCORER]["images_per_second"]
    for way, figures in found.items():
        speed = figures["images_per_second"]
        print(f"  {way:30} {speed:8.1f} images/s, {figures['tokens']:5.1f} tokens; Scorer is {ours / speed:.2f} of it")
    split = found[SCORER]
    print(
        f"  Scorer, milliseconds per image: {1000 / ours:.2f} in total; engine {split['engine']:.2f}, engine waiting"
        f" for images {split['waiting']:.2f}; CPU time of the threads that prepare images {split['preparing']:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished make quickstart")
    parser.add_argument("--images", type=int, default=256, help="images per round (default: 256)")
    parser.add_argument("--tokens", type=int, default=100, help="longest answer (default: 100)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median is printed (default: 3)")
    parser.add_argument("--ways", nargs="*", choices=WAYS, help="measure only these, Scorer among them (default: all)")
    parser.add_argument("--rali", type=Path, help="folder of a fitted RALI model, which is measured too")
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if RALI in (args.ways or []) and not args.rali:
        parser.error("RaliScorer needs a model. Fix: add --rali FOLDER")
    if args.way:
        images = images_of(args.run, WARM_UP + args.rounds * args.images)
        cuts = [0, *range(WARM_UP, len(images) + 1, args.images)]
        rounds = [images[first:last] for first, last in pairwise(cuts)]
        print(json.dumps(measure(args.way, args.model, rounds, args.tokens, args.rali)))
        return
    for title, model in (("trained", last_model(args.run)), ("untrained", args.run / "model")):
        print(f"{title} tiny model, {args.images} images, median of {args.rounds} rounds", flush=True)
        compare(model, args)


def last_model(run: Path) -> Path:
    steps = sorted(run.glob("grpo/global_step_*"), key=lambda path: int(path.name.rsplit("_", 1)[1]))
    if not steps:
        raise SystemExit(f"{run} contains no trained model. Fix: run make quickstart first")
    return steps[-1] / "actor" / "huggingface"


if __name__ == "__main__":
    main()
