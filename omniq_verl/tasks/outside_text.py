"""The rule for external text that becomes part of a question: it must not contain control tokens.

A prompt, a caption or a plan is inserted into a question and tokenised with it. Inside the question, ``<|im_end|>``
would end the turn, ``<|image_pad|>`` would stand for an image that does not exist, and verl would split the prompt at
``<image>``. Such a text is rejected with an error that names the token; it is never changed.

Without a tokenizer the rule is fixed and rejects:

- any ``<|...|>`` of up to 64 characters on one line, also with DeepSeek's full-width bars. There must be nothing
  between bracket and bar, and no blank next to a bar on the inside, so "a < b | c > d" and "<| x |>" are ordinary text;
- the tokens in ``_NAMED``, case-sensitive: ``<image>`` is one of them, but ``<Image>`` and ``<an image>`` are not;
- both of these in the text's compatibility form (NFKC), too, because some tokenizers treat full-width letters as plain
  ones.

With a tokenizer or processor, its special tokens and its image, video and audio tokens are rejected too. The text is
also tokenised and its token ids are checked, so no spelling can get past the check through the tokenizer's
normalisation.

``<think>``, ``</think>``, ``<answer>`` and ``</answer>`` are always allowed: this package's own questions contain them,
and they do not end a turn. Special tokens that are ordinary text are allowed too, such as the "!" with which some text
encoders pad.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

IMAGE_PLACEHOLDER = "<image>"
"""Marks the position of an image in a question's messages."""
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
"""A lone UTF-16 surrogate; JSON can contain one, but no tokenizer can read it."""
FIX = "remove it or rephrase the text"
"""Fix for a forbidden text, for error messages."""
_ROUND = str.maketrans("<>\uff1c\uff1e\ufe64\ufe65", "()()()")
_ALL_ROUND = str.maketrans("[]\uff3b\uff3d", "()()")


class ForbiddenText(ValueError):
    """An external text must not become part of a question; the message names what it contains."""


def forbidden_tokens(text: str, processor: Any = None) -> list[str]:
    """Return the distinct control tokens in an external text; empty if there are none.

    Args:
        text: a prompt, caption or plan, not a whole question: ``<image>`` counts too.
        processor: transformers processor or tokenizer whose tokens are also checked; None: only the fixed rule.
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
    """Return what is wrong with an external text, as a phrase that begins with a verb; None if nothing is wrong.

    Args:
        text: see ``forbidden_tokens``.
        processor: see ``forbidden_tokens``.
    """
    if _HALF_CHARACTER.search(text):
        return "contains half a character (a lone surrogate), which cannot be saved or tokenised"
    if found := forbidden_tokens(text, processor):
        return f"contains {', '.join(found[:3])}, which models read as a control token, not as text"
    return None


def check_text(text: str, name: str = "the text", processor: Any = None) -> None:
    """Raise an error if an external text must not become part of a question.

    Args:
        text: see ``forbidden_tokens``.
        name: name of the text in the error, such as "the prompt" or "prompts.txt, line 3".
        processor: see ``forbidden_tokens``.

    Raises:
        ForbiddenText: the text contains a control token or half a character.
    """
    if fault := text_fault(text, processor):
        raise ForbiddenText(f"{name} {fault}. Fix: {FIX}")


def harmless(text: str) -> str:
    """Make a model's text safe to quote in a question: angle brackets become round ones.

    Otherwise tags and tokens in a plan or a critique would lose the row or stop the run. Nobody needs them literally.
    Square brackets change only if the text contains a control token. The text is stripped.
    """
    text = text.encode(errors="replace").decode().translate(_ROUND)
    return (text.translate(_ALL_ROUND) if forbidden_tokens(text) else text).strip()


def messages_fault(messages: Iterable[Mapping[str, Any]], images: int | None, processor: Any = None) -> str | None:
    """Return what is wrong with a question, given as a row's ``prompt``; None if nothing is wrong.

    Args:
        messages: turns with ``role`` and ``content``; each ``<image>`` marks an image.
        images: number of images; None: the number is not checked.
        processor: see ``forbidden_tokens``.
    """
    messages = list(messages)
    shown = sum(turn["content"].count(IMAGE_PLACEHOLDER) for turn in messages)
    if images is not None and shown != images:
        return f"the question contains {IMAGE_PLACEHOLDER} {shown} times, but there are {images} images"
    for turn in messages:
        # Remove the placeholders: some templates put all images first, which joins the text on both sides of one.
        for text in (turn["role"], turn["content"].replace(IMAGE_PLACEHOLDER, "")):
            if fault := text_fault(text, processor):
                return f"the question {fault}"
    return None


class ControlTokens:
    """The control tokens of a tokenizer.

    Args:
        processor: transformers processor or tokenizer.
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
        """Tokens by id. A token used only for unknown characters is excluded, because it can occur in any text."""
        self._lock = Lock()  # Hugging Face tokenizers fail if two threads change their padding at once

    def within(self, text: str) -> Iterator[str]:
        """Yield the control tokens in a text, found by spelling and by token id."""
        yield from (match.group() for match in self._pattern.finditer(text))
        yield from self.sequence(text)

    def sequence(self, text: str) -> list[str]:
        """Return the control tokens in a text as the tokenizer splits it, in order."""
        with self._lock:
            ids: Sequence[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [self.ids[number] for number in ids if number in self.ids]


_KNOWN: "WeakKeyDictionary[Any, ControlTokens]" = WeakKeyDictionary()


def control_tokens(processor: Any) -> ControlTokens:
    """Return the control tokens of a processor or tokenizer, cached per object."""
    with suppress(KeyError, TypeError):  # TypeError: the object is not hashable
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
    """Yield tokens in attributes such as ``image_token``, which processors replace by images."""
    for name, value in getattr(owner, "__dict__", {}).items():
        if name.endswith(("_token", "_image_tag")) and value is not None:
            yield str(value)


def _unknown(tokenizer: Any) -> str | None:
    unknown = getattr(tokenizer, "unk_token", None)
    return None if unknown == getattr(tokenizer, "eos_token", None) else unknown


def _counts(token: str) -> bool:
    return len(token) > 1 and not token.isalnum() and bool(token.strip()) and token not in OWN_WORDS
