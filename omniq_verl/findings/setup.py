"""What all findings are given: models, prepared files, a folder; and the answers that models give to the files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from omniq_verl.data.images import BadImage
from omniq_verl.data.row_refs import RowReader, RowRef, image_bytes, limited_rows
from omniq_verl.evaluation.curves import short_names
from omniq_verl.evaluation.run import EvalConfig, evaluate
from omniq_verl.generation.provenance import data_record, provenance, record_start
from omniq_verl.generation.request import Sampling
from omniq_verl.generation.runner import RunOptions
from omniq_verl.generation.spec import LOCAL_KINDS, EngineSpec


@dataclass(frozen=True)
class Setup:
    """Options that every finding over models and data shares."""

    specs: tuple[EngineSpec, ...]
    data: tuple[Path, ...]
    """Prepared files, of tasks that ask for a score."""
    out: Path
    limit: int | None = None
    """Only the first so many rows of each file."""
    max_tokens: int = 1024
    workers: int = 1
    batch: int = 256
    resamples: int = 1000
    seed: int = 0

    def names(self) -> list[str]:
        """What tells the models apart.

        Raises:
            ValueError: a model is given twice.
        """
        return short_names([_step_folder(Path(spec.model)) for spec in self.specs])

    def refs(self) -> list[RowRef]:
        """The rows that are asked about."""
        return limited_rows(list(self.data), self.limit)

    def record(self, **others: Any) -> dict[str, Any]:
        """The conditions, for the page; ``others`` are those of one finding."""
        named = zip(self.names(), self.specs, strict=True)
        models = {name: {"folder": spec.model, "weights": spec.identity()["weights"]} for name, spec in named}
        data = data_record(self.refs(), self.limit)
        settings = {"max_tokens": self.max_tokens, "resamples": self.resamples}
        return provenance(record_start(self.out), data, models, seed=self.seed, **settings, **others)


def _step_folder(model: Path) -> Path:
    """A checkpoint's folder without what verl puts all of them into."""
    while model.name in ("huggingface", "actor"):
        model = model.parent
    return model


@dataclass(frozen=True)
class Answered:
    """A model's answers to the rows."""

    name: str
    spec: EngineSpec
    images: pd.DataFrame
    """One line an image, as ``evaluation.judging.per_image`` makes it, indexed by ``key``."""
    answers: pd.DataFrame
    """One line an answer, as ``evaluation.judging.judge_answers`` makes it."""


def ask(
    setup: Setup,
    spec: EngineSpec,
    name: str,
    part: str,
    sampling: Sampling,
    console: Console,
    mode: str = "reason",
) -> Answered:
    """Evaluate a model on the rows as ``omniq eval`` does, in a folder of its own; what is there is not asked again.

    Args:
        setup: of the finding.
        spec: the model.
        name: of the model, for tables.
        part: name of the folder within the finding's.
        sampling: how it answers.
        console: for tables and progress.
        mode: one of ``generation.direct.MODES``.

    Raises:
        ValueError: a task asks for no score, or see ``evaluation.run.evaluate``.
        BatchesFailed: some rows were not answered.
    """
    run_options = RunOptions(on="here" if setup.workers == 1 else "ray", workers=setup.workers, batch=setup.batch)
    folder = setup.out / "answers" / part
    console.print(f"{name}: {spec.model}", markup=False, soft_wrap=True)
    figures = {"limit": setup.limit, "resamples": setup.resamples, "seed": setup.seed, "mode": mode}
    evaluate(EvalConfig(setup.data, folder, spec, sampling, run_options, **figures), console)
    images = pd.read_parquet(folder / "images.parquet").set_index("key")
    if (other := images[images.target.isna()]).size:
        raise ValueError(
            f"{other.index[0]} is of the task {other.task.iloc[0]}, which asks for no score. Fix: give files of a task"
            " with scores, e.g. technical"
        )
    return Answered(name, spec, images, pd.read_parquet(folder / "answers.parquet"))


def ask_all(setup: Setup, sampling: Sampling, console: Console) -> list[Answered]:
    """As ``ask``, every model of the setup, in the folders ``model_1``, ``model_2``, ..."""
    named = enumerate(zip(setup.names(), setup.specs, strict=True), 1)
    return [ask(setup, spec, name, f"model_{number}", sampling, console) for number, (name, spec) in named]


def check_readable(specs: Sequence[EngineSpec]) -> None:
    """Findings that look inside of a model open its weights by transformers.

    Raises:
        ValueError: a model is behind an endpoint or an engine of the user's own.
    """
    if other := next((spec for spec in specs if spec.kind not in LOCAL_KINDS), None):
        raise ValueError(
            f"{other.model}: this finding reads the weights, which the engine {other.kind} does not provide. Fix: give"
            " the model's folder, with --engine vllm or --engine hf"
        )


@dataclass(frozen=True)
class Question:
    """What a row asks."""

    ref: RowRef
    messages: list[dict[str, str]]
    images: tuple[bytes, ...]
    """Its image files; empty where they cannot be read (any more)."""


def questions(refs: Sequence[RowRef]) -> Iterator[Question]:
    """What each row asks, in their order."""
    for ref, row in zip(refs, RowReader(["prompt", "images"]).read(refs), strict=True):
        try:
            images = image_bytes(row)
        except BadImage:
            images = ()
        yield Question(ref, row["prompt"], images)
