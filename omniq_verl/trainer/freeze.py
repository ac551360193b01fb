"""Train one part of a vision-language model."""

from torch import nn

PARTS = ("vision", "language")


def train_part(model: nn.Module, part: str) -> int:
    """Freeze all parameters except those of one part; returns the number of trained ones.

    Args:
        model: a model with a submodule named ``visual`` (encoder and merger), as in Qwen2.5-VL. Everything else,
            including the word embeddings and the output layer, is "language".
        part: one of ``PARTS``.

    Raises:
        ValueError: the part is unknown, or the model has no ``visual``.
    """
    if part not in PARTS:
        raise ValueError(f"there is no part {part!r}; known: {', '.join(PARTS)}")
    visual = [name for name, _ in model.named_modules() if name.split(".")[-1] == "visual"]
    if not visual:
        raise ValueError(f"{type(model).__name__} has no module named visual, so its parts are not known")
    for name, parameter in model.named_parameters():
        inside = name.startswith(f"{visual[0]}.")
        parameter.requires_grad_(inside == (part == "vision"))
    return count_parameters(model, trained=True)


def count_parameters(model: nn.Module, trained: bool = False) -> int:
    """Number of parameters of a model; with ``trained``, only of trained ones."""
    return sum(one.numel() for one in model.parameters() if one.requires_grad or not trained)
