"""Tiny models, rows and answers for the tests of findings."""

from pathlib import Path

import numpy as np
import pandas as pd
from image_builders import saved, smooth

from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.rows import Row
from omniq_verl.evaluation.answers import judge_answers, per_image, read_labels
from omniq_verl.findings.setup import Answered, Setup
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.tasks import TECHNICAL
from omniq_verl.tiny.model import TinySize, save_tiny_model

CORPUS = [*TECHNICAL.questions, "<think>slight noise, good quality</think><answer>3.7</answer>"]
WORDS = ("bad", "poor", "fair", "good", "excellent")
PHOTO = saved(smooth(96, 80), "PNG")
SIZE = TinySize(layers=2, vision_layers=1)


def save_model(folder: Path, seed: int = 0, size: TinySize = SIZE) -> Path:
    save_tiny_model(folder, CORPUS, [smooth(80, 80, number) for number in range(3)], seed, size)
    return folder


def answer_text(score: float) -> str:
    """An answer whose reasoning tells the score's level."""
    return f"<think>slight noise, {WORDS[min(int(score), 5) - 1]} quality</think><answer>{score:.1f}</answer>"


def write_rows(path: Path, scores: list[float], source: str = "made", prefix: str = "", first: int = 0) -> Path:
    """Photographs of slightly different brightness, with these labels; ``first`` is the number of the first one."""
    named = ((f"{prefix}{number}", score) for number, score in enumerate(scores))
    rows = [Row(source, name, "technical", "test", score, score, (1.0, 5.0)) for name, score in named]
    write_parquet([row.record(n, saved(smooth(96, 80, first + n), "PNG")) for n, row in enumerate(rows)], path)
    return path


def setup_of(out: Path, models: list[Path], data: list[Path], **others) -> Setup:
    specs = tuple(EngineSpec(str(model), "hf", dtype="float32") for model in models)
    return Setup(specs, tuple(data), out, max_tokens=24, resamples=200, **others)


def answered(setup: Setup, texts: list[str], name: str = "model", number: int = 0) -> Answered:
    """As if the model had answered so."""
    from omniq_verl.evaluation.answers import judge_answers, per_image, read_labels

    refs = setup.refs()
    labels = read_labels(refs)
    records = [
        {"key": ref.key, "answers": [{"text": text, "finish_reason": "stop", "tokens": len(text.split())}]}
        for ref, text in zip(refs, texts, strict=True)
    ]
    judged = judge_answers(labels, records)
    images: pd.DataFrame = per_image(labels, judged).set_index("key")
    return Answered(name, setup.specs[number], images, judged)


def answer_record(score: float) -> dict:
    """A stored answer with this score; NaN: one that cannot be parsed."""
    return {"text": "nothing" if np.isnan(score) else answer_text(score), "finish_reason": "stop", "tokens": 10}


def answered_with(setup, scores, name: str = "model") -> Answered:
    """Answers with these scores ``[images, samples]``; NaN: one that cannot be parsed."""
    refs = setup.refs()
    labels = read_labels(refs)
    records = [
        {"key": ref.key, "answers": [answer_record(one) for one in row]} for ref, row in zip(refs, scores, strict=True)
    ]
    judged = judge_answers(labels, records)
    return Answered(name, EngineSpec("model", "hf"), per_image(labels, judged).set_index("key"), judged)
