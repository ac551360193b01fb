"""The cost of a generation stage in answers and tokens, estimated before it starts and counted afterwards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omniq_verl.generation.request import Sampling
from omniq_verl.generation.store import Store, read_store
from omniq_verl.generation.workers import WorkItem


def cost_line(what: str, store: Store, todo: Sequence[WorkItem], sampling: Sampling) -> str:
    """Say what is left to generate: "reasoning: 900 of 1,000 rows left, 8 answers each: at most 7,372,800 tokens".

    A resumed run already has answers, so the line also has an estimate from their mean length.
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
    """Count a store's finished ``rows``, ``answers`` and ``tokens`` (0 if the engine does not report them)."""
    rows = answers = tokens = 0
    for record in read_store(folder):
        rows += 1
        answers += len(record["answers"])
        tokens += sum(answer.get("tokens", 0) for answer in record["answers"])
    return {"rows": rows, "answers": answers, "tokens": tokens}
