"""Label alignment: each domain's own model reasons about its own images, and all of it becomes one SFT file.

RACT, sec. 3.4 and figure A.1 (b): scores of several data sets disagree, texts about quality do not.
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
    """A data set and the model that was trained on it."""

    model: str = ""
    data: list[str] = field(default_factory=list)


@dataclass
class AlignConfig:
    """A run, as its YAML file gives it."""

    domains: dict[str, Domain] = field(default_factory=dict)
    """By name, e.g. ``koniq: {model: runs/koniq/huggingface, data: [data/koniq/train*.parquet]}``."""
    scores: list[str] = field(default_factory=list)
    """Domains whose labels are learned, too: one (sec. 3.4, figure A.1 (c), table A.3), none (table 5, rows 2 and 3) or
    all (its row 1, which is worse)."""
    out: str = "runs/ract_align"
    engine: EngineSpec = field(default_factory=lambda: EngineSpec(model=""))
    """Its ``model`` is each domain's own."""
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=1.0, max_tokens=1024))
    """One text an image; the paper does not say how it was sampled, so as in its RL training."""
    run_options: RunOptions = field(default_factory=RunOptions)
    limit: int | None = None
    """The first so many rows of each domain."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.domains:
            raise ValueError("no domains: name them with domains.NAME.model=FOLDER domains.NAME.data=[FILE, ...]")
        for name, domain in self.domains.items():
            if not (domain.model and domain.data):
                raise ValueError(f"the domain {name} needs a model and data")
        if unknown := set(self.scores) - self.domains.keys():
            raise ValueError(f"scores names {', '.join(sorted(unknown))}; domains: {', '.join(self.domains)}")


def align(config: AlignConfig, console: Console) -> dict[str, Any]:
    """Ask every domain's model and write ``<out>/sft.parquet`` and ``counts.json``; goes on where it was stopped.

    Returns:
        The counts: of each domain its rows, what was learned, and what was rejected, by reason.

    Raises:
        ValueError: rows of a held-out split or of a task without scores; nothing to learn from.
        BatchesFailed: some rows were not answered; what was is kept.
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
        raise ValueError(f"nothing to learn from: {counts}")
    write_parquet((record for some in records for record in some), out / "sft.parquet")
    said = {
        "made_by": f"omniq_verl {omniq_verl.__version__}",
        "provenance": conditions(config, refs),
        "scores": list(config.scores),
        "domains": counts,
    }
    replace_text(out / "counts.json", json.dumps(said, indent=2) + "\n")
    print_counts(counts, console)
    console.print(f"SFT data: {out / 'sft.parquet'}", soft_wrap=True, markup=False)
    return counts


def conditions(config: AlignConfig, refs: Mapping[str, list[RowRef]]) -> dict[str, Any]:
    """Under which conditions the records came about; data and model are those of each domain."""
    out = Path(config.out)
    data = {name: data_record(some, config.limit, known_files(out / name)) for name, some in refs.items()}
    models = {name: replace(config.engine, model=one.model).identity() for name, one in config.domains.items()}
    asked = {"model": models, "sampling": asdict(config.sampling), "seed": config.seed}
    return provenance(record_start(out), **asked, domain_data=data)


def ask(config: AlignConfig, name: str, domain: Domain, refs: list[RowRef], console: Console) -> None:
    """The answers of a domain's model to its rows' own questions, into ``<out>/<name>``."""
    engine = replace(config.engine, model=domain.model)
    job = Job(engine, config.sampling, own_question, config.seed)
    with Store(Path(config.out) / name, job.settings()) as store:
        run_job(job, [WorkItem(ref) for ref in refs], store, config.run_options, console, name)


def judge(folder: Path, refs: list[RowRef]) -> tuple[dict[str, int], list[tuple[RowRef, str]]]:
    """What became of a domain's answers, by reason, and the texts to learn, with their rows.

    A text is learned if its whole answer can be read: the parser's own rule in training.
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
    """Records for verl's SFT trainer: the description of each image and, where asked for, its score."""
    rows = RowReader(["prompt", "images", "extra_info"]).read(ref for ref, _ in kept)
    for (ref, text), row in zip(kept, rows, strict=True):
        yield _record(row, [{"role": "user", "content": IMAGE_PLACEHOLDER + DESCRIBE}], text)
        if with_scores:
            yield _record(row, row["prompt"], scored_answer(text, ref.info["score"], task_of(ref.info)))


def scored_answer(text: str, score: float, task: Task) -> str:
    """Reasoning and the label, in the form the task asks for; with two decimals, as its prompt says."""
    said = f'{{"{SCORE_KEY}": {score:.2f}}}' if task.answer_format == "json" else f"{score:.2f}"
    return f"<think>{text}</think><answer>{said}</answer>"


def _record(row: Mapping[str, Any], question: list[dict[str, str]], answer: str) -> dict[str, Any]:
    messages = [*question, {"role": "assistant", "content": answer}]
    return {"messages": messages, "images": row["images"], "extra_info": {"id": row["extra_info"]["id"]}}


def print_counts(counts: Mapping[str, Mapping[str, int]], console: Console) -> None:
    """One line a domain."""
    table = Table(title="reasoning texts")
    for column in ("domain", "rows", "learned", "rejected"):
        table.add_column(column, justify="left" if column in ("domain", "rejected") else "right", overflow="fold")
    for name, of_domain in counts.items():
        rejected = [f"{why} {number}" for why, number in of_domain.items() if why not in ("rows", "learned")]
        learnt = str(of_domain.get("learned", 0))
        table.add_row(name, str(of_domain["rows"]), learnt, ", ".join(rejected) or "none")
    console.print(table)
