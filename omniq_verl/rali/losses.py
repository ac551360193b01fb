"""Contrastive losses over a batch of images and texts. Pure functions.

``same_BB`` marks the correct texts of each image: its own and every equal text. Models that write short reasoning often
repeat it; if all texts differ, these are the losses of the papers.
"""

import torch
from torch.nn import functional


def softmax_loss(logits_BB: torch.Tensor, same_BB: torch.Tensor) -> torch.Tensor:
    """CLIP's loss (Radford et al. 2021, figure 3): mean of the cross entropies over texts and over images.

    Args:
        logits_BB: scaled cosines, one row per image.
        same_BB: bool; correct texts share the weight of a row or column equally.
    """
    target = same_BB.float()
    rows = functional.cross_entropy(logits_BB, target / target.sum(dim=1, keepdim=True))
    columns = functional.cross_entropy(logits_BB.T, target.T / target.T.sum(dim=1, keepdim=True))
    return (rows + columns) / 2


def sigmoid_loss(logits_BB: torch.Tensor, same_BB: torch.Tensor) -> torch.Tensor:
    """SigLIP's loss (Zhai et al. 2023, equation 1): binary for each image and text; the sum divided by the batch size.

    Args:
        logits_BB: scaled cosines with their bias, one row per image.
        same_BB: bool.
    """
    signs = torch.where(same_BB, 1.0, -1.0)
    return -functional.logsigmoid(signs * logits_BB).sum() / len(logits_BB)


LOSSES = {"clip": softmax_loss, "siglip": sigmoid_loss}
"""By kind of model: the loss it was pretrained with."""
