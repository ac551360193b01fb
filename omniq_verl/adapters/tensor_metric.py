"""A scorer that is called as pyiqa's metrics are: ``metric(images)`` with a batch in [0, 1] gives one score an image.

The contract is that of ``pyiqa.models.inference_model.InferenceModel`` (github.com/chaofengc/IQA-PyTorch): a call with
``[N, 3, H, W]`` in [0, 1], a path, a PIL image or the bytes of a file; attributes ``lower_better``, ``metric_mode``,
``metric_name``, ``score_range``.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omniq_verl.adapters.scale import AnyScorer, numbers_of
from omniq_verl.data.arrays import is_numbers, is_tensor
from omniq_verl.scoring.image_inputs import is_one

if TYPE_CHECKING:
    import torch


class TensorMetric:
    """A no-reference metric over a scorer.

    Args:
        scorer: of any kind.
        task: that has a score.
        unread: stands for an image whose answer cannot be read; NaN by default, so that it shows in a mean.
        name: by which it is logged.
        score_range: "low, high", as pyiqa writes it; for display only.
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
        """Itself: torchmetrics clones metrics, and an engine or a client cannot be copied, and need not be."""
        return self

    def __call__(
        self, target: Any, ref: Any = None, prompt: str | Sequence[str] | None = None, **_: Any
    ) -> "torch.Tensor":
        """Scores ``[N]``, float32, on the device of the images. There is no gradient.

        Args:
            target: ``[N, 3, H, W]`` or ``[3, H, W]`` of floats in [0, 1], or one image as a path, PIL image or bytes.
            ref: None; the metric needs no reference.
            prompt: the text the images were made from, for ``alignment``.

        Raises:
            ValueError: there is a reference, or a tensor holds no images, for example values outside of [0, 1].
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
