"""How fast a job's engines were: rows and seconds, added up over its starts, without the time to load a model."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from omniq_verl.data.files import replace_text

NAME = "speed.json"


@dataclass(frozen=True)
class Speed:
    """Total over all engines of a job."""

    rows: int = 0
    seconds: float = 0.0
    """Added up over engines that ran side by side."""
    tokens: int = 0
    """Total over all answers; see ``request.Answer.tokens``."""

    @property
    def rows_per_second(self) -> float | None:
        """Throughput of one engine; None before it has done anything."""
        return self.rows / self.seconds if self.seconds > 0 else None

    @property
    def tokens_per_row(self) -> float | None:
        """None before there is anything to tell."""
        return self.tokens / self.rows if self.rows else None


def read_speed(folder: Path) -> Speed:
    """What the job in this folder has told so far; zeros where that is nothing, or cannot be read."""
    try:
        return Speed(**json.loads((folder / NAME).read_bytes()))
    except (FileNotFoundError, ValueError, RecursionError, TypeError):
        return Speed()


def add_speed(folder: Path, more: Speed) -> None:
    """Add a start of the job. What a killed start answered is not counted."""
    if more.rows:
        old = read_speed(folder)
        total = Speed(old.rows + more.rows, old.seconds + more.seconds, old.tokens + more.tokens)
        replace_text(folder / NAME, json.dumps(asdict(total)) + "\n")
