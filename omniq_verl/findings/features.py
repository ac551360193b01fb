"""One vector for an image and one for its reasoning, as the language model has them; ridge regressions on them."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from omniq_verl.findings.reader import Read, Reader

FOLDS = 5
ALPHAS = np.logspace(-3, 4, 15)
"""Strengths of the ridge penalty that are tried within the training folds. Ours."""
Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Numbers of the images to fit to, and of those to predict -> predictions."""
_NUMBER = re.compile(r"[0-9]+(?:[.,][0-9]+)?")


@torch.inference_mode()
def token_features(reader: Reader, read: Read, layer: int = -1) -> dict[str, np.ndarray]:
    """Means over an answer's tokens, float32 ``[D]`` each.

    Args:
        reader: the model.
        read: question and answer.
        layer: of the hidden states of ``visual_late`` and ``reasoning``: 0 is what enters the language model, -1 what
            leaves it.

    Returns:
        ``visual``, of the image's tokens as the vision tower gives them to the language model; ``visual_late``, of the
        same tokens at ``layer``; ``reasoning``, of the reasoning's tokens there.
    """
    found = reader.model(**reader.on_device(read.inputs), output_hidden_states=True, logits_to_keep=1).hidden_states
    image, reasoning = read.at("image").to(reader.device), read.at("reasoning").to(reader.device)
    vectors = {
        "visual": found[0][0, image],
        "visual_late": found[layer][0, image],
        "reasoning": found[layer][0, reasoning],
    }
    return {name: vector.float().mean(dim=0).cpu().numpy() for name, vector in vectors.items()}


def without_numbers(text: str) -> str:
    """The text without its numbers, which would give a score away."""
    return _NUMBER.sub(" ", text)


def has_number(text: str) -> bool:
    """Does the text hold a number?"""
    return _NUMBER.search(text) is not None


def folds_of(images: int, seed: int = 0) -> np.ndarray:
    """The fold of each image ``[N]``, from 0 to ``FOLDS`` - 1, at random and of equal size."""
    folds = np.arange(images) % FOLDS
    np.random.default_rng(seed).shuffle(folds)
    return folds


def ridge_predictions(vectors: np.ndarray, target: np.ndarray, seed: int = 0) -> np.ndarray:
    """Scores that a ridge regression predicts for images that it was not fitted to ``[N]``.

    Features are standardised and the penalty is chosen (by leave-one-out) within each training part.

    Args:
        vectors: ``[N, D]``.
        target: labels ``[N]``.
        seed: of the folds.

    Raises:
        ValueError: fewer than two images a fold.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        model = make_pipeline(StandardScaler(), RidgeCV(ALPHAS)).fit(vectors[train], target[train])
        return model.predict(vectors[test])

    return _out_of_fold(predict, len(target), seed)


def ridge_on_texts(texts: Sequence[str], target: np.ndarray, seed: int = 0) -> np.ndarray:
    """As ``ridge_predictions``, on the words and pairs of words of texts (tf-idf), their numbers removed.

    The vocabulary is that of the training part alone.

    Args:
        texts: ``[N]``.
        target: labels ``[N]``.
        seed: of the folds.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import RidgeCV

    plain = np.array([without_numbers(text) for text in texts], dtype=object)

    def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", max_features=20_000)
        try:
            known: Any = words.fit_transform(plain[train])  # a sparse matrix; scikit-learn declares no types
        except ValueError:  # not one word in any text
            return np.full(len(test), target[train].mean())
        model = RidgeCV(ALPHAS).fit(known.toarray(), target[train])
        others: Any = words.transform(plain[test])
        return model.predict(others.toarray())

    return _out_of_fold(predict, len(target), seed)


def _out_of_fold(predict: Predict, images: int, seed: int) -> np.ndarray:
    if images < 2 * FOLDS:
        raise ValueError(f"{images} images have a readable answer, but {2 * FOLDS} are needed. Fix: give more rows")
    folds, found = folds_of(images, seed), np.empty(images)
    for fold in range(FOLDS):
        test = np.flatnonzero(folds == fold)
        found[test] = predict(np.flatnonzero(folds != fold), test)
    return found


def stack(vectors: Mapping[str, Mapping[str, np.ndarray]], keys: Sequence[str], name: str) -> np.ndarray:
    """The vectors of one name of some images ``[N, D]``."""
    return np.stack([vectors[key][name] for key in keys])
