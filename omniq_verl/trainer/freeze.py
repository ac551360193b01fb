"""Training one part of a vision-language model."""

from torch import nn

PARTS = ("vision", "language")


def train_part(model: nn.Module, part: str) -> int:
    """Freeze all parameters but those of one part; returns how many are trained.

    Args:
        model: with a submodule named ``visual`` somewhere, as Qwen2.5-VL has it: encoder and merger. Everything else,
            the embeddings of words and the output layer included, is "language".
        part: of ``PARTS``.

    Raises:
        ValueError: there is no such part, or the model has no ``visual``.
    """
    if part not in PARTS:
        raise ValueError(f"there is no part {part!r}; known: {', '.join(PARTS)}")
    visual = [name for name, _ in model.named_modules() if name.split(".")[-1] == "visual"]
    if not visual:
        raise ValueError(f"{type(model).__name__} has no module named visual, so that its parts are not known")
    for name, parameter in model.named_parameters():
        inside = name.startswith(f"{visual[0]}.")
        parameter.requires_grad_(inside == (part == "vision"))
    return count_parameters(model, trained=True)


def count_parameters(model: nn.Module, trained: bool = False) -> int:
    """How many numbers a model has; with ``trained`` those that are trained."""
    return sum(one.numel() for one in model.parameters() if one.requires_grad or not trained)
