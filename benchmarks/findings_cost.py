r"""Memory and time that `omniq findings` takes for one image: by formula, and measured on a model of full size.

    python benchmarks/findings_cost.py --formula
    python benchmarks/findings_cost.py --size 3b --out runs/findings_cost --width 448 --height 336

The first command prints the formulas' figures for Qwen2.5-VL-3B and 7B on an image of 1024 x 768 pixels. The second
creates a model with random weights in bfloat16 (7.5 GB on disk for 3b) and processes one answer with it, one process
after another. It prints peak resident memory and wall time next to the formulas. The answer is fixed, because random
weights write none. OUT/findings_cost.json holds the latest measurement of each part.

load           the weights
attention      one forward pass, with the attention rows of the score's tokens
hidden-states  one forward pass with the hidden states of all layers: domain-gap, and the ridge of text-only
gate           one forward pass with the answer's logits, entropies, and gradients with respect to the output layer
gradient       one token's gradient with respect to all weights (gate); only with --parts, as it needs twice the memory
no-reasoning   the expected value after a forced <answer>
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import gpu_flops
from gpu_flops import ModelShape
from real_size import SIZES, Size

from omniq_verl.data.files import replace_text

REASONING = "the photograph is sharp and well exposed, with slight noise in the shadows"
ANSWER = f"<think>{REASONING}</think><answer>3.7</answer>"
PARTS = ("attention", "hidden-states", "gate", "gradient", "no-reasoning")
GIB = 2**30
_PATCH_VALUES, _MERGE, _WINDOW = 3 * 2 * 14 * 14, 2, 4


@dataclass(frozen=True)
class Asked:
    """A question about one image and its answer."""

    grid: tuple[int, int]
    """Tokens of the image per column and row."""
    words: int
    """Tokens of the question without those of the image."""
    answer: int
    score: int = 3
    """Tokens of the score."""

    @property
    def tokens(self) -> int:
        """All tokens of the sequence."""
        return math.prod(self.grid) + self.words + self.answer

    @property
    def patches(self) -> int:
        """Patches of the image."""
        return math.prod(self.grid) * _MERGE**2


TYPICAL = Asked(grid=(27, 37), words=200, answer=300)
"""An image of 1024 x 768 pixels, 1,499 tokens in all."""


def shape_of(size: Size) -> ModelShape:
    """What determines the number of operations."""
    head = size.hidden // size.heads
    language = (size.hidden, size.layers, head * size.heads, head * size.key_value_heads, size.mlp, size.vocabulary)
    vision = (size.vision_hidden, size.vision_layers, size.vision_mlp, len(size.vision_full))
    return ModelShape(*language, *vision, _PATCH_VALUES, _MERGE, _WINDOW)


def weights(shape: ModelShape, tied: bool) -> int:
    """Number of parameters, without biases and norms (less than 0.1%)."""
    attention = 2 * shape.hidden * (shape.query_width + shape.key_width)
    language = shape.layers * (attention + 3 * shape.hidden * shape.mlp)
    width = shape.vision_hidden
    vision = shape.vision_layers * (4 * width**2 + 3 * width * shape.vision_mlp) + shape.patch_values * width
    merged = width * shape.merge**2
    heads = shape.vocabulary * shape.hidden * (1 if tied else 2)
    return language + vision + merged**2 + merged * shape.hidden + heads


def operations(part: str, shape: ModelShape, asked: Asked, prefixes: int = 52) -> float:
    """Operations of a part, a multiplication and an addition as two. ``prefixes``: those of ``no-reasoning``."""
    image = math.prod(asked.grid)
    lengths = gpu_flops.Lengths(prompt=image + asked.words, response=asked.answer, grid=asked.grid)
    pass_ = gpu_flops.forward_flops(shape, lengths) - gpu_flops.head_flops(shape, asked.answer)
    if part == "gate":
        return pass_ + gpu_flops.head_flops(shape, asked.answer + 1)
    if part == "gradient":
        return 3 * (pass_ + gpu_flops.head_flops(shape, asked.answer + 1))
    if part == "no-reasoning":
        question = Asked(asked.grid, asked.words, answer=2)
        further = gpu_flops.layer_flops(shape, prefixes) + gpu_flops.head_flops(shape, prefixes)
        more = prefixes * gpu_flops.attention_flops(shape, question.tokens, 1)
        return operations("attention", shape, question) + further + more
    return pass_ + gpu_flops.head_flops(shape, 1)


def extra_bytes(part: str, shape: ModelShape, asked: Asked, heads: int) -> float:
    """Memory beside the weights, in bfloat16: what one layer needs at its peak, and what the part keeps.

    A layer holds its input, its norm in float32, gate, up and product: 8 D + 6 M bytes a token; a layer of the tower
    the same a patch, and the pixels. What a part keeps: the rows of attention (float32, scores and weights), the hidden
    states of all layers, the logits of the answer (and 64 rows of them in float32, four times over), the gradients of
    all weights and the activations of the pass, or the keys and values of the question nine times (once, and for eight
    prefixes).
    """
    language = asked.tokens * (8 * shape.hidden + 6 * shape.mlp)
    tower = asked.patches * (8 * shape.vision_hidden + 6 * shape.vision_mlp + 6 * shape.patch_values)
    pixels = 4 * asked.patches * shape.patch_values
    layer = max(language, tower) + pixels
    if part == "attention":
        return layer + 8 * heads * asked.score * asked.tokens
    if part == "hidden-states":
        return layer + 2 * (shape.layers + 1) * shape.hidden * asked.tokens
    if part == "gate":
        return layer + (2 * asked.answer + 16 * min(64, asked.answer)) * shape.vocabulary
    if part == "no-reasoning":
        return layer + 9 * 4 * shape.layers * shape.key_width * asked.tokens
    saved = asked.tokens * shape.layers * (20 * shape.hidden + 4 * shape.key_width + 8 * shape.mlp)
    saved += asked.patches * shape.vision_layers * (32 * shape.vision_hidden + 8 * shape.vision_mlp)
    return pixels + saved + 4 * (asked.answer + 1) * shape.vocabulary


def formula_rows(asked: Asked = TYPICAL) -> list[list[str]]:
    """By size and part: operations, and the memory of weights and all else."""
    rows = []
    for name in ("3b", "7b"):
        size, shape = SIZES[name], shape_of(SIZES[name])
        whole = 2.0 * weights(shape, size.tied)
        for part in PARTS:
            extra = extra_bytes(part, shape, asked, size.heads) + (whole if part == "gradient" else 0)
            figures = [operations(part, shape, asked) / 1e12, whole / GIB, extra / GIB]
            rows.append([name, part, *(f"{figure:.1f}" for figure in figures)])
    return rows


# Measurements


def one_photograph(width: int, height: int) -> bytes:
    """A JPEG file of this size."""
    from real_size import photographs

    return photographs(1, width, height)[0]


def messages() -> list[dict[str, str]]:
    """The question about technical quality."""
    from omniq_verl.tasks import TECHNICAL

    return TECHNICAL.messages("one", None)


def build(folder: Path, size: str) -> None:
    """Make the model; in a process of its own, so that its memory does not count."""
    import torch
    from real_size import save_model

    texts = ["system\nYou are a helpful assistant.\nuser\nassistant\n", messages()[0]["content"], ANSWER]
    save_model(folder, SIZES[size], texts, dtype=torch.bfloat16)


def measured(run: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """A result, with the wall and CPU seconds and the peak of this process's resident memory meanwhile (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # begins a new peak
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    spent = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    return result, {**spent, "peak_bytes": peak_bytes()}


def peak_bytes() -> int:
    """Peak of the resident memory since it was last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = [line for line in lines if line.startswith("VmHWM:")]
    return int(peak.split()[1]) * 1024


def measure(folder: Path, part: str, photograph: bytes) -> dict[str, Any]:
    """Open the model and take one part."""
    from omniq_verl.findings.attention_rows import NAME, register
    from omniq_verl.findings.reader import Reader
    from omniq_verl.generation.spec import EngineSpec

    register()
    spec = EngineSpec(str(folder), "hf", dtype="bfloat16")
    libraries = peak_bytes()
    reader, load = measured(lambda: Reader(spec, NAME if part == "attention" else None))
    read = reader.read(messages(), [photograph], ANSWER)
    if read is None:
        raise ValueError("the answer of this benchmark cannot be read")
    rows, columns = (int(side) // _MERGE for side in read.inputs["image_grid_thw"][0][1:])
    words = read.question - rows * columns
    asked = {"grid": (rows, columns), "words": words, "answer": len(read.texts), "score": len(read.at("score"))}
    more, figures = measured(lambda: run_part(part, reader, read, photograph))
    about = {"part": part, "libraries_bytes": libraries, "load": load, "asked": asked}
    return {**about, **figures, "result": more}


def run_part(part: str, reader: Any, read: Any, photograph: bytes) -> Any:
    """Compute what the finding computes of one image; returns a few numbers that show that it did."""
    from omniq_verl.findings.attention import answer_shares
    from omniq_verl.findings.features import token_features
    from omniq_verl.findings.gradients import answer_pass, full_gradients, output_gradients

    if part == "attention":
        return answer_shares(reader, read).mean(axis=(0, 1)).tolist()
    if part == "hidden-states":
        return [float(vector.std()) for vector in token_features(reader, read).values()]
    if part == "gradient":
        return full_gradients(reader, read, [len(read.texts) // 2])
    if part == "no-reasoning":
        return expectation(reader, photograph)
    from omniq_verl.evaluation.heatmap import token_numbers

    logits, hidden = answer_pass(reader, read)
    ids = read.inputs["input_ids"][0, read.question :].tolist()
    entropy = float(token_numbers(logits, ids)["entropy"].mean())
    return [entropy, float(output_gradients(logits, hidden, ids).mean())]


def expectation(reader: Any, photograph: bytes) -> list[float]:
    """The expected score behind a forced answer, and how many prefixes were read for it."""
    from omniq_verl.evaluation.heatmap import question_inputs, with_answer
    from omniq_verl.generation.direct import score_texts
    from omniq_verl.generation.expectation import Vocabulary, Walk
    from omniq_verl.generation.transformers_direct import expect
    from omniq_verl.tasks import TECHNICAL

    texts, tokenizer = score_texts(TECHNICAL), reader.processor.tokenizer
    begun = tokenizer.encode(texts.start, add_special_tokens=False)
    inputs = with_answer(question_inputs(reader.processor, messages(), photograph), begun)
    walk = Walk(Vocabulary.of(tokenizer).spelling(texts), smallest=0.0)
    found = expect(reader.model, reader.on_device(inputs), walk, 8)
    return [found.mean if found.mean is not None else math.nan, found.read]


def with_formula(found: dict[str, Any], size: Size) -> dict[str, Any]:
    """A measurement with the formulas' figures for the same sequence."""
    asked, shape, part = (
        Asked(**{**found["asked"], "grid": tuple(found["asked"]["grid"])}),
        shape_of(size),
        found["part"],
    )
    whole = 2.0 * weights(shape, size.tied)
    prefixes = int(found["result"][1]) if part == "no-reasoning" else 52
    extra = extra_bytes(part, shape, asked, size.heads) + (whole if part == "gradient" else 0)
    return {**found, "operations": operations(part, shape, asked, prefixes), "formula_bytes": whole + extra}


def line(found: dict[str, Any]) -> str:
    """One measurement in one line."""
    rate = found["operations"] / found["cpu_seconds"] / 1e9
    own = (found["peak_bytes"] - found["libraries_bytes"]) / GIB
    return (
        f"{found['part']}: peak {own:.2f} GiB beside the libraries, formula {found['formula_bytes'] / GIB:.2f} GiB;"
        f" {found['seconds']:.0f} s ({found['cpu_seconds']:.0f} s of CPU), {found['operations'] / 1e12:.2f}e12"
        f" operations, {rate:.0f}e9 a CPU second; loading {found['load']['seconds']:.0f} s; result {found['result']}"
    )


def measure_all(args: argparse.Namespace) -> None:
    """Every part in a process of its own; the file of results is written after each."""
    folder, results = args.out / f"model_{args.size}_bf16", args.out / "findings_cost.json"
    args.out.mkdir(parents=True, exist_ok=True)
    words = ["--size", args.size, "--out", str(args.out), "--width", str(args.width), "--height", str(args.height)]
    command = [sys.executable, __file__, *words]
    if not (folder / "config.json").exists():
        subprocess.run([*command, "--only", "build"], check=True)
    for part in args.parts:
        done = subprocess.run([*command, "--only", part], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"{part}: exit status {done.returncode}", flush=True)
            continue
        found = with_formula(json.loads(done.stdout.splitlines()[-1]), SIZES[args.size])
        print(line(found), flush=True)
        known = json.loads(results.read_text()) if results.exists() else {}
        replace_text(results, json.dumps({**known, part: found}, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--formula", action="store_true", help="print the formulas' figures and stop")
    add("--size", choices=SIZES, default="3b", help="(default: 3b)")
    add("--out", type=Path, default=Path("runs/findings_cost"), help="folder of the model and the results")
    add("--width", type=int, default=448, help="width of the image in pixels (default: 448)")
    add("--height", type=int, default=336)
    most = [part for part in PARTS if part != "gradient"]
    add("--parts", nargs="+", choices=PARTS, default=most, help="(default: all but gradient)")
    add("--only", choices=("build", *PARTS), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if args.formula:
        print("size  part           1e12 operations  weights, GiB  more, GiB")
        for size, part, *figures in formula_rows():
            print(f"{size:<6}{part:<15}{figures[0]:>15}{figures[1]:>14}{figures[2]:>11}")
    elif args.only == "build":
        build(args.out / f"model_{args.size}_bf16", args.size)
    elif args.only:
        photograph = one_photograph(args.width, args.height)
        print(json.dumps(measure(args.out / f"model_{args.size}_bf16", args.only, photograph)))
    else:
        measure_all(args)


if __name__ == "__main__":
    main()
