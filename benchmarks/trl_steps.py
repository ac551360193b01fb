"""GRPO steps of TRL with the tiny recipe's model, data, reward and lengths; called by ``mechanisms.py --trl``.

    python -m venv trl && trl/bin/pip install trl torch==2.13.0+cpu torchvision==0.28.0 pandas pyarrow scipy
    trl/bin/pip install --no-deps -e .
    trl/bin/python benchmarks/trl_steps.py MODEL TRAIN_PARQUET STEPS

It needs its own environment, because TRL and verl require different versions of transformers. TRL generates with
transformers here, because its vLLM mode needs a GPU. Prints the seconds of each step as JSON.
"""

import io
import json
import sys
import tempfile
import time

import pandas as pd
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage
from transformers import AutoProcessor, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from omniq_verl.rewards import compute_score
from omniq_verl.tasks import IMAGE_PLACEHOLDER

PROMPTS, ROLLOUTS = 16, 16


def load(parquet: str, rows: int) -> Dataset:
    """The first rows in TRL's format: the image in a column, the prompt without its placeholder."""
    frame = pd.read_parquet(parquet).head(rows)
    turn = {"role": Value("string"), "content": Value("string")}
    columns = {
        "prompt": [
            [{"role": "user", "content": row[0]["content"].replace(IMAGE_PLACEHOLDER, "")}] for row in frame["prompt"]
        ],
        "image": [PILImage.open(io.BytesIO(row[0]["bytes"])).convert("RGB") for row in frame["images"]],
        "truth": [row["ground_truth"] for row in frame["reward_model"]],
    }
    return Dataset.from_dict(columns, Features({"prompt": List(turn), "image": Image(), "truth": Value("string")}))


def reward(completions: list, truth: list[str], **_: object) -> list[float]:
    task = {"task": "technical"}
    texts = [answer[0]["content"] for answer in completions]
    return [compute_score("", text, label, task)["score"] for text, label in zip(texts, truth, strict=True)]


class Clock(TrainerCallback):
    """Seconds of each optimiser step, including generation."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_args: object, **_kwargs: object) -> None:
        self._begun = time.perf_counter()

    def on_step_end(self, *_args: object, **_kwargs: object) -> None:
        self.seconds.append(time.perf_counter() - self._begun)


def main() -> None:
    model, parquet, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        config = GRPOConfig(
            output_dir=out,
            use_cpu=True,
            bf16=False,
            max_steps=steps,
            per_device_train_batch_size=128,  # like the recipe's micro-batches
            gradient_accumulation_steps=PROMPTS * ROLLOUTS // 128,
            num_generations=ROLLOUTS,
            max_completion_length=32,
            temperature=1.0,
            learning_rate=3e-4,
            beta=0.04,
            loss_type="dapo",
            gradient_checkpointing=False,
            save_strategy="no",
            logging_steps=1,
            report_to=[],
        )
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=config,
            train_dataset=load(parquet, PROMPTS * (steps + 1)),
            processing_class=AutoProcessor.from_pretrained(model),
            callbacks=[clock],
        )
        trainer.train()
    lengths = [
        entry["completions/mean_length"] for entry in trainer.state.log_history if "completions/mean_length" in entry
    ]
    print(json.dumps({"seconds": clock.seconds, "lengths": lengths}))


if __name__ == "__main__":
    main()
