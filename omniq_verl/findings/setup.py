"""What all findings share: models, prepared files, an output folder, and the models' answers to the files."""

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
    """Options that all findings about models and data share."""

    specs: tuple[EngineSpec, ...]
    data: tuple[Path, ...]
    """Prepared files of tasks that ask for a score."""
    out: Path
    limit: int | None = None
    """Number of rows to use from the start of each file; None: all."""
    max_tokens: int = 1024
    workers: int = 1
    batch: int = 256
    resamples: int = 1000
    seed: int = 0

    def names(self) -> list[str]:
        """Return short names that tell the models apart.

        Raises:
            ValueError: a model is given twice.
        """
        return short_names([_step_folder(Path(spec.model)) for spec in self.specs])

    def refs(self) -> list[RowRef]:
        """Return the rows that the models are asked about."""
        return limited_rows(list(self.data), self.limit)

    def record(self, **others: Any) -> dict[str, Any]:
        """Return the conditions for the page. ``others`` are the conditions of one finding."""
        named = zip(self.names(), self.specs, strict=True)
        models = {name: {"folder": spec.model, "weights": spec.identity()["weights"]} for name, spec in named}
        data = data_record(self.refs(), self.limit)
        settings = {"max_tokens": self.max_tokens, "resamples": self.resamples}
        return provenance(record_start(self.out), data, models, seed=self.seed, **settings, **others)


def _step_folder(model: Path) -> Path:
    """Return a checkpoint's folder without the subfolders that verl adds to every checkpoint."""
    while model.name in ("huggingface", "actor"):
        model = model.parent
    return model


@dataclass(frozen=True)
class Answered:
    """A model's answers to the rows."""

    name: str
    spec: EngineSpec
    images: pd.DataFrame
    """One row per image from ``evaluation.judging.per_image``, indexed by ``key``."""
    answers: pd.DataFrame
    """One row per answer from ``evaluation.judging.judge_answers``."""


def ask(
    setup: Setup,
    spec: EngineSpec,
    name: str,
    part: str,
    sampling: Sampling,
    console: Console,
    mode: str = "reason",
) -> Answered:
    """Evaluate a model on the rows like ``omniq eval``, in a separate folder. Stored answers are not requested again.

    Args:
        setup: options of the finding.
        spec: the model.
        name: name of the model, for tables.
        part: name of the folder within the finding's folder.
        sampling: how the model samples its answers.
        console: for tables and progress.
        mode: one of ``generation.direct.MODES``.

    Raises:
        ValueError: a task does not ask for a score, or see ``evaluation.run.evaluate``.
        BatchesFailed: some rows have no answer.
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
    """Call ``ask`` for every model of the setup, with the folders ``model_1``, ``model_2``, ..."""
    named = enumerate(zip(setup.names(), setup.specs, strict=True), 1)
    return [ask(setup, spec, name, f"model_{number}", sampling, console) for number, (name, spec) in named]


def check_readable(specs: Sequence[EngineSpec]) -> None:
    """Check that transformers can open the weights of every model, for findings that look inside a model.

    Raises:
        ValueError: a model is behind an endpoint or a user-defined engine.
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
    """Content of the image files; empty if they cannot be read (any more)."""


def questions(refs: Sequence[RowRef]) -> Iterator[Question]:
    """Yield the question of each row, in the order of ``refs``."""
    for ref, row in zip(refs, RowReader(["prompt", "images"]).read(refs), strict=True):
        try:
            images = image_bytes(row)
        except BadImage:
            images = ()
        yield Question(ref, row["prompt"], images)
