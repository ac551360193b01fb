"""Decide which of two images is better. Both orders are asked, so position gives no advantage.

This is Q-Insight's zero-shot comparison (sec. 4.5), with or without a reference.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omniq_verl.data.images import BadImage
from omniq_verl.data.names import shown_name
from omniq_verl.generation.request import ERROR, Answer, Answered, Request, Sampling, seed_of
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.streaming import stream_answers
from omniq_verl.rewards.parsing import answer_of, reasoning_of
from omniq_verl.scoring.engine_owner import EngineOwner
from omniq_verl.scoring.image_inputs import digest_of, has_name, listed, load_source, name_of
from omniq_verl.scoring.scorer import BAD_IMAGE
from omniq_verl.tasks import CHOICES, comparison_task

ORDERS = ("AB", "BA")
_BOTH = re.compile(r"\bimages? (a\W+(and|or)\W+b|b\W+(and|or)\W+a)\b", re.IGNORECASE)
_NAME_FIRST = re.compile(r"\W*image ([ab])\s*([.,;:()]|$)", re.IGNORECASE)
_DENIES = re.compile(
    r"\b(not|cannot|never|no|nor|neither|worse|worst|inferior|lower|poorer|less|\w+n['\u2019]t)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Comparison:
    """Result for two images, asked in both orders.

    ``status`` is "ok" if each order has an answer that could be parsed; otherwise "unreadable", "bad_image" or "error",
    with ``error``. ``winner`` is "A", "B", or None if one order is undecided or the orders disagree, as they do when
    the model always prefers the first (or second) image.
    """

    a: str
    b: str
    status: str
    winner: str | None = None
    share_a: float | None = None
    """Share of the parsed answers for A, averaged over both orders."""
    share_first: float | None = None
    """Share of the parsed answers for the image shown first; 0.5 means no position bias."""
    agree: bool | None = None
    """Whether both orders choose the same image; None if one order is tied."""
    reasoning: tuple[str | None, ...] = ()
    """Reasoning of the first answer in each order. In these texts, "A" is the image shown first."""
    parsed: int = 0
    """Number of parsed answers over both orders."""
    answers: int = 0
    error: str | None = None


class Comparer(EngineOwner):
    """A reasoning model that compares images.

    ``close``, or the end of a ``with`` block, gives back the memory of its engine.

    Args:
        model: Hugging Face folder or name, or an ``EngineSpec`` that takes three images.
        engine: ``vllm``, ``hf``, ``openai`` or ``package.module:function``.
        max_tokens: maximum length of an answer.
        seed: seed of sampled answers.
        batch: pairs per call of an engine other than vLLM.
        allow_urls: fetch images over http and https.
        settings: further arguments of ``EngineSpec``.
    """

    def __init__(
        self,
        model: str | Path | EngineSpec,
        engine: str = "vllm",
        max_tokens: int = 1024,
        seed: int = 0,
        batch: int = 64,
        allow_urls: bool = False,
        **settings: Any,
    ):
        spec = model if isinstance(model, EngineSpec) else EngineSpec(str(model), engine, images=3, **settings)
        super().__init__(spec)
        self._max_tokens, self._seed, self._batch, self._allow_urls = max_tokens, seed, batch, allow_urls

    def compare(
        self, pairs: Iterable[tuple[Any, Any]], references: Iterable[Any] | None = None, samples: int = 1
    ) -> list[Comparison]:
        """Pick the better image of each pair.

        Args:
            pairs: pairs of images, of any type that ``Scorer.score`` accepts.
            references: for each pair, the low-quality image that both were made from.
            samples: answers per order; 1 decodes greedily.

        Raises:
            ValueError: the number of references differs from the number of pairs.
            TypeError: ``pairs`` is not a list, or one of them is not two images.
        """
        pairs, shown = paired(pairs, references)
        sampling = Sampling(samples, 1.0 if samples > 1 else 0.0, max_tokens=self._max_tokens)
        jobs = (
            partial(self._requests, pair, reference, samples > 1) for pair, reference in zip(pairs, shown, strict=True)
        )
        outcomes = stream_answers(self.engine, jobs, sampling, self._batch)
        names = ((name_of(a, 2 * number), name_of(b, 2 * number + 1)) for number, (a, b) in enumerate(pairs))
        return [_comparison(*named, outcome) for named, outcome in zip(names, outcomes, strict=True)]

    def _requests(self, pair: tuple[Any, Any], reference: Any, sampled: bool) -> list[Request]:
        """Build the requests for one pair. Runs in a thread.

        Raises:
            BadImage: an image is missing or rejected.
        """
        images = load_shown(*pair, reference, partial(load_source, allow_urls=self._allow_urls))
        return list(comparison_requests(*images, self._seed, sampled))


def _comparison(a: str, b: str, outcome: Answered) -> Comparison:
    if isinstance(outcome, BadImage):
        return Comparison(a, b, BAD_IMAGE, error=str(outcome))
    if isinstance(outcome, ValueError):
        raise outcome
    return combine_orders(a, b, *outcome)


def load_shown(a: Any, b: Any, reference: Any, load: Callable[[Any], bytes]) -> tuple[bytes, bytes, bytes | None]:
    """Load the images of a comparison with ``load``.

    Raises:
        BadImage: an image is rejected; the message says which.
    """

    def loaded(side: str, image: Any) -> bytes:
        try:
            return load(image)
        except BadImage as error:
            raise BadImage(f"{shown_name(image) if has_name(image) else side}: {error}") from None

    return loaded("A", a), loaded("B", b), None if reference is None else loaded("the reference", reference)


def paired(pairs: Iterable[Any], references: Iterable[Any] | None) -> tuple[list[tuple[Any, Any]], list[Any]]:
    """Return the pairs of images, and the reference (or None) for each.

    Raises:
        ValueError: the number of references differs from the number of pairs.
        TypeError: ``pairs`` is not a list, or a pair does not have two images.
    """
    found = [_pair(number, pair) for number, pair in enumerate(listed(pairs))]
    shown = [None] * len(found) if references is None else listed(references)
    if len(shown) != len(found):
        raise ValueError(f"{len(shown)} references for {len(found)} pairs; give one per pair, or none")
    return found, shown


def _pair(number: int, pair: Any) -> tuple[Any, Any]:
    try:
        a, b = listed(pair)
    except (TypeError, ValueError):
        raise TypeError(f"pairs[{number}]: expected two images, (a, b)") from None
    return a, b


def comparison_requests(
    a: bytes, b: bytes, reference: bytes | None, seed: int, sampled: bool = False
) -> Iterator[Request]:
    """Yield the requests about two images, in both orders; see ``digest_of`` for ``sampled``."""
    before = () if reference is None else (reference,)
    digests = {image: digest_of(image, sampled) for image in (*before, a, b)}
    for order, images in zip(ORDERS, ((a, b), (b, a)), strict=True):
        digest = "/".join(digests[image] for image in (*before, *images))
        messages = comparison_task(reference is not None).messages(None)
        yield Request(order, messages, (*before, *images), seed_of(digest, seed))


def read_choice(answer: Answer) -> str | None:
    """Return "first" or "second", whichever image an answer names; None if it names neither or both.

    In training, the answer must be the name alone. This function also accepts sentences such as "Image A is better" and
    ``{"answer": "Image A"}``, because it is used with models that were trained for other answer formats. Within a
    sentence the letter must be a capital: "the second image a bit" names no image. A sentence with a negation or a word
    like "worse" is rejected, unless it begins with the name and punctuation: "Image A, as it is not blurred".
    """
    if answer.finish_reason == ERROR:
        return None
    text = answer_of(answer.text)[1]
    named = {choice for name, choice in CHOICES.items() if _names(text, name.rsplit(" ", 1)[1])}
    if len(named) > 1 or _BOTH.search(text):
        return None
    if first := _NAME_FIRST.match(text):
        return CHOICES[f"image {first[1].lower()}"]
    return named.pop() if named and not _DENIES.search(text) else None


def _names(text: str, letter: str) -> bool:
    return bool(re.search(rf"\b(?i:image) {letter.upper()}\b|(?i:\bimage {letter}\W*$)", text))


def combine_orders(a: str, b: str, ab: Sequence[Answer], ba: Sequence[Answer]) -> Comparison:
    """Combine the answers of both orders into a result."""
    for answers in (ab, ba):
        if all(answer.finish_reason == ERROR for answer in answers):
            return Comparison(a, b, ERROR, answers=len(ab) + len(ba), error=answers[0].text)
    choices = [[choice for choice in map(read_choice, answers) if choice] for answers in (ab, ba)]
    about = {
        "reasoning": tuple(reasoning_of(answers[0].text) for answers in (ab, ba)),
        "parsed": sum(map(len, choices)),
        "answers": len(ab) + len(ba),
    }
    if not all(choices):
        why = f"no answer names one of the images when {'A' if not choices[0] else 'B'} is shown first"
        return Comparison(a, b, "unreadable", error=why, **about)
    first = [sum(choice == "first" for choice in some) / len(some) for some in choices]
    for_a = [first[0], 1 - first[1]]
    better = [share > 0.5 for share in for_a]
    agree = None if 0.5 in for_a else better[0] == better[1]
    winner = ("A" if better[0] else "B") if agree else None
    return Comparison(a, b, "ok", winner, sum(for_a) / 2, sum(first) / 2, agree, **about)
