"""A scorer with the interface of pyiqa's metrics: ``metric(images)`` with a batch in [0, 1] gives one score per image.

The interface is that of ``pyiqa.models.inference_model.InferenceModel`` (github.com/chaofengc/IQA-PyTorch). A metric is
called with ``[N, 3, H, W]`` in [0, 1], a path, a PIL image or the bytes of a file, and has the attributes
``lower_better``, ``metric_mode``, ``metric_name`` and ``score_range``.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omniq_verl.adapters.scale import AnyScorer, numbers_of
from omniq_verl.data.arrays import is_numbers, is_tensor
from omniq_verl.scoring.image_inputs import is_one

if TYPE_CHECKING:
    import torch


class TensorMetric:
    """A no-reference metric that uses a scorer.

    Args:
        scorer: any kind of scorer.
        task: a task with a score.
        unread: score for an image whose answer cannot be parsed. The default NaN makes a mean NaN, too.
        name: name under which the metric is logged.
        score_range: "low, high" in pyiqa's form; for display only.
    """

    lower_better = False
    metric_mode = "NR"

    def __init__(
        self,
        scorer: AnyScorer,
        task: str = "technical",
        unread: float | None = float("nan"),
        name: str = "omniq",
        score_range: str = "1, 5",
    ):
        self._scorer, self._task, self._unread = scorer, task, unread
        self.metric_name, self.score_range = name, score_range

    def __deepcopy__(self, _memo: dict[int, Any]) -> "TensorMetric":
        """Return the metric itself: torchmetrics clones metrics, but an engine or a client cannot be copied."""
        return self

    def __call__(
        self, target: Any, ref: Any = None, prompt: str | Sequence[str] | None = None, **_: Any
    ) -> "torch.Tensor":
        """Return scores ``[N]``, float32, on the device of the images, without a gradient.

        Args:
            target: floats ``[N, 3, H, W]`` or ``[3, H, W]`` in [0, 1], or one image as a path, PIL image or bytes.
            ref: None; the metric needs no reference.
            prompt: the text the images were made from, for ``alignment``.

        Raises:
            ValueError: a reference is given, or a tensor does not hold images, for example values outside [0, 1].
            NoScore: an image has no score, and ``unread`` is None.
        """
        import torch

        if ref is not None:
            raise ValueError("the metric needs no reference. Fix: leave ref out")
        one = is_one(target) and not is_numbers(target)
        images = [target] if one else list(_batch(target))
        scores = self._scorer.score(images, task=self._task, prompt=prompt)
        rejected = [one for one in scores if one.status == "bad_image"]
        if rejected:
            raise ValueError(f"{rejected[0].image}: {rejected[0].error}")
        device = None if one else target.device
        return torch.tensor(numbers_of(scores, self._unread), dtype=torch.float32, device=device)


def _batch(target: Any) -> Any:
    if not is_tensor(target) or target.dim() not in (3, 4):
        shape = f" of shape {tuple(target.shape)}" if hasattr(target, "shape") else ""
        raise ValueError(
            f"a tensor [N, 3, H, W] or [3, H, W] is expected, got {type(target).__name__}{shape}. Fix: pass"
            " torch.from_numpy(array), or the path of an image"
        )
    return target.detach() if target.dim() == 4 else target.detach()[None]
