"""The language model's vectors for an image and for its reasoning, and ridge regressions on them."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from omniq_verl.findings.reader import Read, Reader

FOLDS = 5
ALPHAS = np.logspace(-3, 4, 15)
"""Strengths of the ridge penalty that are tried within the training folds. Our choice."""
Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Takes the indices of the images to fit to and of those to predict; returns the predictions."""
_NUMBER = re.compile(r"[0-9]+(?:[.,][0-9]+)?")


@torch.inference_mode()
def token_features(reader: Reader, read: Read, layer: int = -1) -> dict[str, np.ndarray]:
    """Return mean vectors over tokens of a question and its answer, float32 ``[D]`` each.

    Args:
        reader: the model.
        read: question and answer.
        layer: layer of the hidden states for ``visual_late`` and ``reasoning``: 0 is the input of the language model,
            -1 its output.

    Returns:
        ``visual``: the image's tokens as the vision tower passes them to the language model. ``visual_late``: the same
        tokens at ``layer``. ``reasoning``: the reasoning's tokens at ``layer``.
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
    """Return the text without its numbers, which would give away the score."""
    return _NUMBER.sub(" ", text)


def has_number(text: str) -> bool:
    """Return whether the text contains a number."""
    return _NUMBER.search(text) is not None


def folds_of(images: int, seed: int = 0) -> np.ndarray:
    """Return a random fold for each image ``[N]``, from 0 to ``FOLDS`` - 1. The folds have equal sizes."""
    folds = np.arange(images) % FOLDS
    np.random.default_rng(seed).shuffle(folds)
    return folds


def ridge_predictions(vectors: np.ndarray, target: np.ndarray, seed: int = 0) -> np.ndarray:
    """Predict the score of each image with a ridge regression that was fitted to the other folds ``[N]``.

    Each training part standardises the features and chooses the penalty (by leave-one-out) on its own images only.

    Args:
        vectors: ``[N, D]``.
        target: labels ``[N]``.
        seed: seed of the folds.

    Raises:
        ValueError: there are fewer than two images per fold.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        model = make_pipeline(StandardScaler(), RidgeCV(ALPHAS)).fit(vectors[train], target[train])
        return model.predict(vectors[test])

    return _out_of_fold(predict, len(target), seed)


def ridge_on_texts(texts: Sequence[str], target: np.ndarray, seed: int = 0) -> np.ndarray:
    """Predict scores like ``ridge_predictions``, from words and word pairs (tf-idf) of texts without their numbers.

    The vocabulary comes from the training part only.

    Args:
        texts: ``[N]``.
        target: labels ``[N]``.
        seed: seed of the folds.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import RidgeCV

    plain = np.array([without_numbers(text) for text in texts], dtype=object)

    def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", max_features=20_000)
        try:
            known: Any = words.fit_transform(plain[train])  # a sparse matrix; scikit-learn declares no types
        except ValueError:  # no text contains a word
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
    """Stack the vectors called ``name`` of the given images ``[N, D]``."""
    return np.stack([vectors[key][name] for key in keys])
