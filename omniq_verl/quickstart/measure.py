"""Measure one checkpoint on one prepared file: one greedy answer, and several samples at temperature 1.

python -m omniq_verl.quickstart.measure --model DIR --data test.parquet --out DIR
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from omniq_verl.data.files import replace_text
from omniq_verl.data.row_refs import RowReader, image_bytes, limited_rows
from omniq_verl.evaluation.answers import read_answer, read_labels
from omniq_verl.evaluation.correlations import correlations
from omniq_verl.generation.provenance import data_record, provenance, record_start, write_provenance
from omniq_verl.generation.request import Request, Sampling
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.vllm_offline import OfflineModel
from omniq_verl.rewards import gaussian_reward
from omniq_verl.tasks import read_truth, task_of


def judge(rows: Sequence[dict[str, Any]], answers: Sequence[Sequence[str]], mode: str, sigma: float) -> pd.DataFrame:
    """One line per answer: row id, sample number, text, parse status, score, target and Gaussian reward.

    An answer that could not be parsed has no score and reward 0, as in training.
    """
    lines = []
    for row, texts in zip(rows, answers, strict=True):
        task = task_of(row["extra_info"])
        target = read_truth(task, row["reward_model"]["ground_truth"])["score"]
        for number, text in enumerate(texts):
            parsed = read_answer(text, "", task)
            reward = 0.0 if parsed["score"] is None else gaussian_reward(parsed["score"], target, sigma)
            lines.append(
                {
                    "id": row["extra_info"]["id"],
                    "mode": mode,
                    "sample": number,
                    "answer": text,
                    "status": parsed["status"],
                    "score": parsed["score"],
                    "target": target,
                    "reward": reward,
                }
            )
    return pd.DataFrame(lines)


def summarise(judged: pd.DataFrame) -> dict[str, Any]:
    """Metrics of the answers of one mode; parse failures are counted, and excluded from correlations and MAE."""
    parsed = judged[judged.status == "ok"]
    return {
        **correlations(parsed.score.to_numpy(float), parsed.target.to_numpy(float)),
        "mae": float(np.abs(parsed.score - parsed.target).mean()) if len(parsed) else None,
        "answers": len(judged),
        "parsed": len(parsed) / len(judged),
        "reward": float(judged.reward.mean()),
        "status": dict(Counter(judged.status)),
    }


def ask(engine: OfflineModel, rows: Sequence[dict[str, Any]], sampling: Sampling) -> list[list[str]]:
    """The texts of the answers, ``sampling.n`` for each row; answer j of row i has the seed ``i * n + j``."""
    requests = [
        Request(row["extra_info"]["id"], row["prompt"], image_bytes(row), number * sampling.n)
        for number, row in enumerate(rows)
    ]
    return [[answer.text for answer in answers] for answers in engine.answer(requests, sampling)]


def measure(model: Path, data: Path, out: Path, samples: int, max_tokens: int, sigma: float = 0.8) -> dict[str, Any]:
    """Answer every row, write ``answers.parquet`` and ``metrics.json`` into ``out`` and return the metrics.

    ``provenance.json`` records the conditions.

    Raises:
        ValueError: the file or one of its rows cannot be used, or a task asks for no score.
    """
    refs = limited_rows([data])
    if without := read_labels(refs).query("target.isna()").index.tolist():
        raise ValueError(f"{data}: {without[0]} asks for no score, which is measured here. Fix: use `omniq eval`")
    rows = list(RowReader(["prompt", "images", "reward_model", "extra_info"]).read(refs))
    engine_spec = EngineSpec(str(model), max_model_len=max_tokens + 256, dtype="float32", memory=0.3)
    engine = OfflineModel(engine_spec)
    modes = {
        "greedy": Sampling(max_tokens=max_tokens),
        "sampled": Sampling(n=samples, temperature=1.0, max_tokens=max_tokens),
    }
    judged = {mode: judge(rows, ask(engine, rows, sampling), mode, sigma) for mode, sampling in modes.items()}
    metrics = {mode: summarise(frame) for mode, frame in judged.items()}
    out.mkdir(parents=True, exist_ok=True)
    pd.concat(judged.values()).to_parquet(out / "answers.parquet")
    replace_text(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    asked = {mode: asdict(sampling) for mode, sampling in modes.items()}
    known = (data_record(refs), engine_spec.identity(), asked, 0)
    write_provenance(out, provenance(record_start(out), *known, sigma=sigma))
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--data", type=Path, required=True, help="prepared parquet file")
    parser.add_argument("--out", type=Path, required=True, help="folder for answers.parquet and metrics.json")
    parser.add_argument("--samples", type=int, default=8, help="answers per image at temperature 1 (default: 8)")
    parser.add_argument("--max-tokens", type=int, default=1024, help="maximum tokens of an answer (default: 1024)")
    args = parser.parse_args()
    print(json.dumps(measure(args.model, args.data, args.out, args.samples, args.max_tokens), indent=2))


if __name__ == "__main__":
    main()
