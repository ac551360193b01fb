"""Evaluate a fitted RALI model on prepared files, with the figures and files of ``omniq eval``."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import track

from omniq_verl.data.images import BadImage
from omniq_verl.data.row_refs import RowReader, RowRef, image_sources, limited_rows
from omniq_verl.evaluation.results import labels_and_warnings, write_results
from omniq_verl.generation.provenance import data_record, provenance, record_start
from omniq_verl.generation.request import DONE, Sampling
from omniq_verl.generation.store import Store, read_store
from omniq_verl.rali.scorer import RaliScorer
from omniq_verl.tasks import Scale, task_of

_AT_ONCE = 256
"""Rows processed together; their image files are held in memory."""


@dataclass(frozen=True)
class EvalConfig:
    """Data, model and options of an evaluation."""

    data: Sequence[Path]
    """Parquet files of ``data_prep/``, all of the RALI model's task."""
    out: Path
    """The run's folder. An interrupted run resumes."""
    model: Path
    """Folder written by ``omniq rali fit``."""
    device: str | None = None
    """None: a GPU if there is one."""
    dtype: str = "float32"
    batch: int = 16
    """Images per batch of the encoder."""
    by: Sequence[str] = ()
    """Columns, or keys of ``details``, by which groups are also measured."""
    resamples: int = 1000
    """Bootstrap resamples; 1,000 is our choice."""
    limit: int | None = None
    """Use only the first N rows of each file; None: all."""


def evaluate(config: EvalConfig, console: Console) -> dict[str, Any]:
    """Score, measure and write into ``config.out``; ``omniq compare`` can read the result next to any other evaluation.

    ``scores/*.jsonl`` is written while scoring; at the end ``answers.parquet``, ``images.parquet``, ``metrics.json``,
    ``report.md``, ``report.html`` and plots follow, in the format of ``omniq_verl.evaluation.run``. Files that are not
    images count under the status "bad_image" and have no score.

    Returns:
        The content of ``metrics.json``.

    Raises:
        ValueError: no rows, rows of another task, a file that cannot be read, or an unknown grouping key.
        BadRaliFile: the folder holds no RALI model, or a broken one.
    """
    refs = limited_rows(list(config.data), config.limit)
    scorer = RaliScorer(config.model, config.device, config.batch, config.dtype)
    if others := [ref for ref in refs if ref.info["task"] != scorer.about.task]:
        raise ValueError(f"{others[0].key} is not of this RALI's task, {scorer.about.task}")
    labels, warnings = labels_and_warnings(refs, config.by, _learned_from(scorer), console)
    settings = {"dtype": config.dtype, "weights": scorer.digest}
    with Store(config.out / "scores", settings) as store:
        starts = record_start(config.out)
        digests = store.check_files(refs)
        _score(scorer, [ref for ref in refs if ref.key not in store.keys], store, console)
        judged = judge_scores(labels, read_store(store.folder))
        model = {"model": str(config.model), "kind": "rali", **settings}
        data = data_record(refs, config.limit, digests)
        record = provenance(starts, data, model, resamples=config.resamples, by=list(config.by))
        engine = {"model": str(config.model), "kind": "rali", "dtype": config.dtype}
        asked = {"model": str(config.model), "engine": engine, "sampling": asdict(Sampling(max_tokens=1)), "seed": 0}
        return write_results(config, asked, record, warnings, refs, labels, judged, console)


def _score(scorer: RaliScorer, refs: Sequence[RowRef], store: Store, console: Console) -> None:
    rows = RowReader(["images"]).read(refs)
    starts = range(0, len(refs), _AT_ONCE)
    for first in track(starts, "scoring", console=console, transient=True, disable=not refs):
        some = refs[first : first + _AT_ONCE]
        store.add(_records(scorer, some, [_image(row) for row in islice(rows, len(some))]))


def _image(row: Mapping[str, Any]) -> bytes | Path:
    """The row's image as bytes or path; an invalid image only costs its own score."""
    try:
        return image_sources(row)[0]
    except BadImage:
        return b""  # the scorer rejects it as "no bytes"


def _records(scorer: RaliScorer, refs: Sequence[RowRef], sources: Sequence[bytes | Path]) -> Iterator[dict[str, Any]]:
    for ref, score in zip(refs, scorer.score(list(sources)), strict=True):
        value = score.score
        if value is not None:
            value = scorer.on_scale(value, task_of(ref.info).score_scale)
        yield {"key": ref.key, "status": score.status, "score": value, "error": score.error}


def judge_scores(labels: pd.DataFrame, records: Iterator[Mapping[str, Any]]) -> pd.DataFrame:
    """One line per image, in the format of ``omniq_verl.evaluation.answers.judge_answers``, with an empty answer.

    Args:
        labels: from ``read_labels``.
        records: from the store; records of other rows are ignored.
    """
    by_key = {record["key"]: record for record in records}
    lines = []
    for key, label in labels.iterrows():
        record = by_key[key]
        scored = record["score"] is not None
        scale = Scale(label["scale_low"], label["scale_high"])
        level = scale.level(min(max(record["score"], scale.low), scale.high)) if scored else None
        answer = {"answer": record["error"] or "", "finish_reason": DONE, "tokens": 0, "status": record["status"]}
        lines.append({"key": key, "sample": 0, **answer, "score": record["score"], "level": level})
    return pd.DataFrame(lines).assign(distortion=None, severity=None).astype({"score": float})


def _learned_from(scorer: RaliScorer) -> list[str]:
    """Files the RALI model was fitted to, according to its own folder."""
    return [str(Path(path).resolve()) for path in scorer.about.source.get("data", [])]
