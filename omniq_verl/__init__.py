"""Training, measuring and using image-quality reward models that reason, on top of verl."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("Scorer", "Score"):  # on demand: verl imports this package in every process
        from omniq_verl.scoring import scorer

        return getattr(scorer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
