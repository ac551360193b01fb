"""Creates a Qwen2.5-VL with random weights at a chosen size, photographs and training data, without network access.

    python benchmarks/real_size.py --size 3b --out runs/gpu_step --images 24

Architecture and patch size are those of the published models. The vocabulary has its full size too: a small tokenizer
is trained on the questions, and the rest are filler tokens ("~00002a") that only a model can write. Time and memory do
not depend on the values of the weights if the answers have the same length. With random weights an answer would end by
chance once in 150,000 tokens; the end-of-turn token's weights are scaled down so that greedy answers never end.

Photographs are distinct crops of the colour photographs that come with scikit-image. Scores are random.
"""

import argparse
import io
import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data_prep"))

import numpy as np
from PIL import Image

_PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
_LEARNED_TOKENS = 434
_QUIET_END = 0.1
"""Factor on the end token's row in the head: its logit varies a tenth as much as others and is never the largest."""
FACTS = "real_size.json"


@dataclass(frozen=True)
class Size:
    """Sizes of a model, as in the published ``config.json`` files."""

    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    mlp: int
    vocabulary: int
    tied: bool
    """True if embedding and head share their weights."""
    vision_hidden: int = 1280
    vision_layers: int = 32
    vision_heads: int = 16
    vision_mlp: int = 3420
    vision_full: tuple[int, ...] = (7, 15, 23, 31)
    """Vision layers with attention over the whole image."""


_MINI_VISION = {"vision_hidden": 160, "vision_layers": 4, "vision_heads": 2, "vision_mlp": 256, "vision_full": (1, 3)}
_TINY_VISION = {"vision_hidden": 64, "vision_layers": 2, "vision_heads": 2, "vision_mlp": 128, "vision_full": (1,)}
SIZES = {
    "tiny": Size(128, 2, 4, 2, 256, 16_384, False, **_TINY_VISION),
    "mini": Size(256, 2, 2, 1, 512, 16_384, True, **_MINI_VISION),
    "3b": Size(2048, 36, 16, 2, 11008, 151_936, True),
    "7b": Size(3584, 28, 28, 4, 18944, 152_064, False),
}
"""``tiny`` has the widths of the quickstart's model; ``mini`` has Qwen2.5-VL's head width of 128."""


def photographs(count: int, width: int, height: int, seed: int = 0) -> list[bytes]:
    """Distinct JPEG files of this size: random crops and mirror images of the shipped photographs."""
    import skimage.data

    sources = [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in _PHOTOS]

    def crop(number: int) -> bytes:
        photo, rng = sources[number % len(sources)], np.random.default_rng([seed, number])
        scale = min(photo.width / width, photo.height / height) * rng.uniform(0.5, 1.0)
        left, top = rng.uniform(0, photo.width - scale * width), rng.uniform(0, photo.height - scale * height)
        box = (left, top, left + scale * width, top + scale * height)
        chosen = photo.resize((width, height), Image.Resampling.BICUBIC, box=box)
        if rng.random() < 0.5:
            chosen = chosen.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        buffer = io.BytesIO()
        chosen.save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    with ThreadPoolExecutor() as pool:  # Pillow releases the GIL
        return list(pool.map(crop, range(count)))


def save_data(folder: Path, files: list[bytes]) -> Path:
    """Write photographs and random scores, and convert them to parquet with ``data_prep/manifest.py``.

    Returns:
        The training file.
    """
    import manifest  # data_prep/manifest.py

    photos, data = folder / "photos", folder / "data"
    for stale in (photos, data):
        shutil.rmtree(stale, ignore_errors=True)
    photos.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), ["image,score"]
    for number, content in enumerate(files):
        name = f"{number:05}.jpg"
        (photos / name).write_bytes(content)
        rows.append(f"{name},{rng.uniform(0, 100):.1f}")
    (photos / "manifest.csv").write_text("\n".join(rows) + "\n")
    words = ["--root", str(photos), "--out", str(data), "--data-source", "gpu_step", "--low", "0", "--high", "100"]
    manifest.run(words)
    return data / "train.parquet"


def fill_vocabulary(tokenizer: Any, size: int) -> Any:
    """Add filler tokens before the tokenizer's special tokens, up to ``size`` tokens in total.

    Raises:
        ValueError: it already has more than ``size`` tokens.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from omniq_verl.tiny.tokenizer import CHAT_TEMPLATE, END_OF_TEXT, SPECIAL_TOKENS, TURN_END

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary, special = state["model"]["vocab"], state["added_tokens"]
    fillers = size - len(vocabulary) - len(special)
    if fillers < 0:
        raise ValueError(f"the tokenizer has {size - fillers} tokens, more than the model's {size}")
    vocabulary.update({f"~{number:06x}": number for number in range(len(vocabulary), len(vocabulary) + fillers)})
    for number, token in enumerate(special):
        token["id"] = len(vocabulary) + number
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        chat_template=CHAT_TEMPLATE,
        model_max_length=32_768,
        clean_up_tokenization_spaces=False,
    )


def build_config(tokenizer: Any, size: Size) -> Any:
    """Qwen2.5-VL's configuration at this size."""
    from transformers import Qwen2_5_VLConfig

    token = tokenizer.convert_tokens_to_ids
    head = size.hidden // size.heads
    text = {
        "vocab_size": size.vocabulary,
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.key_value_heads,
        "intermediate_size": size.mlp,
        "max_position_embeddings": 32_768,
        # Rotary dimensions for time, height and width: 16, 24, 24 in the published models.
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [head // 8, head * 3 // 16, head * 3 // 16],
        },
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": size.tied,
    }
    vision = {
        "depth": size.vision_layers,
        "hidden_size": size.vision_hidden,
        "num_heads": size.vision_heads,
        "intermediate_size": size.vision_mlp,
        "out_hidden_size": size.hidden,
        "patch_size": 14,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": list(size.vision_full),
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=size.tied,
    )


def save_model(folder: Path, size: Size, texts: list[str], seed: int = 0, dtype: Any = None) -> int:
    """Write model, tokenizer and processor; returns the number of parameters. The folder only appears when complete.

    Args:
        folder: folder of the model.
        size: size of the model.
        texts: questions the tokenizer is trained on.
        seed: seed of the weights.
        dtype: number type of torch; None: bfloat16 on a GPU, float32 on a CPU.
    """
    import torch
    from transformers import (
        GenerationConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    from omniq_verl.tiny.tokenizer import train_tokenizer

    tokenizer = fill_vocabulary(train_tokenizer(texts, _LEARNED_TOKENS), size.vocabulary)
    on_gpu = torch.cuda.is_available()
    torch.manual_seed(seed)
    torch.set_default_dtype(dtype or (torch.bfloat16 if on_gpu else torch.float32))
    with torch.device("cuda" if on_gpu else "cpu"):
        model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer, size))
    torch.set_default_dtype(torch.float32)
    ends = {"bos_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    with torch.no_grad():
        model.get_output_embeddings().weight[[tokenizer.eos_token_id, tokenizer.pad_token_id]] *= _QUIET_END
    model.generation_config = GenerationConfig(**ends, pad_token_id=tokenizer.pad_token_id)
    pixels = {"shortest_edge": 56 * 56, "longest_edge": 1024 * 1024}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=14, size=pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(patch_size=14, size=pixels),
        chat_template=tokenizer.chat_template,
    )
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    processor.save_pretrained(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(unfinished, folder)
    return sum(parameter.numel() for parameter in model.parameters())


def prompt_facts(model: Path, parquet: Path) -> dict[str, Any]:
    """Tokens of the prompts in a training file, and the image's grid of tokens (rows, columns)."""
    import pyarrow.parquet as pq
    from transformers import AutoProcessor

    from omniq_verl.generation.chat_inputs import decode_images, question_text

    processor = AutoProcessor.from_pretrained(model)
    rows = pq.read_table(parquet, columns=["prompt", "images"]).to_pylist()
    images = decode_images(processor, [rows[0]["images"][0]["bytes"]])
    height, width = (int(side) for side in processor.image_processor(images=images)["image_grid_thw"][0][1:])
    merge = processor.image_processor.merge_size
    grid = (height // merge, width // merge)
    texts = processor.tokenizer([question_text(processor, row["prompt"]) for row in rows])["input_ids"]
    lengths = [len(ids) - 1 + grid[0] * grid[1] for ids in texts]  # one placeholder stands for all image tokens
    return {"prompt_tokens": max(lengths), "prompt_tokens_mean": sum(lengths) / len(lengths), "grid": grid}


def question_texts(parquet: Path) -> list[str]:
    """Training text of the tokenizer: the words of the prompts."""
    import pyarrow.parquet as pq

    from omniq_verl.tasks import IMAGE_PLACEHOLDER

    rows = pq.read_table(parquet, columns=["prompt"]).to_pylist()
    turns = [turn["content"].replace(IMAGE_PLACEHOLDER, "") for row in rows for turn in row["prompt"]]
    return ["system\nYou are a helpful assistant.\nuser\nassistant\n", *turns]


def prepare(size: str, out: Path, images: int, width: int, height: int) -> dict[str, Any]:
    """Create everything the benchmark needs in ``out``; an existing model is reused.

    Returns:
        ``model`` and ``train`` (paths), ``parameters``, and ``prompt_facts``.
    """
    parquet, model = save_data(out, photographs(images, width, height)), out / f"model_{size}"
    wanted = {"size": size, **asdict(SIZES[size])}
    mark = model / FACTS
    built = json.loads(mark.read_text()) if mark.exists() else {}
    if {name: built.get(name) for name in wanted} != json.loads(json.dumps(wanted)):
        parameters = save_model(model, SIZES[size], question_texts(parquet))
        built = {**wanted, "parameters": parameters}
        mark.write_text(json.dumps(built))
    facts = {"model": str(model), "train": str(parquet), "parameters": built["parameters"]}
    return facts | prompt_facts(model, parquet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=24, help="photographs in the training data (default: 24)")
    parser.add_argument("--width", type=int, default=1024, help="width of a photograph in pixels (default: 1024)")
    parser.add_argument("--height", type=int, default=768)
    parser.add_argument("--result", type=Path, help="file for the result, as JSON (default: print it)")
    args = parser.parse_args()
    facts = json.dumps(prepare(args.size, args.out.resolve(), args.images, args.width, args.height))
    print(facts)
    if args.result:
        args.result.write_text(facts)


if __name__ == "__main__":
    main()
