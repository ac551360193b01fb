"""Image-text pairs: a reasoning model's reasoning about each image, sampled several times (RALI sec. 4, "seed
augmentation").

The text is the reasoning, not the whole answer. Answers that cannot be parsed are counted by reason and not replaced.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console

import omniq_verl
from omniq_verl.data.files import replace_text
from omniq_verl.data.names import real_name, shown_name
from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.row_refs import RowRef, learnable_rows
from omniq_verl.evaluation.answers import read_reasoning
from omniq_verl.generation.provenance import data_record, provenance, record_start
from omniq_verl.generation.request import Sampling
from omniq_verl.generation.runner import RunOptions, run_job
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.store import Store, known_files, read_store
from omniq_verl.generation.workers import Job, WorkItem, own_question
from omniq_verl.tasks import task_of


@dataclass(frozen=True)
class PairsConfig:
    """Images, model and options."""

    data: Sequence[Path]
    """Parquet files of ``data_prep/``, all of one task and one scale."""
    out: Path
    """The run's folder. An interrupted run resumes."""
    engine: EngineSpec
    sampling: Sampling = field(default_factory=lambda: Sampling(n=5, temperature=1.0))
    """Answers per image. The paper says "multiple seeds"; 5 and the temperature are our choice."""
    run_options: RunOptions = field(default_factory=RunOptions)
    limit: int | None = None
    """Use only the first N rows of the data; None: all."""
    seed: int = 0


def make_pairs(config: PairsConfig, console: Console) -> dict[str, Any]:
    """Ask the model and write ``pairs.parquet`` and ``counts.json`` into ``config.out``; returns the counts.

    Raises:
        ValueError: no rows, rows that must not be trained on, a model that cannot be loaded, or no answer that could be
            parsed.
        BatchesFailed: some rows were not answered; the answered ones are saved.
    """
    refs = learnable_rows(list(config.data), config.limit)
    config.engine.check()  # fail before any worker is started
    job = Job(config.engine, config.sampling, own_question, config.seed)
    with Store(config.out / "answers", job.settings()) as store:
        record_start(config.out)
        run_job(job, [WorkItem(ref) for ref in refs], store, config.run_options, console, "reasoning")
    return write_pairs(config, refs)


def write_pairs(config: PairsConfig, refs: Sequence[RowRef]) -> dict[str, Any]:
    """Read the saved answers and write the pairs and their counts.

    ``pairs.parquet`` has a line for each image with at least one parsed reasoning: the reference to its row (``key``,
    ``file``, ``group``, ``number``), ``data_source``, ``task``, ``target`` and scale; ``texts``, the reasonings in seed
    order, and ``scores``, the score each one led to.
    """
    counts: Counter[str] = Counter()
    by_key = {ref.key: ref for ref in refs}
    out = config.out / "pairs.parquet"
    out.unlink(missing_ok=True)  # it may be from other answers
    written = 0
    try:
        written = write_parquet(_lines(read_store(config.out / "answers"), by_key, counts), out)
    except ValueError as error:
        if written or counts["ok"]:
            raise
        raise ValueError(f"no answer contains reasoning and a score; answers by status: {dict(counts)}") from error
    finally:
        data = data_record(refs, config.limit, known_files(config.out / "answers"))
        asked = (config.engine.identity(), asdict(config.sampling), config.seed)
        found = {
            "made_by": f"omniq_verl {omniq_verl.__version__}",
            "provenance": provenance(record_start(config.out), data, *asked),
            "images": len(refs),
            "images_with_text": written,
            "answers": dict(counts),
        }
        replace_text(config.out / "counts.json", json.dumps(found, indent=2) + "\n")
    return found


def _lines(
    records: Iterator[Mapping[str, Any]], by_key: Mapping[str, RowRef], counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    for record in records:
        if ref := by_key.get(record["key"]):
            read = [_read(answer, ref, counts) for answer in record["answers"]]
            if right := [one for one in read if one]:
                yield {**_where(ref), "texts": [text for text, _ in right], "scores": [score for _, score in right]}


def _read(answer: Mapping[str, Any], ref: RowRef, counts: Counter[str]) -> tuple[str, float] | None:
    """Reasoning and score, or None; counted in both cases."""
    reason, text, score = read_reasoning(answer["text"], answer["finish_reason"], task_of(ref.info))
    counts[reason] += 1
    return (text, score) if reason == "ok" else None


def _where(ref: RowRef) -> dict[str, Any]:
    info = ref.info
    return {
        "key": ref.key,
        "file": shown_name(ref.file),
        "group": ref.group,
        "number": ref.number,
        **{name: info[name] for name in ("data_source", "id", "task", "split", "scale_low", "scale_high")},
        "target": float(info["score"]),
    }


def read_pairs(path: Path) -> list[tuple[RowRef, list[str]]]:
    """Read the row reference and the texts of each image, sorted by key.

    Raises:
        ValueError: the file was not written by ``write_pairs``.
    """
    try:
        lines = pq.read_table(path).to_pylist()
        found = [
            (RowRef(one["key"], real_name(one["file"]), one["group"], one["number"], {"id": one["id"]}), one["texts"])
            for one in lines
        ]
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a pairs.parquet of `omniq rali pairs` ({error})") from error
    return sorted(found, key=lambda pair: pair[0].key)
