"""Read every parsed answer of a run with a model, and count what could not be read."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import track

from omniq_verl.findings.reader import Read, Reader
from omniq_verl.findings.setup import Answered, Setup, questions
from omniq_verl.tasks import ForbiddenText, task_of


@dataclass
class Skipped:
    """How many answers were left out, by reason."""

    counts: Counter[str] = field(default_factory=Counter)

    def text(self) -> str:
        """For a table, e.g. ``3 without reasoning or score``; "none" where there are none."""
        return ", ".join(f"{number} {reason}" for reason, number in sorted(self.counts.items()) if number) or "none"


def read_answers(
    setup: Setup, answered: Answered, reader: Reader, skipped: Skipped, console: Console
) -> Iterator[tuple[str, Read]]:
    """The key and the sequence of the first answer to every row, as far as it has reasoning and a readable score.

    Args:
        setup: of the finding.
        answered: whose answers are read.
        reader: the model that reads them.
        skipped: counts the others.
        console: for progress.
    """
    refs = setup.refs()
    answers = answered.answers[answered.answers["sample"] == 0].set_index("key")["answer"]
    for asked in track(questions(refs), f"reading, {answered.name}", len(refs), console=console, transient=True):
        task, key = task_of(asked.ref.info), asked.ref.key
        if not asked.images:
            skipped.counts["without an image"] += 1
            continue
        try:
            read = reader.read(asked.messages, asked.images, answers[key], task.answer_format, task.scale)
        except ForbiddenText:
            skipped.counts["with control tokens"] += 1
            continue
        if read is None:
            skipped.counts["without reasoning or score"] += 1
        else:
            yield key, read
