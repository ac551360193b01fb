"""Label alignment: each domain's model reasons about its own images, and all texts are combined into one SFT file.

RACT, sec. 3.4 and figure A.1 (b): the scores of different data sets disagree, but texts about quality do not.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import omniq_verl
from omniq_verl.data.files import replace_text
from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.row_refs import RowReader, RowRef, check_same_images, learnable_rows
from omniq_verl.evaluation.answers import read_reasoning
from omniq_verl.generation.provenance import data_record, provenance, record_start
from omniq_verl.generation.request import Sampling
from omniq_verl.generation.runner import RunOptions, run_job
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.store import Store, known_files, read_store
from omniq_verl.generation.workers import Job, WorkItem, own_question
from omniq_verl.rewards.parsing import SCORE_KEY
from omniq_verl.tasks import IMAGE_PLACEHOLDER, Task, task_of
from omniq_verl.tasks.q_insight import DESCRIBE


@dataclass
class Domain:
    """A data set, and the model that was trained on it."""

    model: str = ""
    data: list[str] = field(default_factory=list)


@dataclass
class AlignConfig:
    """Settings of a run, read from its YAML file."""

    domains: dict[str, Domain] = field(default_factory=dict)
    """Domains by name, e.g. ``koniq: {model: runs/koniq, data: [data/koniq/train*.parquet]}``."""
    scores: list[str] = field(default_factory=list)
    """Domains whose labels are also trained on: one (sec. 3.4, figure A.1 (c), table A.3), none (table 5, rows 2 and 3)
    or all (its row 1, which is worse)."""
    out: str = "runs/ract_align"
    engine: EngineSpec = field(default_factory=lambda: EngineSpec(model=""))
    """Engine settings; ``model`` is replaced by each domain's model."""
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=1.0, max_tokens=1024))
    """One text per image. The paper does not say how it was sampled, so the settings are those of its RL training."""
    run_options: RunOptions = field(default_factory=RunOptions)
    limit: int | None = None
    """Use only the first N rows of each domain; None: all."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.domains:
            raise ValueError("no domains are given. Fix: set domains.NAME.model=FOLDER domains.NAME.data=[FILE, ...]")
        for name, domain in self.domains.items():
            if not (domain.model and domain.data):
                raise ValueError(f"the domain {name} needs a model and data")
        if unknown := set(self.scores) - self.domains.keys():
            raise ValueError(
                f"scores contains unknown domains: {', '.join(sorted(unknown))}; known: {', '.join(self.domains)}"
            )


def align(config: AlignConfig, console: Console) -> dict[str, Any]:
    """Ask every domain's model and write ``<out>/sft.parquet`` and ``counts.json``; resumes an interrupted run.

    Returns:
        Counts per domain: its rows, the texts to learn, and the rejected answers by reason.

    Raises:
        ValueError: rows belong to a held-out split or to a task without scores, or no text is left for training.
        BatchesFailed: some rows were not answered; the answered ones are saved.
    """
    out, counts, records = Path(config.out), {}, []
    check_same_images(Path(file) for domain in config.domains.values() for file in domain.data)
    refs = {
        name: learnable_rows([Path(file) for file in domain.data], config.limit)
        for name, domain in config.domains.items()
    }
    for name, domain in config.domains.items():
        ask(config, name, domain, refs[name], console)
    for name in config.domains:
        counts[name], kept = judge(out / name, refs[name])
        records.append(learned(kept, name in config.scores))
    if not any(count.get("learned") for count in counts.values()):
        raise ValueError(f"no reasoning text is left for training; counts by domain: {counts}")
    write_parquet((record for some in records for record in some), out / "sft.parquet")
    record = {
        "made_by": f"omniq_verl {omniq_verl.__version__}",
        "provenance": conditions(config, refs),
        "scores": list(config.scores),
        "domains": counts,
    }
    replace_text(out / "counts.json", json.dumps(record, indent=2) + "\n")
    print_counts(counts, console)
    console.print(f"SFT data: {out / 'sft.parquet'}", soft_wrap=True, markup=False)
    return counts


def conditions(config: AlignConfig, refs: Mapping[str, list[RowRef]]) -> dict[str, Any]:
    """Return the provenance of the SFT file, with the data and model of each domain."""
    out = Path(config.out)
    data = {name: data_record(some, config.limit, known_files(out / name)) for name, some in refs.items()}
    models = {name: replace(config.engine, model=one.model).identity() for name, one in config.domains.items()}
    asked = {"model": models, "sampling": asdict(config.sampling), "seed": config.seed}
    return provenance(record_start(out), **asked, domain_data=data)


def ask(config: AlignConfig, name: str, domain: Domain, refs: list[RowRef], console: Console) -> None:
    """Ask a domain's model each row's own question, and save the answers in ``<out>/<name>``."""
    engine = replace(config.engine, model=domain.model)
    job = Job(engine, config.sampling, own_question, config.seed)
    with Store(Path(config.out) / name, job.settings()) as store:
        run_job(job, [WorkItem(ref) for ref in refs], store, config.run_options, console, name)


def judge(folder: Path, refs: list[RowRef]) -> tuple[dict[str, int], list[tuple[RowRef, str]]]:
    """Count a domain's answers by status, and collect the texts to learn with their rows.

    A text is used only if its whole answer can be parsed, by the same rule as in training.
    """
    by_key, counts, texts = {ref.key: ref for ref in refs}, Counter(rows=len(refs)), {}
    for record in read_store(folder):
        if ref := by_key.get(record["key"]):
            for answer in record["answers"]:
                reason, text, _ = read_reasoning(answer["text"], answer["finish_reason"], task_of(ref.info))
                counts["learned" if reason == "ok" else reason] += 1
                if reason == "ok":
                    texts.setdefault(ref.key, []).append(text)
    return dict(counts), [(ref, text) for ref in refs for text in texts.get(ref.key, [])]


def learned(kept: list[tuple[RowRef, str]], with_scores: bool) -> Iterator[dict[str, Any]]:
    """Yield records for verl's SFT trainer: each image's description and, if requested, its score."""
    rows = RowReader(["prompt", "images", "extra_info"]).read(ref for ref, _ in kept)
    for (ref, text), row in zip(kept, rows, strict=True):
        yield _record(row, [{"role": "user", "content": IMAGE_PLACEHOLDER + DESCRIBE}], text)
        if with_scores:
            yield _record(row, row["prompt"], scored_answer(text, ref.info["score"], task_of(ref.info)))


def scored_answer(text: str, score: float, task: Task) -> str:
    """Return reasoning and label as an answer to the task. The label has two decimals, as the prompt asks."""
    value = f'{{"{SCORE_KEY}": {score:.2f}}}' if task.answer_format == "json" else f"{score:.2f}"
    return f"<think>{text}</think><answer>{value}</answer>"


def _record(row: Mapping[str, Any], question: list[dict[str, str]], answer: str) -> dict[str, Any]:
    messages = [*question, {"role": "assistant", "content": answer}]
    return {"messages": messages, "images": row["images"], "extra_info": {"id": row["extra_info"]["id"]}}


def print_counts(counts: Mapping[str, Mapping[str, int]], console: Console) -> None:
    """Print one line per domain."""
    table = Table(title="reasoning texts")
    for column in ("domain", "rows", "learned", "rejected"):
        table.add_column(column, justify="left" if column in ("domain", "rejected") else "right", overflow="fold")
    for name, of_domain in counts.items():
        rejected = [f"{why} {number}" for why, number in of_domain.items() if why not in ("rows", "learned")]
        learnt = str(of_domain.get("learned", 0))
        table.add_row(name, str(of_domain["rows"]), learnt, ", ".join(rejected) or "none")
    console.print(table)
