"""Who scores the images of a run: a reasoning model, a RALI, or each of them some of the tasks."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omniq_verl.generation.request import Answer, Request, Sampling, answer_each
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.scoring.scorer import Score, Scorer
from omniq_verl.tasks import Scale, task_on

if TYPE_CHECKING:
    from omniq_verl.rali.scorer import RaliScorer

BATCH = 64
"""Images or questions a model is given at a time: what a kill can cost."""


class ReasoningModel(Scorer):
    """A reward model that can be asked for other things than scores, too."""

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        """As of an engine, but a request it cannot take costs its own answers only."""
        return answer_each(self.engine, requests, sampling)


class ImageScorers:
    """Scores of several tasks together.

    The RALI, which is small, is loaded at once; the reasoning model when it is first asked.

    Args:
        tasks: all that images are scored for.
        model: scores those that the RALI does not.
        rali: folder of a fitted RALI; scores the one task it was fitted for.
        max_tokens: longest answer.
        scale: of all scores; None: each task's own.

    Raises:
        ValueError: a task without a judge, a judge without a task, a model that is not safe to open, or no RALI.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        model: EngineSpec | None,
        rali: Path | None = None,
        max_tokens: int = 1024,
        scale: Scale | None = None,
    ):
        self._spec, self._max_tokens, self._model, self._scale = model, max_tokens, None, scale
        self.rali: RaliScorer | None = None if rali is None else _open_rali(rali, tasks)
        self._reasoned = [task for task in tasks if self.rali is None or task != self.rali.about.task]
        if model is not None:
            model.check()
        if self._reasoned and model is None:
            raise ValueError(f"nothing scores {', '.join(self._reasoned)}. Fix: give a reasoning model (--model)")
        if model is not None and not self._reasoned:
            raise ValueError(f"{model.model} would score nothing, as the RALI scores all. Fix: leave --model out")

    @property
    def model(self) -> ReasoningModel:
        """The reasoning model; loaded now, if it was not."""
        assert self._spec is not None  # as __init__ saw to it
        if self._model is None:
            self._model = ReasoningModel(self._spec, max_tokens=self._max_tokens, batch=BATCH)
        return self._model

    def batches(self, files: Sequence[Path], texts: Sequence[str]) -> Iterator[list[dict[str, Score]]]:
        """Scores by task of images that should show these texts, a list at a time, as soon as each batch is done."""
        asked: list[Iterator[list[Any]]] = []
        if self._reasoned:
            asked.append(self.model.batches(files, self._reasoned, texts, scale=self._scale))
        if self.rali is not None:
            task = self.rali.about.task
            asked.append(self.rali.batches(files, [task], scale=task_on(task, self._scale).scale))
        for parts in zip(*asked, strict=True):
            yield [{task: score for one in same for task, score in one.items()} for same in zip(*parts, strict=True)]


def _open_rali(folder: Path, tasks: Sequence[str]) -> "RaliScorer":
    from omniq_verl.rali.scorer import RaliScorer

    rali = RaliScorer(folder, batch=BATCH)
    if (task := rali.about.task) not in tasks:
        raise ValueError(f"the RALI of {folder} scores {task}, and {', '.join(tasks)} is asked for. Fix: give a weight"
                         f" to {task} (--weight {task}=1)")  # fmt: skip
    return rali
