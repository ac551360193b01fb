"""Our scorers by name in pyiqa: after ``register()``, ``pyiqa.create_metric("omniq", model=FOLDER)``.

Read in pyiqa 0.1.16: ``create_metric`` looks a name up in ``default_model_configs.DEFAULT_CONFIGS`` and builds the
class that ``utils.registry.ARCH_REGISTRY`` has under the configuration's ``type``, with the caller's keywords.
"""

from typing import Any

import torch

from omniq_verl.adapters.tensor_metric import TensorMetric

NAME, _TYPE = "omniq", "OmniqScore"


class OmniqScore(torch.nn.Module):
    """What pyiqa calls with ``[N, 3, H, W]`` in [0, 1]; returns scores ``[N]``, NaN where an answer is unreadable.

    Args:
        model: folder, or name at a hub; see ``Scorer.from_pretrained``.
        task: that has a score.
        scorer: a scorer instead of a model.
        settings: others of ``Scorer.from_pretrained``.

    Raises:
        ValueError: neither a model nor a scorer.
    """

    def __init__(self, model: str | None = None, task: str = "technical", scorer: Any = None, **settings: Any):
        super().__init__()
        if scorer is None:
            if model is None:
                raise ValueError('the metric needs a model. Fix: create_metric("omniq", model=FOLDER)')
            from omniq_verl.scoring.scorer import Scorer

            scorer = Scorer.from_pretrained(model, **settings)
        self._metric = TensorMetric(scorer, task)

    def forward(self, x: torch.Tensor, **words: Any) -> torch.Tensor:
        """Scores of a batch."""
        return self._metric(x, **words)


def register(name: str = NAME) -> None:
    """Add the metric to the installed pyiqa, once for each name.

    Raises:
        ValueError: pyiqa has a metric of this name.
    """
    from pyiqa.default_model_configs import DEFAULT_CONFIGS  # pyright: ignore[reportMissingImports]  of the user
    from pyiqa.utils.registry import ARCH_REGISTRY  # pyright: ignore[reportMissingImports]  of the user

    config = {"metric_opts": {"type": _TYPE}, "metric_mode": "NR", "score_range": "1, 5"}
    if DEFAULT_CONFIGS.get(name, config) != config:
        raise ValueError(f"pyiqa has a metric {name!r} already. Fix: register another name")
    if _TYPE not in ARCH_REGISTRY:
        ARCH_REGISTRY.register(OmniqScore)
    DEFAULT_CONFIGS[name] = config
