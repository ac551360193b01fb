"""The models that score the images of a run: a reasoning model, RALI, or both for different tasks."""

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
"""Images or questions per model call, and so the most work that a kill can lose."""


class ReasoningModel(Scorer):
    """A reward model that also answers questions other than scoring."""

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Answer]]:
        """Answer like an engine, but a rejected request fails only its own answers."""
        return answer_each(self.engine, requests, sampling)


class ImageScorers:
    """Scores images for several tasks.

    RALI is small and loaded at once; the reasoning model is loaded when it is first used.

    Args:
        tasks: all that images are scored for.
        model: scores those that the RALI does not.
        rali: folder of a fitted RALI; scores the one task it was fitted for.
        max_tokens: longest answer.
        scale: of all scores; None: each task's own.

    Raises:
        ValueError: a task that no model scores, a model without a task, an unsafe model, or a folder without RALI.
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
            raise ValueError(
                f"--model {model.model} is not needed: RALI already scores every requested task. Fix: remove --model"
            )

    @property
    def model(self) -> ReasoningModel:
        """The reasoning model; loaded on first use."""
        assert self._spec is not None  # checked in __init__
        if self._model is None:
            self._model = ReasoningModel(self._spec, max_tokens=self._max_tokens, batch=BATCH)
        return self._model

    def batches(self, files: Sequence[Path], texts: Sequence[str]) -> Iterator[list[dict[str, Score]]]:
        """Yield scores by task, batch by batch, for images that should show these texts."""
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
        raise ValueError(
            f"the RALI in {folder} scores {task}, but the requested tasks are {', '.join(tasks)}. Fix: give a weight to"
            f" {task} (--weight {task}=1)"
        )
    return rali
