"""Run a model over every answer that can be parsed, and count the others by reason."""

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
        """Return the counts for a table, e.g. ``3 without reasoning or score``; "none" if all are 0."""
        return ", ".join(f"{number} {reason}" for reason, number in sorted(self.counts.items()) if number) or "none"


def read_answers(
    setup: Setup, answered: Answered, reader: Reader, skipped: Skipped, console: Console
) -> Iterator[tuple[str, Read]]:
    """Yield the key and the sequence of each row's first answer if it has reasoning and a score that can be parsed.

    Args:
        setup: options of the finding.
        answered: the answers.
        reader: the model that processes them.
        skipped: counts the answers that are left out.
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
