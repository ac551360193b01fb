"""What ``data_prep/`` writes is read by pandas, by datasets, and by verl up to the tokens of the images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from data_builders import prepare_made, rows_of, whole_set, write_labels
from datasets import load_dataset
from doctor_builders import tiny_model
from image_builders import oriented, saved, smooth
from rich.console import Console

from omniq_verl.preparation.build import BuildOptions, Item, Source, prepare
from omniq_verl.preparation.file_index import FileIndex
from omniq_verl.tasks import TECHNICAL

pytestmark = pytest.mark.slow

# Prints, row by row, what verl would train on.
SCRIPT = """
import asyncio, json, sys
from omegaconf import OmegaConf
from qwen_vl_utils.vision_process import smart_resize
from transformers import AutoProcessor
from verl.utils.dataset.rl_dataset import RLHFDataset

model, cache, *files = sys.argv[1:]
processor = AutoProcessor.from_pretrained(model)
dataset = RLHFDataset(files, processor.tokenizer, OmegaConf.create({"cache_dir": cache}), processor)
settings = processor.image_processor
patch, side = settings.patch_size, settings.patch_size * settings.merge_size
limits = settings.size["shortest_edge"], settings.size["longest_edge"]
image_token = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
for row in dataset:
    images, _ = asyncio.run(RLHFDataset.process_vision_info(row["raw_prompt"], patch, dataset.config))
    text = processor.apply_chat_template(row["raw_prompt"], tokenize=False, add_generation_prompt=True)
    height, width = smart_resize(images[0].height, images[0].width, side, *limits)
    (ids,) = processor(text=[text], images=images)["input_ids"]
    print(json.dumps({
        "id": row["extra_info"]["id"], "info": row["extra_info"], "truth": row["reward_model"]["ground_truth"],
        "size": images[0].size, "mode": images[0].mode, "text": text,
        "image_tokens": list(ids).count(image_token), "by_the_rule": height // side * (width // side),
    }))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that are and are not converted, larger than the model's least; one of 240 x 120 lies on its side."""
    folder = tmp_path_factory.mktemp("made") / "root"
    labels = whole_set(folder, times=4)
    (folder / "images" / "turned.jpg").write_bytes(saved(smooth(120, 240), "JPEG", exif=oriented(6)))
    write_labels(folder, [*labels, ("turned.jpg", "train", "25")])
    return folder


def read_by_verl(model: Path, cache: Path, files: list[Path]) -> list[dict]:
    command = [sys.executable, "-c", SCRIPT, str(model), str(cache), *map(str, files)]
    environment = {**os.environ, "VERL_PLATFORM": "cpu"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("images", ["embed", "path"])
def test_pandas_and_datasets_read_every_row(root, tmp_path, images):
    prepare_made(root, tmp_path / "out", "--images", images, "--shard-rows", "3")
    expected = rows_of(tmp_path / "out", "train")
    files = sorted(str(path) for path in (tmp_path / "out").glob("train*.parquet"))
    assert len(expected) == 7 and len(files) == 3
    loaded = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))["train"]
    assert list(loaded) == expected
    frame = pd.concat([pd.read_parquet(file) for file in files])
    assert [info["id"] for info in frame["extra_info"]] == [row["extra_info"]["id"] for row in expected]
    assert [list(found) for found in frame["images"]] == [row["images"] for row in expected]


@pytest.mark.parametrize("images", ["embed", "path"])
def test_verl_reads_every_row_and_the_processor_gives_its_image_tokens(root, model, tmp_path, images):
    prepare_made(root, tmp_path / "out", "--images", images, "--shard-rows", "4")
    files = sorted((tmp_path / "out").glob("train*.parquet"))
    expected = rows_of(tmp_path / "out", "train")
    found = read_by_verl(model, tmp_path / "cache", files)
    assert [(row["id"], row["truth"]) for row in found] == [
        (row["extra_info"]["id"], row["reward_model"]["ground_truth"]) for row in expected
    ]
    for row in found:
        assert row["image_tokens"] == row["by_the_rule"] > 0
        assert row["mode"] == "RGB"
        assert f"<|vision_end|>{TECHNICAL.question(row['id'])}" in row["text"]
    width, height = next(row["size"] for row in found if row["id"] == "made/turned.jpg")
    assert height > 1.5 * width, "upright"


def test_verl_mixes_data_sets_of_every_task(root, model, tmp_path):
    prepare_made(root, tmp_path / "technical")
    prepare_made(root, tmp_path / "alignment", "--task", "alignment", "--scale", "0-5")
    items = [Item("000.jpg", "train", distortion="blur", severity="slight"), Item("001.png", "train")]
    source = Source("kadis", "degradation", items)
    prepare(source, FileIndex(root), tmp_path / "degradation", BuildOptions(), Console(quiet=True))
    names = ("technical", "alignment", "degradation")
    found = read_by_verl(model, tmp_path / "cache", [tmp_path / name / "train.parquet" for name in names])
    scales = {(row["info"]["task"], row["info"]["scale_low"], row["info"]["text"]) for row in found}
    assert scales == {("technical", 1.0, "a car"), ("alignment", 0.0, "a car"), ("degradation", None, None)}
    assert len(found) == 7 + 7 + 2
    assert all(isinstance(json.loads(row["info"]["details"]), dict) for row in found)
