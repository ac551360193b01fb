"""Contrastive losses over a batch of images and texts. Pure.

``same_BB`` says which text is right for which image: its own, and every text equal to that. Models that write short
reasoning write the same one often; with texts that all differ, these are the losses of the papers.
"""

import torch
from torch.nn import functional


def softmax_loss(logits_BB: torch.Tensor, same_BB: torch.Tensor) -> torch.Tensor:
    """CLIP's (Radford et al. 2021, figure 3): the cross entropy of images over texts and of texts over images, halved.

    Args:
        logits_BB: scaled cosines, a row an image.
        same_BB: bool; the right ones share the weight of a row, or column, equally.
    """
    target = same_BB.float()
    rows = functional.cross_entropy(logits_BB, target / target.sum(dim=1, keepdim=True))
    columns = functional.cross_entropy(logits_BB.T, target.T / target.T.sum(dim=1, keepdim=True))
    return (rows + columns) / 2


def sigmoid_loss(logits_BB: torch.Tensor, same_BB: torch.Tensor) -> torch.Tensor:
    """SigLIP's (Zhai et al. 2023, equation 1): each image and text apart, right or wrong; the sum over the batch size.

    Args:
        logits_BB: scaled cosines with their bias, a row an image.
        same_BB: bool.
    """
    signs = torch.where(same_BB, 1.0, -1.0)
    return -functional.logsigmoid(signs * logits_BB).sum() / len(logits_BB)


LOSSES = {"clip": softmax_loss, "siglip": sigmoid_loss}
"""By the kind of the model: the one it was pretrained by."""
