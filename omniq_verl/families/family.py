"""Everything we must know about a family of models to ask one of them for a score."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from omniq_verl.generation.direct import score_texts
from omniq_verl.generation.expectation import ScoreTexts
from omniq_verl.rewards import parse_response
from omniq_verl.rewards.parsing import Parsed
from omniq_verl.tasks import Task

Reader = Callable[[str, Task], Parsed]
"""Takes an answer and its task and returns the parsed answer."""


def read_strictly(text: str, task: Task) -> Parsed:
    """Parse an answer with the strict parser of training."""
    return parse_response(text, task.answer_format, task.scale)


@dataclass(frozen=True)
class Family:
    """The facts about one family, with their sources."""

    name: str
    title: str
    sources: tuple[str, ...]
    """Addresses of the files that state the facts."""
    tasks: Mapping[str, Task]
    """The family's own wording of each task, by the name that callers use, e.g. ``technical``."""
    model_types: tuple[str, ...] = ()
    """Model types in ``config.json``; empty: any."""
    marks: tuple[str, ...] = ()
    """Texts in lower case. A model belongs to the family if its name or tags contain one of them."""
    read: Reader = read_strictly
    mode: str = "reason"
    """Default mode for getting a score."""
    modes: tuple[str, ...] = ("reason", "direct")
    """Modes that the family supports."""
    texts: Callable[[Task], ScoreTexts] = score_texts
    """The texts of a task's scores, for the mode ``direct``."""
    max_pixels: int | None = None
    """Larger images are shrunk to this many pixels, as in the authors' processor; None: use the folder's setting."""
    subfolder: str | None = None
    """Folder of the model within its repository."""
    unsure: tuple[str, ...] = ()
    """What the sources leave uncertain, one sentence each."""
    rejection: str | None = None
    """Why this package cannot ask such a model, with a fix; None: it can."""
    rejected_types: tuple[str, ...] = ()
    """The ``model_types`` that ``rejection`` applies to; empty: all."""

    def task(self, name: str) -> Task:
        """Return the family's wording of a task.

        Raises:
            ValueError: the family does not have this task.
        """
        if name not in self.tasks:
            known = ", ".join(self.tasks)
            raise ValueError(f"{self.title} has no task {name!r}. Fix: ask for {known}")
        return self.tasks[name]

    def check_model_type(self, model_type: str | None) -> None:
        """Check that a model of this architecture can belong to the family.

        Raises:
            ValueError: it cannot, or such a model is not supported here.
        """
        if self.rejection and (not self.rejected_types or model_type in (None, *self.rejected_types)):
            raise ValueError(self.rejection)
        if model_type is not None and self.model_types and model_type not in self.model_types:
            raise ValueError(
                f"the model is a {model_type}, but {self.title} is {' or '.join(self.model_types)}. Fix: name another"
                " family, or another model"
            )

    def check_mode(self, mode: str) -> None:
        """Check that the family supports a mode.

        Raises:
            ValueError: it does not.
        """
        if mode not in self.modes:
            raise ValueError(f"{self.title} has no mode {mode!r}. Fix: use {' or '.join(self.modes)}")
