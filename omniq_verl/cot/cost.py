"""What a stage of generation costs, before it starts and afterwards, in answers and tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omniq_verl.generation.request import Sampling
from omniq_verl.generation.store import Store, read_store
from omniq_verl.generation.workers import WorkItem


def cost_line(what: str, store: Store, todo: Sequence[WorkItem], sampling: Sampling) -> str:
    """How much is left to generate, e.g. "reasoning: 900 of 1,000 rows left, 8 answers each: at most 7,372,800 tokens".

    A run that is resumed has answers already, and their mean length gives an estimate, too.
    """
    left = sum(one.ref.key not in store.keys for one in todo)
    answers = left * sampling.n
    each = f", {sampling.n} answers each" if sampling.n > 1 else ""
    line = f"{what}: {left:,} of {len(todo):,} rows left{each}: at most {answers * sampling.max_tokens:,} tokens"
    done = generated(store.folder)
    if left and done["tokens"]:
        mean = done["tokens"] / done["answers"]
        line += f", and {answers * mean:,.0f} at the mean of {mean:.0f} so far"
    return line


def generated(folder: Path) -> dict[str, Any]:
    """What a store holds: finished ``rows``, their ``answers`` and ``tokens`` (0 where the engine does not say)."""
    rows = answers = tokens = 0
    for record in read_store(folder):
        rows += 1
        answers += len(record["answers"])
        tokens += sum(answer.get("tokens", 0) for answer in record["answers"])
    return {"rows": rows, "answers": answers, "tokens": tokens}
