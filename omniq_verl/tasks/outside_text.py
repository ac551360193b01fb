"""One rule for every text that comes from outside and goes into a question: it must not contain control tokens.

A prompt, a caption or a plan is put between the words of a question, and the whole is tokenised at once. There
``<|im_end|>`` ends the turn, ``<|image_pad|>`` stands for an image that is not there, and verl cuts a prompt at every
``<image>``. Such a text is rejected by name, never changed.

Without a tokenizer the rule is fixed:

- any ``<|...|>`` of up to 64 characters on one line, and the same with DeepSeek's wide bars. Nothing may stand between
  the bracket and the bar, and no blank next to a bar inside, so that "a < b | c > d" and "<| x |>" are ordinary text;
- the tokens in ``_NAMED``, letter for letter: ``<image>`` is one of them, ``<Image>`` and ``<an image>`` are not;
- both also in the text's compatibility form (NFKC), as some tokenizers read wide letters like plain ones.

With a tokenizer or processor, every token counts as well that it calls special or takes for an image, a video or a
sound, and the text's token ids are looked at, so that no spelling gets past its normalisation.

``<think>``, ``</think>``, ``<answer>`` and ``</answer>`` never count: this package's own questions contain them, and
they end no turn. Of a tokenizer's special tokens those do not count that are ordinary text, such as the "!" with which
some text encoders pad.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

IMAGE_PLACEHOLDER = "<image>"
"""Stands for an image in the messages of a question."""
OWN_WORDS = frozenset(("<think>", "</think>", "<answer>", "</answer>"))
_NAMED = (
    r"<(?:image|video|audio)>",  # verl's placeholders
    r"</?(?:img|ref|box|quad|slice|image_id|IMG_CONTEXT)>|</(?:image|video|audio)>",  # InternVL, Qwen-VL, MiniCPM-V
    r"</?s>|<(?:unk|pad|bos|eos|mask|cls|sep|sop|eop)>|<(?:BOS|EOS|PAD|UNK)_TOKEN>",  # Llama, Gemma, ChatGLM, Cohere
    r"<(?:start|end)_of_(?:turn|image|video|audio)>|<(?:image|video|audio)_soft_token>|<unused\d+>",  # Gemma
    r"<begin_of_(?:turn|image|video|audio)>|<end_of_utterance>|<(?:fake_token_around_image|global-img)>",  # Idefics
    r"<row_\d+_col_\d+>|<image_(?:placeholder|token|pad|start|end|newline)>",  # Idefics, Janus
    r"<im_(?:start|end|patch|col|newline)>|<loc\d{4}>|<seg\d{3}>|<extra_id_\d+>|<SPECIAL_\d+>",  # LLaVA, PaliGemma, T5
    r"<</?SYS>>|\[/?INST\]|\[IMG(?:_BREAK|_END)?\]|\[/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS)\]",  # Mistral
    r"\[TOOL_CALLS\]|\[[gs]MASK\]|\[UNUSED_TOKEN_\d+\]",  # Mistral, ChatGLM, InternLM
)
_BARRED = r"<[|\uff5c](?! )[^<>|\uff5c\r\n]{1,64}(?<! )[|\uff5c]>"
_FIXED = re.compile("|".join((_BARRED, *_NAMED)))
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
"""Half of a pair that stands for one letter; JSON can name one alone, and no tokenizer can read it."""
FIX = "take it out, or say it in other words"
"""How to fix a text that must not go into a question, for errors."""
_ROUND = str.maketrans("<>\uff1c\uff1e\ufe64\ufe65", "()()()")
_ALL_ROUND = str.maketrans("[]\uff3b\uff3d", "()()")


class ForbiddenText(ValueError):
    """A text from outside that must not go into a question; the message names what is in it."""


def forbidden_tokens(text: str, processor: Any = None) -> list[str]:
    """The control tokens in a text that comes from outside, each once; empty if there is none.

    Args:
        text: a prompt, caption or plan, not a whole question: ``<image>`` counts, too.
        processor: processor or tokenizer of transformers whose tokens count as well; None: the fixed rule alone.
    """
    found = dict.fromkeys(match.group() for one in _spellings(text) for match in _FIXED.finditer(one))
    if processor is not None:
        found |= dict.fromkeys(control_tokens(processor).within(text))
    return list(found)


def _spellings(text: str) -> Iterator[str]:
    yield text
    if not text.isascii() and (plain := unicodedata.normalize("NFKC", text)) != text:
        yield plain


def text_fault(text: str, processor: Any = None) -> str | None:
    """What is wrong with a text from outside, in words that begin with a verb; None: nothing.

    Args:
        text: as for ``forbidden_tokens``.
        processor: likewise.
    """
    if _HALF_CHARACTER.search(text):
        return "holds half a character, which no file can keep and no tokenizer can read"
    if found := forbidden_tokens(text, processor):
        return f"contains {', '.join(found[:3])}, which models take for a control token and not for text"
    return None


def check_text(text: str, name: str = "the text", processor: Any = None) -> None:
    """Reject a text from outside that must not go into a question.

    Args:
        text: as for ``forbidden_tokens``.
        name: how the error calls it, such as "the prompt" or "prompts.txt, line 3".
        processor: as for ``forbidden_tokens``.

    Raises:
        ForbiddenText: it contains a control token, or half a character.
    """
    if fault := text_fault(text, processor):
        raise ForbiddenText(f"{name} {fault}. Fix: {FIX}")


def harmless(text: str) -> str:
    """A text that a model wrote, as it is quoted in a question to a model: angle brackets become round ones.

    So tags and tokens in a plan or a critic's words cost neither the row nor the run; nobody reads them literally.
    Square brackets change only where one is part of a token. The text is stripped.
    """
    text = text.encode(errors="replace").decode().translate(_ROUND)
    return (text.translate(_ALL_ROUND) if forbidden_tokens(text) else text).strip()


def messages_fault(messages: Iterable[Mapping[str, Any]], images: int | None, processor: Any = None) -> str | None:
    """What is wrong with a question, as a row's ``prompt`` has it; None: nothing.

    Args:
        messages: turns with ``role`` and ``content``; each ``<image>`` stands for an image.
        images: how many images there are; None: not compared.
        processor: as for ``forbidden_tokens``.
    """
    messages = list(messages)
    shown = sum(turn["content"].count(IMAGE_PLACEHOLDER) for turn in messages)
    if images is not None and shown != images:
        return f"the question has {shown} times {IMAGE_PLACEHOLDER}, and {images} images"
    for turn in messages:
        # Without its placeholders, as some templates put all images first: what is beside one then stands together.
        for text in (turn["role"], turn["content"].replace(IMAGE_PLACEHOLDER, "")):
            if fault := text_fault(text, processor):
                return f"the question {fault}"
    return None


class ControlTokens:
    """The control tokens of one tokenizer.

    Args:
        processor: processor or tokenizer of transformers.
    """

    def __init__(self, processor: Any):
        self.tokenizer = getattr(processor, "tokenizer", processor)
        named = {*_special(self.tokenizer), *_media(processor), *_media(self.tokenizer)}
        vocabulary = self.tokenizer.get_vocab()
        added = [token for token in map(str, _added(self.tokenizer).values()) if _FIXED.fullmatch(token)]
        self.tokens = sorted({token for token in (*named, *added) if _counts(token)}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self.tokens)) or "(?!)")
        unknown = _unknown(self.tokenizer)
        self.ids = {vocabulary[one]: one for one in self.tokens if one in vocabulary and one != unknown}
        """By their numbers. A token for unknown letters alone is not among them: it stands in any text."""
        self._lock = Lock()  # tokenizers of Hugging Face fail if two threads change their padding at once

    def within(self, text: str) -> Iterator[str]:
        """Those in a text, by its letters and by its token ids."""
        yield from (match.group() for match in self._pattern.finditer(text))
        yield from self.sequence(text)

    def sequence(self, text: str) -> list[str]:
        """Those in a text as the tokenizer reads it, in their order."""
        with self._lock:
            ids: Sequence[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [self.ids[number] for number in ids if number in self.ids]


_KNOWN: "WeakKeyDictionary[Any, ControlTokens]" = WeakKeyDictionary()


def control_tokens(processor: Any) -> ControlTokens:
    """The control tokens of a processor or tokenizer; of each they are looked up once."""
    with suppress(KeyError, TypeError):  # TypeError: an object that cannot be a key
        return _KNOWN[processor]
    found = ControlTokens(processor)
    with suppress(TypeError):
        _KNOWN[processor] = found
    return found


def _special(tokenizer: Any) -> Iterator[str]:
    yield from map(str, tokenizer.all_special_tokens)
    yield from (str(token) for token in _added(tokenizer).values() if getattr(token, "special", False))


def _added(tokenizer: Any) -> Mapping[int, Any]:
    return getattr(tokenizer, "added_tokens_decoder", {})


def _media(owner: Any) -> Iterator[str]:
    """Tokens in attributes such as ``image_token``, which processors put images in place of."""
    for name, value in getattr(owner, "__dict__", {}).items():
        if name.endswith(("_token", "_image_tag")) and value is not None:
            yield str(value)


def _unknown(tokenizer: Any) -> str | None:
    unknown = getattr(tokenizer, "unk_token", None)
    return None if unknown == getattr(tokenizer, "eos_token", None) else unknown


def _counts(token: str) -> bool:
    return len(token) > 1 and not token.isalnum() and bool(token.strip()) and token not in OWN_WORDS
