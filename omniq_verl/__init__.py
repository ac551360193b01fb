"""Training, measuring and using image-quality reward models that reason, on top of verl."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_HOMES = {
    "Scorer": "omniq_verl.scoring.scorer",
    "Score": "omniq_verl.scoring.scorer",
    "Comparer": "omniq_verl.scoring.comparison",
    "Comparison": "omniq_verl.scoring.comparison",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:  # on demand: verl imports this package in every process
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
