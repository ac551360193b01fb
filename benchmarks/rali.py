"""Time and memory per score of RALI and of a reasoning model, as ratios, compared with the paper's.

    python benchmarks/rali.py                            # both models at full size, batches of 1 and 16
    python benchmarks/rali.py --only preprocessing       # checks whether reading images is the bottleneck
    python benchmarks/rali.py --pyiqa VENV/bin/python    # also CLIP-IQA+, in an environment that has pyiqa
    python benchmarks/rali.py --small --tokens 4         # small models, to try the script in a minute

It compares CLIP ViT-L/14-336 with 250 basis vectors with Qwen2.5-VL-3B writing 100 tokens per image, and with CLIP-IQA+
on CLIP's ResNet-50, which takes images at their original size, in float32 (--dtype float32 also runs RALI in float32).
Weights are random, because neither time nor memory depends on them, and nothing is downloaded. Each model runs in its
own process. Memory is the peak of that process (on a GPU: the peak allocation), including weights. Time is that of a
batch, starting from files, after one warm-up image; for quick batches the shortest of a few. The paper (figure 6)
reports 3.4% of the time and 14.7% of the memory at a batch of 16 on an A100, compared with a 7B model.
"""

import argparse
import copy
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image

PAPER = {"time": 0.034, "memory": 0.147}
VISION = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
VISION |= {"image_size": 336, "patch_size": 14, "projection_dim": 768}
SMALL_VISION = VISION | {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16}
TEXT |= {"num_key_value_heads": 2, "vocab_size": 151_936, "tie_word_embeddings": True}
SMALL_TEXT = TEXT | {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
EYES = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420}
EYES |= {"fullatt_block_indexes": [7, 15, 23, 31], "window_size": 112}
SMALL_EYES = EYES | {"depth": 2, "hidden_size": 64, "num_heads": 2, "intermediate_size": 128}
QUESTION, BASIS, DIMENSIONS = 60, 250, 512
"""Tokens of a question; RALI's sizes."""
RN50 = {"embed_dim": 1024, "image_resolution": 224, "vision_layers": (3, 4, 6, 3), "vision_width": 64}
RN50 |= {"vision_patch_size": None, "context_length": 77, "vocab_size": 49_408}
RN50 |= {"transformer_width": 512, "transformer_heads": 8, "transformer_layers": 12}
ENOUGH, MOST = 5.0, 5
"""A batch is not timed again after this many seconds or batches."""
AT_ONCE = 2
"""Batches per round of the preprocessing measurement; one is read while the other is scored."""
REASONING, CLIP_IQA, PREPROCESSING = "reasoning", "CLIP-IQA+", "preprocessing"


def photographs(number: int, width: int, height: int) -> list[bytes]:
    """JPEG files of this size, made from a photograph that comes with scikit-image."""
    import skimage.data

    photo, files = Image.fromarray(skimage.data.astronaut()), []
    for turn in range(number):
        buffer = io.BytesIO()
        photo.rotate(7 * turn).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
        files.append(buffer.getvalue())
    return files


def filled(model: torch.nn.Module, dtype: torch.dtype, device: str) -> torch.nn.Module:
    """Materialise a model created on "meta", with random weights of this type."""
    model = model.to(dtype).to_empty(device=device).eval()
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter.data, -0.02, 0.02)
    return model


def save_random_rali(folder: Path, args: argparse.Namespace) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from omniq_verl.rali.checkpoint import DTYPES, About, RaliModel, save_rali
    from omniq_verl.rali.compress import Basis, Projection
    from omniq_verl.rali.encoder import ImageEncoder
    from omniq_verl.rali.fit import BasisScorer
    from omniq_verl.rali.preprocessing import Preprocessing
    from omniq_verl.tasks import TECHNICAL

    torch.manual_seed(0)
    config = CLIPVisionConfig(**(SMALL_VISION if args.small else VISION))
    with torch.device("meta"):
        vision = CLIPVisionModelWithProjection(config)
    vision = filled(vision, DTYPES[args.dtype], "cpu")
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's CLIP
    encoder, rng = ImageEncoder("clip", vision, Preprocessing(336, True, mean, std)), np.random.default_rng(0)
    projection = Projection(np.zeros(encoder.size), rng.normal(size=(encoder.size, DIMENSIONS)), 1.0)
    basis = Basis(rng.normal(size=(BASIS, DIMENSIONS)), np.linspace(1, 5, BASIS), np.array([BASIS]))
    about = About("technical", TECHNICAL.scale)
    save_rali(folder, RaliModel(encoder, BasisScorer(projection, basis)), about, DTYPES[args.dtype])


def rali(args: argparse.Namespace) -> Callable[[list[bytes]], object]:
    from omniq_verl.rali import RaliScorer

    scorer = RaliScorer(args.model, args.device, args.batch, args.dtype)
    return scorer.score


def reasoning(args: argparse.Namespace) -> Callable[[list[bytes]], object]:
    """Qwen2.5-VL in transformers, with an image and a question for each file."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessor

    from omniq_verl.rali.checkpoint import DTYPES

    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    text = {**(SMALL_TEXT if args.small else TEXT), "rope_parameters": rope}
    if args.small:
        rope["mrope_section"] = [2, 3, 3]
    eyes = {**(SMALL_EYES if args.small else EYES), "out_hidden_size": text["hidden_size"]}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=eyes, tie_word_embeddings=True)
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    buffers = _buffers(Qwen2_5_VLForConditionalGeneration, config)
    model = filled(model, DTYPES[args.dtype], args.device)
    model.tie_weights()
    for name, values in buffers.items():
        model.get_buffer(name).copy_(values)
    processor = Qwen2VLImageProcessor()
    special = [config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id]

    def answer(files: list[bytes]) -> object:
        seen = processor(images=[Image.open(io.BytesIO(file)) for file in files], return_tensors="pt")
        tokens = int(seen["image_grid_thw"][0].prod()) // 4
        ids = [special[2], *[special[0]] * tokens, special[3], *range(100, 100 + QUESTION)]
        batch = {"input_ids": torch.tensor([ids] * len(files)), **seen}
        kinds = (batch["input_ids"] == special[0]).int()
        batch = {name: values.to(args.device) for name, values in {**batch, "mm_token_type_ids": kinds}.items()}
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
        length = {"max_new_tokens": args.tokens, "min_new_tokens": args.tokens, "do_sample": False}
        with torch.inference_mode():
            found = model.generate(**batch, **length, suppress_tokens=special, pad_token_id=0, eos_token_id=1)
        assert found.shape[1] == len(ids) + args.tokens
        return found.cpu()

    return answer


def pyiqa(args: argparse.Namespace) -> Callable[[list[bytes]], object]:
    """CLIP-IQA+ in pyiqa, in float32; only its weights are not downloaded."""
    from pyiqa.archs import clipiqa_arch
    from pyiqa.archs.clip_model import CLIP
    from pyiqa.utils.img_util import imread2tensor

    torch.manual_seed(0)
    clipiqa_arch.load = lambda name, device: CLIP(**RN50)
    network = clipiqa_arch.CLIPIQA("clipiqa+", pretrained=False).to(args.device).eval()

    def score(files: list[bytes]) -> object:
        pixels = torch.stack([imread2tensor(file) for file in files])
        with torch.inference_mode():
            return network(pixels.to(args.device)).tolist()

    return score


def _buffers(kind: type, config: object) -> dict[str, torch.Tensor]:
    """Computed buffers (frequencies), which "meta" leaves out; they do not depend on any layer."""
    few = copy.deepcopy(config)
    few.text_config.num_hidden_layers, few.vision_config.depth = 0, 0
    few.text_config.layer_types, few.text_config.vocab_size = [], 8
    return dict(kind(few).named_buffers())


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Seconds and peak bytes of a batch; for the preprocessing, images per second."""
    if args.way == PREPROCESSING:
        return preprocessing(args)
    files = photographs(args.batch, args.width, args.height)
    run = {"RALI": rali, REASONING: reasoning, CLIP_IQA: pyiqa}[args.way](args)
    run(files[:1])
    seconds: list[float] = []
    while sum(seconds) < ENOUGH and len(seconds) < MOST:
        seconds.append(timed(lambda: run(files)))
    held = torch.cuda.max_memory_allocated() if args.device == "cuda" else most_held()
    return {"seconds": min(seconds), "bytes": held}


def timed(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    run()
    return clock() - start


def most_held() -> int:
    """Peak memory of this process in bytes; ``resource.getrusage`` would include the process that started it."""
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])


def preprocessing(args: argparse.Namespace) -> dict[str, float]:
    """Images per second from files to scores and of the encoder alone; CPU seconds to read an image.

    The two measurements alternate, so that other load on the machine slows both.
    """
    from omniq_verl.rali import RaliScorer

    scorer = RaliScorer(args.model, args.device, args.batch, args.dtype)
    files = photographs(args.batch, args.width, args.height)
    pixels = np.stack([scorer._load(file) for file in files])
    reading = timed(lambda: [scorer._load(file) for file in files], time.process_time) / len(files)
    scorer._forward(pixels)
    alone = whole = 0.0
    for _ in range(args.rounds):
        alone += timed(lambda: [scorer._forward(pixels) for _ in range(AT_ONCE)])
        whole += timed(lambda: scorer.score(files * AT_ONCE))
    images = len(files) * AT_ONCE * args.rounds
    return {"alone": images / alone, "whole": images / whole, "reading": reading}


def in_process(way: str, batch: int, model: Path, args: argparse.Namespace, words: list[str]) -> dict[str, float]:
    python = args.pyiqa if way == CLIP_IQA else sys.executable
    command = [python, __file__, *words, "--way", way, "--batch", str(batch), "--model", str(model)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def compare(args: argparse.Namespace, model: Path, words: list[str]) -> None:
    others = [way for way in (REASONING, CLIP_IQA) if way in args.only]
    for batch in args.batches if others else ():
        found = {way: in_process(way, batch, model, args, words) for way in ("RALI", *others)}
        for way, figures in found.items():
            print(f"  {way:10} batch {batch:2}: {figures['seconds']:8.2f} s, {figures['bytes'] / 2**30:6.2f} GiB")
        for way, (name, key) in product(others, (("time", "seconds"), ("memory", "bytes"))):
            ratio = found["RALI"][key] / found[way][key]
            paper = f" (paper: {PAPER[name]:.1%}, A100, 7B)" if batch == 16 and way == REASONING else ""
            print(f"  RALI takes {ratio:.1%} of the {name} of {way}{paper}", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = (REASONING, CLIP_IQA, PREPROCESSING)
    parser.add_argument("--only", nargs="+", choices=parts, help=f"default: all, but {CLIP_IQA} only with --pyiqa")
    parser.add_argument("--pyiqa", metavar="PYTHON", help="Python of an environment with pyiqa (pip install pyiqa)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--tokens", type=int, default=100, help="tokens per answer (default: 100)")
    parser.add_argument("--width", type=int, default=512, help="width of an image (default: 512, as in KADID)")
    parser.add_argument("--height", type=int, default=384)
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="bfloat16", help=f"data type of all but {CLIP_IQA}"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of the preprocessing measurement (default: 2)")
    parser.add_argument("--small", action="store_true", help=f"small models except {CLIP_IQA}, to try the script")
    parser.add_argument("--way", choices=("RALI", *parts), help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=16, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.only = args.only or [part for part in parts if part != CLIP_IQA or args.pyiqa]
    if CLIP_IQA in args.only and not args.pyiqa:
        parser.error(f"{CLIP_IQA} needs --pyiqa")
    return args


def main() -> None:
    args = arguments()
    if args.way:
        print(json.dumps(measure(args)))
        return
    setup = f"{args.device}, {args.dtype}, images of {args.width} x {args.height}, {args.tokens} tokens"
    print(f"{'small' if args.small else 'real'} sizes, random weights, {setup}")
    with tempfile.TemporaryDirectory() as folder:
        save_random_rali(Path(folder), args)
        compare(args, Path(folder), sys.argv[1:])
        if PREPROCESSING in args.only:
            speeds = in_process(PREPROCESSING, 16, Path(folder), args, sys.argv[1:])
            share = speeds["whole"] / speeds["alone"]
            print(f"  from files to scores {speeds['whole']:.2f} images/s, {share:.0%} of the encoder alone;", end=" ")
            print(f"reading an image takes {1000 * speeds['reading']:.1f} ms of CPU time")


if __name__ == "__main__":
    main()
