"""RALI (arXiv:2510.11369, sec. 4): a reasoning model's judgement of quality in an image encoder alone.

Pairs of images and reasoning align the encoder; its embeddings are compressed to a few basis vectors, each with a
score, and a score is read off by cosines.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "RaliScorer":  # on demand: the commands' help needs no torch
        from omniq_verl.rali.scorer import RaliScorer

        return RaliScorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
