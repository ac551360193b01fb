"""Two small "data sets" from the quickstart's photographs, with different photographs, distortions and labels.

    python -m omniq_verl.pipeline.made.ract_domains --data runs/ract/data --out runs/ract/domains

It reads train, val and test.parquet of `data_prep/photo_distortions.py` and writes files for alpha (every second
photograph; noise) and beta (the others; darkening; stricter raters): rl_, val_ and test_, and sft.parquet, a cold start
on scores and descriptions of both with random errors in scores and severities. Blur and compression are not used,
because the tiny model does not learn to see them in such a short time.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.rows import Row, sft_record
from omniq_verl.pipeline.made.options import crops_arguments
from omniq_verl.tasks import IMAGE_PLACEHOLDER, Q_INSIGHT_SCORE, SEVERITIES
from omniq_verl.tasks.q_insight import DESCRIBE

DOMAINS = {"alpha": ("noise", "null"), "beta": ("darken", "null")}
SFT_SHARE = 1 / 2
"""Share of the training crops used for SFT; the rest is for reinforcement learning."""


def labelled(domain: str, quality: float) -> float:
    """The quality as a domain's raters would label it; beta's are stricter: the square, on a scale from 0 to 1."""
    share = (quality - 1) / 4
    return 1 + 4 * (share**2 if domain == "beta" else share)


def rows_of(data: Path, split: str, domain: str) -> list[tuple[Row, bytes]]:
    """The rows of a domain in a split, with their images."""
    records = pq.read_table(data / f"{split}.parquet").to_pylist()
    photos = sorted({json.loads(record["extra_info"]["details"])["photo"] for record in records})
    own = photos[list(DOMAINS).index(domain) :: 2]
    found = []
    for record in records:
        info = record["extra_info"]
        known = json.loads(info["details"])
        if known["photo"] in own and known["distortion"] in DOMAINS[domain]:
            label, number = labelled(domain, info["score"]), info["id"].rsplit("/", 1)[1]
            bounds = {"score": label, "raw_score": info["score"], "raw_bounds": (1.0, 5.0)}
            row = Row(domain, f"{domain}/{split}/{number}", Q_INSIGHT_SCORE.name, split, details=known, **bounds)
            found.append((row, record["images"][0]["bytes"]))
    return found


def sft_records(rows: list[tuple[Row, bytes]], seed: int) -> Iterator[dict[str, Any]]:
    """Alternately a crop's description or its score."""
    for number, (row, image) in enumerate(rows):
        rng = np.random.default_rng([seed, *row.row_id.encode()])
        level = int(np.clip(row.details["level"] + rng.integers(-1, 2), 0, len(SEVERITIES) - 1))
        kind = row.details["distortion"]
        text = "no distortion" if kind == "null" else f"{SEVERITIES[level]} {kind}"
        if number % 2:
            assert row.score is not None  # labelled so
            score = np.clip(row.score + rng.uniform(-0.8, 0.8), 1.0, 5.0)
            yield sft_record(row, image, f'<think>{text}</think><answer>{{"rating": {score:.2f}}}</answer>')
        else:
            record = sft_record(row, image, text)
            yield {
                **record,
                "messages": [{"role": "user", "content": IMAGE_PLACEHOLDER + DESCRIBE}, record["messages"][-1]],
            }


def write_rows(rows: list[tuple[Row, bytes]], path: Path) -> None:
    write_parquet((row.record(number, image) for number, (row, image) in enumerate(rows)), path)


def prepare(data: Path, out: Path, seed: int) -> None:
    begun: list[tuple[Row, bytes]] = []
    for domain in DOMAINS:
        rows = rows_of(data, "train", domain)
        middle = int(len(rows) * SFT_SHARE)
        begun += rows[:middle]
        write_rows(rows[middle:], out / f"rl_{domain}.parquet")
        for split in ("val", "test"):
            write_rows(rows_of(data, split, domain), out / f"{split}_{domain}.parquet")
    np.random.default_rng(seed).shuffle(begun)
    write_parquet(sft_records(begun, seed), out / "sft.parquet")


def main() -> None:
    args = crops_arguments(__doc__)
    prepare(args.data, args.out, args.seed)


if __name__ == "__main__":
    main()
