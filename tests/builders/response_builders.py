"""Responses of a model, sound and hostile, and how long a function takes over them."""

import time
from collections.abc import Callable

from hypothesis import strategies as st

from omniq_verl.tasks import Scale

SCALE = Scale(1.0, 5.0)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
JSON_PIECES = ("{", "}", "[", '"', ":", ",", '"rating"', '"rating": 3', "null", "NaN", "1e400", "\\ud800")
ANY_CHARACTER = st.characters(exclude_categories=())  # hypothesis leaves surrogates out unless it is told


def answer(body: str) -> str:
    return f"<think>sharp</think><answer>{body}</answer>"


def hostile_text() -> st.SearchStrategy[str]:
    """Texts that come close to an answer: tags, numbers, pieces of JSON and arbitrary characters in any order."""
    near_numbers = st.from_regex(r"[+-]?[0-9]{0,3}[.,]?[0-9]{0,3}", fullmatch=True)
    pieces = st.one_of(st.sampled_from(TAGS + JSON_PIECES), near_numbers, st.text(ANY_CHARACTER, max_size=5))
    joined = st.lists(pieces, max_size=9).map("".join)
    return joined | joined.map(answer) | st.text(ANY_CHARACTER)


def seconds(function: Callable[[str], object], text: str) -> float:
    """The shortest of three calls: the machine's other work only ever adds."""

    def once() -> float:
        started = time.perf_counter()
        function(text)
        return time.perf_counter() - started

    return min(once() for _ in range(3))
