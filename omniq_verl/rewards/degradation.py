"""The reward for naming what is wrong with an image, and how much."""

from collections.abc import Mapping

_SAME_CLASS = {"jpeg": "compression"}
_NOTHING = ("null", "none")
NOT_NAMED = "not named"
"""Of an answer that says something else than a distortion class; no label has it."""


def canonical_class(name: object) -> str | None:
    """One name per distortion class; None for "no distortion".

    The papers and data sets say "JPEG" and "compression" for one class. No distortion may be said as JSON null, as
    the string "null" or "none" (DQ-495K's lists have both) or by leaving the key out (see ``said_class``).
    """
    word = canonical_level(name)
    return _SAME_CLASS.get(word, word)


def canonical_level(name: object) -> str | None:
    """A severity in small letters; None for none."""
    if not isinstance(name, str):
        return None if name is None else f"not a name: {type(name).__name__}"
    word = name.strip().lower()
    return None if word in _NOTHING else word


def said_class(fields: Mapping[str, object]) -> object:
    """The distortion class that the object of an answer names; None for "no distortion".

    An object without the key says that there is none, but only one that says nothing else either: ``{"rating": 3}``,
    a misspelt key or a severity without its distortion is no answer to what is wrong with an image.
    """
    if "distortion_class" in fields:
        return fields["distortion_class"]
    said_else = set(fields) - {"severity"} or canonical_level(fields.get("severity")) is not None
    return NOT_NAMED if said_else else None


def degradation_reward(
    pred_class: str | None,
    pred_level: str | None,
    target_class: str | None,
    target_level: str | None,
    class_weight: float = 0.25,
    level_weight: float = 0.75,
) -> float:
    """``class_weight`` for the right class, ``level_weight`` more if the level is right as well.

    A right level of a wrong class earns nothing. Where nothing is wrong with the image, class and level are None.
    Source: Q-Insight sec. 3.3 (the level counts only with its class) and sec. 4.1 (0.25 and 0.75).

    Args:
        pred_class: distortion class of the answer, in any of its names.
        pred_level: severity of the answer.
        target_class: the label's.
        target_level: the label's.
        class_weight: reward of the class alone.
        level_weight: what the level adds.
    """
    if canonical_class(pred_class) != canonical_class(target_class):
        return 0.0
    return class_weight + level_weight * (canonical_level(pred_level) == canonical_level(target_level))
