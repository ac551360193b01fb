"""What has to be known of a family of models before one of them can be asked for a score."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from omniq_verl.generation.direct import score_texts
from omniq_verl.generation.expectation import ScoreTexts
from omniq_verl.rewards import parse_response
from omniq_verl.rewards.parsing import Parsed
from omniq_verl.tasks import Task

Reader = Callable[[str, Task], Parsed]
"""An answer and its task -> what it says."""


def read_strictly(text: str, task: Task) -> Parsed:
    """As training does."""
    return parse_response(text, task.answer_format, task.scale)


@dataclass(frozen=True)
class Family:
    """The facts of one family, with where they were read."""

    name: str
    title: str
    sources: tuple[str, ...]
    """Addresses of the files that the facts were read from."""
    tasks: Mapping[str, Task]
    """The family's own wording by the name that callers use, e.g. ``technical``."""
    model_types: tuple[str, ...] = ()
    """Model types in ``config.json``; empty: any."""
    marks: tuple[str, ...] = ()
    """Texts in small letters; a model whose name or tags hold one of them belongs to the family."""
    read: Reader = read_strictly
    mode: str = "reason"
    """How a score is read unless the caller says otherwise."""
    modes: tuple[str, ...] = ("reason", "direct")
    """How it can be read at all."""
    texts: Callable[[Task], ScoreTexts] = score_texts
    """The texts of a task's scores, for the mode ``direct``."""
    max_pixels: int | None = None
    """Larger images are shrunk to this many pixels, as the authors' processor does; None: what the folder says."""
    subfolder: str | None = None
    """Where the model lies within its repository."""
    unsure: tuple[str, ...] = ()
    """What could not be read for sure, a sentence each."""
    rejection: str | None = None
    """Why such a model cannot be asked here, with a fix; None: it can."""
    rejected_types: tuple[str, ...] = ()
    """The ``model_types`` that ``rejection`` is about; empty: all."""

    def task(self, name: str) -> Task:
        """The family's wording of a task.

        Raises:
            ValueError: it has none.
        """
        if name not in self.tasks:
            known = ", ".join(self.tasks)
            raise ValueError(f"{self.title} has no task {name!r}. Fix: ask for {known}")
        return self.tasks[name]

    def check_model_type(self, model_type: str | None) -> None:
        """Raises:
        ValueError: a model of this architecture cannot be asked as one of this family.
        """
        if self.rejection and (not self.rejected_types or model_type in (None, *self.rejected_types)):
            raise ValueError(self.rejection)
        if model_type is not None and self.model_types and model_type not in self.model_types:
            raise ValueError(
                f"the model is a {model_type}, but {self.title} is {' or '.join(self.model_types)}. Fix: name another"
                " family, or another model"
            )

    def check_mode(self, mode: str) -> None:
        """Raises:
        ValueError: a score of this family cannot be read so.
        """
        if mode not in self.modes:
            raise ValueError(f"{self.title} has no mode {mode!r}. Fix: use {' or '.join(self.modes)}")
