"""Our scorers as a named pyiqa metric: after ``register()``, call ``pyiqa.create_metric("omniq", model=FOLDER)``.

Source: pyiqa 0.1.16. ``create_metric`` looks up a name in ``default_model_configs.DEFAULT_CONFIGS`` and builds the
class registered in ``utils.registry.ARCH_REGISTRY`` under the configuration's ``type``, with the caller's keywords.
"""

from typing import Any

import torch

from omniq_verl.adapters.tensor_metric import TensorMetric

NAME, _TYPE = "omniq", "OmniqScore"


class OmniqScore(torch.nn.Module):
    """Module that pyiqa calls with ``[N, 3, H, W]`` in [0, 1].

    It returns scores ``[N]``, with NaN for an answer that cannot be parsed.

    Args:
        model: folder, or name on a hub; see ``Scorer.from_pretrained``.
        task: a task with a score.
        scorer: a scorer to use instead of a model.
        settings: further arguments of ``Scorer.from_pretrained``.

    Raises:
        ValueError: neither a model nor a scorer is given.
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
        """Return the scores of a batch."""
        return self._metric(x, **words)


def register(name: str = NAME) -> None:
    """Add the metric to the installed pyiqa. Call it once for each name.

    Raises:
        ValueError: pyiqa already has a metric with this name.
    """
    from pyiqa.default_model_configs import DEFAULT_CONFIGS  # pyright: ignore[reportMissingImports]  of the user
    from pyiqa.utils.registry import ARCH_REGISTRY  # pyright: ignore[reportMissingImports]  of the user

    config = {"metric_opts": {"type": _TYPE}, "metric_mode": "NR", "score_range": "1, 5"}
    if DEFAULT_CONFIGS.get(name, config) != config:
        raise ValueError(f"pyiqa has a metric {name!r} already. Fix: register another name")
    if _TYPE not in ARCH_REGISTRY:
        ARCH_REGISTRY.register(OmniqScore)
    DEFAULT_CONFIGS[name] = config
