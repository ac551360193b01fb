"""Prepare the quickstart's photographs for Q-Insight's two questions: score, and distortion with severity.

    python -m omniq_verl.pipeline.made.q_insight_photos --data runs/q_insight/data --out runs/q_insight/asked

It reads train, val and test.parquet of `data_prep/photo_distortions.py` and writes, from different crops of the same
photographs, rl_score, rl_degradation, val, test_score and test_degradation.parquet, and sft.parquet. The SFT answers
have the correct form, but random errors in score and severity, which reinforcement learning should reduce.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.rows import Row, sft_record
from omniq_verl.pipeline.made.options import crops_arguments
from omniq_verl.tasks import Q_INSIGHT_DEGRADATION, Q_INSIGHT_SCORE, SEVERITIES

SCORES, DEGRADATIONS = "photo_scores", "photo_degradations"
SFT_SHARE = 2 / 3
"""Share of the training crops used for SFT; the rest is for reinforcement learning."""


def asked(record: dict[str, Any], source: str, split: str) -> Row:
    """A prepared row with one of the two questions."""
    info = record["extra_info"]
    known = json.loads(info["details"])
    number = info["id"].rsplit("/", 1)[1]
    if source == SCORES:
        score = {"score": info["score"], "raw_score": info["raw_score"], "raw_bounds": (-1.0, 1.0)}
        return Row(SCORES, f"{SCORES}/{split}/{number}", Q_INSIGHT_SCORE.name, split, details=known, **score)
    distortion = None if known["distortion"] == "null" else known["distortion"]
    severity = SEVERITIES[known["level"]] if distortion else None
    row_id = f"{DEGRADATIONS}/{split}/{number}"
    return Row(
        DEGRADATIONS,
        row_id,
        Q_INSIGHT_DEGRADATION.name,
        split,
        distortion=distortion,
        severity=severity,
        details=known,
    )


def answer_to_learn(row: Row, seed: int) -> str:
    """An SFT answer that teaches the form: its score is off by up to 0.8, its severity by up to one level."""
    rng = np.random.default_rng([seed, *row.row_id.encode()])
    known = row.details
    level = int(np.clip(known["level"] + rng.integers(-1, 2), 0, len(SEVERITIES) - 1))
    seen = "no distortion" if known["distortion"] == "null" else f"{SEVERITIES[level]} {known['distortion']}"
    if row.data_source == SCORES:
        assert row.score is not None  # labelled so
        score = np.clip(row.score + rng.uniform(-0.8, 0.8), 1.0, 5.0)
        return (
            f"<think>{seen}, {row.asked.score_scale.level(score)} quality</think>"
            f'<answer>{{"rating": {score:.2f}}}</answer>'
        )
    fields = {"distortion_class": row.distortion, "severity": SEVERITIES[level] if row.distortion else None}
    return f"<think>{seen}</think><answer>{json.dumps(fields)}</answer>"


def read(data: Path, split: str) -> list[dict[str, Any]]:
    return pq.read_table(data / f"{split}.parquet").to_pylist()


def write_rl(rows: Sequence[tuple[dict[str, Any], str]], path: Path, split: str) -> None:
    """Write crops with the source under which each is asked."""
    made = (asked(record, source, split).record(number, image(record)) for number, (record, source) in enumerate(rows))
    write_parquet(made, path)


def image(record: dict[str, Any]) -> bytes:
    return record["images"][0]["bytes"]


def sft_records(rows: Sequence[tuple[dict[str, Any], str]], seed: int) -> Iterator[dict[str, Any]]:
    for record, source in rows:
        row = asked(record, source, "sft")
        yield sft_record(row, image(record), answer_to_learn(row, seed))


def in_turn(records: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], str]]:
    """Assign the crops to the two questions alternately, so that no crop is asked twice."""
    return [(record, (SCORES, DEGRADATIONS)[number % 2]) for number, record in enumerate(records)]


def prepare(data: Path, out: Path, seed: int) -> None:
    train = in_turn(read(data, "train"))
    middle = int(len(train) * SFT_SHARE)
    write_parquet(sft_records(train[:middle], seed), out / "sft.parquet")
    for source, name in ((SCORES, "score"), (DEGRADATIONS, "degradation")):
        write_rl([row for row in train[middle:] if row[1] == source], out / f"rl_{name}.parquet", "train")
        write_rl([(record, source) for record in read(data, "test")], out / f"test_{name}.parquet", "test")
    write_rl(in_turn(read(data, "val")), out / "val.parquet", "val")


def main() -> None:
    args = crops_arguments(__doc__)
    prepare(args.data, args.out, args.seed)


if __name__ == "__main__":
    main()
