"""Answers of a Hugging Face folder to the rows of a parquet file, by vLLM in this process."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from omniq_verl.tasks import chat_turns


@dataclass(frozen=True)
class Sampling:
    """How to answer; temperature 0 is greedy. Answer j of row i gets the seed ``seed + i * n + j``."""

    n: int = 1
    """Answers per row."""
    temperature: float = 0.0
    max_tokens: int = 1024
    seed: int = 0


def read_rows(parquet: Path) -> list[dict[str, Any]]:
    """All rows of a prepared file (see ``omniq_verl.data.rows``)."""
    return pq.read_table(parquet).to_pylist()


def vllm_prompt(processor: Any, row: dict[str, Any]) -> dict[str, Any]:
    """A row as vLLM takes it, with the text and the images verl's rollouts would send.

    Args:
        processor: of the model.
        row: of a prepared file.
    """
    text = processor.apply_chat_template(chat_turns(row["prompt"]), tokenize=False, add_generation_prompt=True)
    images = [_image(image["bytes"], processor.image_processor.patch_size) for image in row["images"]]
    return {"prompt": text, "multi_modal_data": {"image": images}}


def _image(data: bytes, patch_size: int) -> Image.Image:
    from qwen_vl_utils import fetch_image

    # verl's rollouts resize with this function before the processor does.
    return fetch_image({"image": Image.open(io.BytesIO(data))}, image_patch_size=patch_size)


class OfflineModel:
    """A vLLM engine over one model folder.

    Args:
        model: Hugging Face folder.
        max_model_len: tokens of prompt and answer together.
        dtype: of the weights; float32 where answers have to be comparable with training on the CPU.
        memory: share of the device's memory vLLM may take (on the CPU: of the machine's); 0.5 as verl's rollouts.
    """

    def __init__(self, model: Path, max_model_len: int = 4096, dtype: str = "auto", memory: float = 0.5):
        # vLLM's engine as a process of its own would outlive this one if it is killed, and keep its memory.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        from transformers import AutoProcessor
        from vllm import LLM

        self._processor = AutoProcessor.from_pretrained(model)
        self._engine = LLM(
            model=str(model),
            max_model_len=max_model_len,
            dtype=dtype,
            gpu_memory_utilization=memory,
            enforce_eager=True,
            # A seeded request must not be split on the CPU: see recipes/hardware/cpu.yaml.
            enable_chunked_prefill=False,
            limit_mm_per_prompt={"image": 1},
        )
        self._placeholders = self._vision_placeholders()

    def answer(self, rows: Sequence[dict[str, Any]], sampling: Sampling) -> list[list[str]]:
        """``sampling.n`` answers per row, in the order of the rows."""
        from vllm import SamplingParams

        prompts = [vllm_prompt(self._processor, row) for row in rows]
        settings = [
            SamplingParams(
                n=sampling.n,
                temperature=sampling.temperature,
                max_tokens=sampling.max_tokens,
                # vLLM gives the n answers of a request the seeds from here on: leave room for them.
                seed=sampling.seed + index * sampling.n if sampling.temperature > 0 else None,
                # A model must not write vision placeholders: there is no image behind them.
                bad_words=self._placeholders,
            )
            for index in range(len(rows))
        ]
        results = self._engine.generate(prompts, settings)
        return [[output.text for output in result.outputs] for result in results]

    def _vision_placeholders(self) -> list[str]:
        known = self._processor.tokenizer.get_vocab()
        tokens = (f"<|{name}|>" for name in ("image_pad", "video_pad", "vision_start", "vision_end"))
        return [token for token in tokens if token in known]
