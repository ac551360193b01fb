"""A reward for ``gpu_step.py`` that depends on an answer's text but not on its quality."""

import hashlib
from typing import Any


def compute_score(solution_str: str, **_: Any) -> dict[str, float]:
    """A number in [0, 1) from a hash of the answer.

    A model with random weights writes nothing that the real reward could parse, so all rewards would be 0 and the
    group-std filter of stage 2 would drop every group. Hashes differ within a group, so the filter keeps all groups and
    the step does its full work.

    Args:
        solution_str: text of the answer.

    Returns:
        ``score``, which is trained on, and ``accuracy``, which the filter reads; both are the same number.
    """
    digest = hashlib.blake2b(solution_str.encode(errors="surrogatepass"), digest_size=4).digest()
    value = int.from_bytes(digest, "big") / 2**32
    return {"score": value, "accuracy": value}
