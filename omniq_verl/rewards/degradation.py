"""Reward for naming an image's distortion and its severity."""

from collections.abc import Mapping

_SAME_CLASS = {"jpeg": "compression"}
_NOTHING = ("null", "none")
NOT_NAMED = "not named"
"""Class of a JSON answer that names no distortion class. No label has this class."""


def canonical_class(name: object) -> str | None:
    """Return the single name of a distortion class; None for "no distortion".

    The papers and data sets use "JPEG" and "compression" for the same class. "No distortion" can be JSON null, the
    string "null" or "none" (DQ-495K's lists have both), or a missing key (see ``stated_class``).
    """
    word = canonical_level(name)
    return None if word is None else _SAME_CLASS.get(word, word)


def canonical_level(name: object) -> str | None:
    """Return a severity in lower case; None for no severity."""
    if not isinstance(name, str):
        return None if name is None else f"not a name: {type(name).__name__}"
    word = name.strip().lower()
    return None if word in _NOTHING else word


def stated_class(fields: Mapping[str, object]) -> object:
    """Return the distortion class named by a JSON answer; None for "no distortion".

    A missing key means "no distortion" only if the answer contains nothing else: ``{"rating": 3}``, a misspelt key or a
    severity without a distortion do not answer the question and give ``NOT_NAMED``.
    """
    if "distortion_class" in fields:
        return fields["distortion_class"]
    has_other_fields = set(fields) - {"severity"} or canonical_level(fields.get("severity")) is not None
    return NOT_NAMED if has_other_fields else None


def degradation_reward(
    pred_class: object,
    pred_level: object,
    target_class: str | None,
    target_level: str | None,
    class_weight: float = 0.25,
    level_weight: float = 0.75,
) -> float:
    """Return ``class_weight`` if the class is correct, plus ``level_weight`` if the level is correct, too.

    A correct level of a wrong class earns nothing. Class and level are None for an image without distortion.
    Source: Q-Insight sec. 3.3 (the level counts only with its class) and sec. 4.1 (0.25 and 0.75).

    Args:
        pred_class: distortion class of the answer, by any of its names.
        pred_level: severity in the answer.
        target_class: distortion class of the label.
        target_level: severity of the label.
        class_weight: reward for the class alone.
        level_weight: additional reward for the level.
    """
    if canonical_class(pred_class) != canonical_class(target_class):
        return 0.0
    return class_weight + level_weight * (canonical_level(pred_level) == canonical_level(target_level))
