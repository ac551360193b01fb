"""Score images of any type for any task with one call."""

from typing import TYPE_CHECKING

from omniq_verl.lazy_names import export_names

if TYPE_CHECKING:
    from omniq_verl.scoring.comparison import Comparer, Comparison
    from omniq_verl.scoring.scorer import Score, Scorer

__all__ = ["Comparer", "Comparison", "Score", "Scorer"]

export_names(
    __name__,
    {
        "comparison": ["Comparer", "Comparison"],
        "scorer": ["Score", "Scorer"],
    },
)
