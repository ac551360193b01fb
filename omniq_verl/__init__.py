"""Training, measuring and using image-quality reward models that reason, on top of verl."""

from typing import TYPE_CHECKING

from omniq_verl.lazy_names import export_names

if TYPE_CHECKING:
    from omniq_verl.generation.spec import EngineSpec
    from omniq_verl.rali.scorer import RaliScorer
    from omniq_verl.scoring.comparison import Comparer, Comparison
    from omniq_verl.scoring.scorer import Score, Scorer
    from omniq_verl.serving.client import Client, ServerError

__all__ = [
    "Client",
    "Comparer",
    "Comparison",
    "EngineSpec",
    "RaliScorer",
    "Score",
    "Scorer",
    "ServerError",
    "__version__",
]

__version__ = "0.1.0"

export_names(
    __name__,
    {
        "generation.spec": ["EngineSpec"],
        "rali.scorer": ["RaliScorer"],
        "scoring.comparison": ["Comparer", "Comparison"],
        "scoring.scorer": ["Score", "Scorer"],
        "serving.client": ["Client", "ServerError"],
    },
)
