"""Measure one checkpoint on one prepared file: one greedy answer, and several samples at temperature 1.

python -m omniq_verl.quickstart.measure --model DIR --data test.parquet --out DIR
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from omniq_verl.data.files import replace_text
from omniq_verl.data.parquet import replace_table
from omniq_verl.data.row_refs import RowReader, RowRef, image_bytes, limited_rows
from omniq_verl.evaluation.answers import judge_answers, read_labels
from omniq_verl.evaluation.correlations import correlations
from omniq_verl.generation.engines import open_engine
from omniq_verl.generation.provenance import data_record, provenance, record_start, write_provenance
from omniq_verl.generation.request import Engine, Request, Sampling, as_record, close_engine
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.rewards import gaussian_reward


def with_rewards(judged: pd.DataFrame, labels: pd.DataFrame, mode: str, sigma: float) -> pd.DataFrame:
    """Add the image's target and the Gaussian reward to each answer.

    An answer that could not be parsed has no score and reward 0, as in training.

    Args:
        judged: the result of ``judge_answers``.
        labels: the result of ``read_labels``.
        mode: how the answers were sampled; a column of the table.
        sigma: width of the Gaussian reward.

    Returns:
        One row per answer: ``id``, ``mode``, ``sample``, ``answer``, ``status``, ``score``, ``target``, ``reward``.
    """
    table = judged.join(labels[["id", "target"]], on="key").assign(mode=mode)
    pairs = zip(table.score, table.target, strict=True)
    table["reward"] = [0.0 if np.isnan(score) else gaussian_reward(score, target, sigma) for score, target in pairs]
    return table[["id", "mode", "sample", "answer", "status", "score", "target", "reward"]]


def summarise(judged: pd.DataFrame) -> dict[str, Any]:
    """Compute the metrics of one mode. Parse failures are counted, and excluded from correlations and MAE."""
    parsed = judged[judged.status == "ok"]
    return {
        **correlations(parsed.score.to_numpy(float), parsed.target.to_numpy(float)),
        "mae": float(np.abs(parsed.score - parsed.target).mean()) if len(parsed) else None,
        "answers": len(judged),
        "parsed": len(parsed) / len(judged),
        "reward": float(judged.reward.mean()),
        "status": dict(Counter(judged.status)),
    }


def answered(engine: Engine, refs: Sequence[RowRef], sampling: Sampling) -> Iterator[dict[str, Any]]:
    """Yield a record of ``sampling.n`` answers for each row. Answer j of row i has the seed ``i * n + j``.

    `omniq eval` derives seeds from the rows' ids instead. Here they are row numbers, as for the numbers in the README.
    """
    rows = RowReader(["prompt", "images"]).read(refs)
    requests = [
        Request(ref.key, row["prompt"], image_bytes(row), number * sampling.n)
        for number, (ref, row) in enumerate(zip(refs, rows, strict=True))
    ]
    for request, answers in zip(requests, engine.answer(requests, sampling), strict=True):
        yield as_record(request.key, answers)


def measure(
    model: str, data: Path, out: Path, samples: int, max_tokens: int, sigma: float = 0.8, engine: str = "vllm"
) -> dict[str, Any]:
    """Answer every row, write ``answers.parquet`` and ``metrics.json`` into ``out`` and return the metrics.

    ``provenance.json`` records the conditions. ``engine`` is a name that ``open_engine`` knows.

    Raises:
        ValueError: the file or one of its rows cannot be used, or a task does not ask for a score.
    """
    refs = limited_rows([data])
    labels = read_labels(refs)
    if without := labels.query("target.isna()").index.tolist():
        raise ValueError(
            f"{data}: {without[0]} asks for no score, and only scores are measured here. Fix: use `omniq eval`"
        )
    spec = EngineSpec(model, engine, max_model_len=max_tokens + 256, dtype="float32", memory=0.3)
    opened = open_engine(spec)
    modes = {
        "greedy": Sampling(max_tokens=max_tokens),
        "sampled": Sampling(n=samples, temperature=1.0, max_tokens=max_tokens),
    }
    try:
        tables = [
            with_rewards(judge_answers(labels, answered(opened, refs, sampling)), labels, mode, sigma)
            for mode, sampling in modes.items()
        ]
    finally:
        close_engine(opened)
    metrics = {mode: summarise(table) for mode, table in zip(modes, tables, strict=True)}
    out.mkdir(parents=True, exist_ok=True)
    replace_table(out / "answers.parquet", pd.concat(tables))
    replace_text(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    asked = {mode: asdict(sampling) for mode, sampling in modes.items()}
    record = provenance(record_start(out), data_record(refs), spec.identity(), asked, 0, sigma=sigma)
    write_provenance(out, record)
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face folder")
    parser.add_argument("--data", type=Path, required=True, help="prepared parquet file")
    parser.add_argument("--out", type=Path, required=True, help="folder for answers.parquet and metrics.json")
    parser.add_argument("--samples", type=int, default=8, help="answers per image at temperature 1 (default: 8)")
    parser.add_argument("--max-tokens", type=int, default=1024, help="maximum tokens of an answer (default: 1024)")
    args = parser.parse_args()
    print(json.dumps(measure(args.model, args.data, args.out, args.samples, args.max_tokens), indent=2))


if __name__ == "__main__":
    main()
