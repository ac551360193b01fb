"""Training and evaluation ask the same question, token for token."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.rows import Row
from omniq_verl.tasks import comparison_task
from omniq_verl.tiny.model import save_tiny_model

# verl's own data set and token builder on one side, what is sent to vLLM for the same row on the other.
SCRIPT = """
import asyncio, sys
import pyarrow.parquet as pq
from omegaconf import OmegaConf
from transformers import AutoProcessor
from verl.utils.dataset.rl_dataset import RLHFDataset
from omniq_verl.generation.vllm_offline import vllm_prompt
ASKED
parquet, model = sys.argv[1:]
processor = AutoProcessor.from_pretrained(model)
dataset = RLHFDataset(parquet, processor.tokenizer, OmegaConf.create({"cache_dir": parquet + ".cache"}), processor)
patch = processor.image_processor.patch_size
for number, row in enumerate(pq.read_table(parquet).to_pylist()):
    messages = dataset[number]["raw_prompt"]
    images, _ = asyncio.run(RLHFDataset.process_vision_info(messages, patch, dataset.config))
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    trained = processor(text=[text], images=images)
    ours = vllm_prompt(processor, *asked(row))
    sent = processor(text=[ours["prompt"]], images=ours["multi_modal_data"]["image"])
    assert list(trained["input_ids"][0]) == list(sent["input_ids"][0]), number
    assert (trained["pixel_values"] == sent["pixel_values"]).all(), number
    print("same", len(sent["input_ids"][0]))
"""

BY_EVALUATION = """
from omniq_verl.data.row_refs import image_bytes

def asked(row):
    return row["prompt"], image_bytes(row)
"""

# Of the two orders a pair is asked in, the one its row has.
BY_COMPARER = """
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.request import Answer
from omniq_verl.scoring.comparison import Comparer

class Recorder:
    def __init__(self, spec):
        pass

    def answer(self, requests, sampling):
        Recorder.first = requests[0]
        return [[Answer("<answer>Image A</answer>")] * sampling.n for _ in requests]

def asked(row):
    *reference, a, b = [image["bytes"] for image in row["images"]]
    Comparer(EngineSpec("", "__main__:Recorder")).compare([(a, b)], reference or None)
    return Recorder.first.messages, Recorder.first.images
"""


def png(height: int, width: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def record(number: int, image: bytes) -> dict:
    return Row("made", f"made/{number}", "technical", "test", 3.0, 3.0, (1.0, 5.0)).record(number, image)


def compared(number: int, *images: bytes) -> dict:
    task = comparison_task(len(images) == 3).name
    return Row("made", f"made/{number}", task, "test", choice="first").record(number, *images)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    image = np.zeros((80, 80, 3), dtype=np.uint8)
    save_tiny_model(tmp_path / "model", ["Rate this image from 1 to 5."], [image])
    return tmp_path / "model"


# 70 x 110 is resized twice on verl's way: by qwen_vl_utils, then by the processor.
SQUARE, OTHER = png(80, 80), png(70, 110)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        (BY_EVALUATION, [record(0, SQUARE), record(1, OTHER)]),
        (BY_EVALUATION, [compared(0, OTHER, SQUARE), compared(1, SQUARE, OTHER, png(90, 64))]),
        (BY_COMPARER, [compared(0, OTHER, SQUARE), compared(1, SQUARE, OTHER, png(90, 64))]),
    ],
    ids=["evaluation", "evaluation of comparisons", "comparer"],
)
def test_what_is_sent_has_the_tokens_and_pixels_of_training(
    tmp_path: Path, model: Path, asked: str, rows: list
) -> None:
    parquet = tmp_path / "rows.parquet"
    write_parquet(rows, parquet)
    command = [sys.executable, "-c", SCRIPT.replace("ASKED", asked), str(parquet), str(model)]
    result = subprocess.run(
        command, env={**os.environ, "VERL_PLATFORM": "cpu"}, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("same") == len(rows)
