"""Valid inputs -> broken and hostile ones, the same for the same random generator."""

import json
import struct
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Files = dict[str, bytes]
"""One input: the contents of its files by their names."""

NUMBERS = (0, 1, 2, 10, 11, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63)
TEXTS = (
    *("", " ", "\n", "\r\n", "\r", "\t", "\0", "\ufeff", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\u00a0"),
    *(
        "\u200b",
        "\u202e",
        "e\u0301",
        "\u00e9",
        "\U0001f600",
        "\ud800",
        "\x1b[2J",
        "\x7f",
        "\ufffd",
        "\uffff",
        "\u0131",
        "\u0130",
    ),
    *('"', "'", ",", ";", "\\", "/", "{", "}", "[", "]", "<", ">", "%s", "{0}", "{text}", "$HOME", "`id`", "#", "=1+1"),
    *(
        "nan",
        "NaN",
        "inf",
        "-Infinity",
        "1e999",
        "-1e999",
        "1e-400",
        "-0",
        "0x10",
        "1_000",
        "1,5",
        "٣",
        "9" * 400,
        "None",
    ),
    *(
        "null",
        "true",
        "-1",
        "0",
        "1",
        "3.5",
        "100",
        "100.0000001",
        "1e2",
        "../../etc/passwd",
        "/etc/passwd",
        "~",
        "a" * 5000,
    ),
    *("<image>", "<video>", "<|image_pad|>", "<|vision_start|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    *("<think>", "</think>", "<answer>", "</answer>", "<answer>3</answer>", "data:image/png;base64,", "http://x/y"),
    *("[" * 3000, '{"a":' * 3000, "(" * 500),
)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        3.5,
        1e308,
        -(10**40),
        2**64,
        float("nan"),
        float("inf"),
        "",
        "x",
        [],
        {},
        [[]],
        [None],
    ),
    *({"": ""}, {"a": [1, {"b": None}]}, [0] * 300, *TEXTS[:30], "a" * 20_000),
)


def mutated(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A file after one to eight changes of its bytes."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        data = rng.choice(_BYTES)(rng, data, others)
    return data


def _flip(rng: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    if not data:
        return data
    ref = _early(rng, len(data))
    return data[:ref] + bytes([data[ref] ^ (1 << rng.randrange(8))]) + data[ref + 1 :]


def _byte(rng: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    ref = _early(rng, len(data) + 1)
    return data[:ref] + bytes([rng.choice((0, 1, 10, 34, 127, 128, 255, rng.randrange(256)))]) + data[ref + 1 :]


def _number(rng: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """A field of a head, most likely, as a size that it is not."""
    form = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
    field = struct.pack(form, rng.choice(NUMBERS) % 256 ** struct.calcsize(form))
    ref = _early(rng, len(data) + 1)
    return data[:ref] + field + data[ref + len(field) :]


def _cut(rng: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _drop(rng: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = _early(rng, len(data) + 1)
    return data[:start] + data[start + rng.choice((1, 2, 4, 16, 100)) :]


def _double(rng: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = _early(rng, len(data) + 1)
    part = data[start : start + rng.choice((1, 4, 16, 200))]
    return data[:start] + part * rng.choice((2, 2, 3, 20)) + data[start + len(part) :]


def _insert(rng: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    ref = _early(rng, len(data) + 1)
    return data[:ref] + rng.randbytes(rng.choice((1, 2, 8, 64))) + data[ref:]


def _zeros(rng: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    length = rng.choice((4, 64, 1000))
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def _splice(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others) if others else data
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


_BYTES: tuple[Callable[[Random, bytes, Sequence[bytes]], bytes], ...] = (
    *(_flip, _flip, _byte, _byte, _number, _number, _number, _cut, _drop, _double, _insert, _zeros, _splice),
)


def _early(rng: Random, length: int) -> int:
    """A place, more often near the beginning, where formats have their heads."""
    most = length if rng.random() < 0.5 else min(length, 64)
    return rng.randrange(max(most, 1))


def with_checksums(data: bytes) -> bytes:
    """A PNG whose checksums are right again, so that what was changed is looked at."""
    position, made = 8, bytearray(data)
    while position + 12 <= len(made):
        end = position + 12 + int.from_bytes(made[position : position + 4], "big")
        if end > len(made):
            break
        made[end - 4 : end] = struct.pack(">I", zlib.crc32(bytes(made[position + 4 : end - 4])))
        position = end
    return bytes(made)


def mutated_text(rng: Random, text: str) -> str:
    """A text after one to five insertions, losses and exchanges."""
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        ref = rng.randrange(len(text) + 1)
        length = rng.choice((0, 0, 1, 5, 40))
        text = text[:ref] + rng.choice(TEXTS) + text[ref + length :]
    return text


def encoded(rng: Random, text: str) -> bytes:
    """A text as some program may have saved it."""
    coding = rng.choice(("utf-8",) * 30 + ("utf-8-sig", "utf-16", "latin-1", "cp1252", "utf-32"))
    errors = "surrogatepass" if coding.startswith("utf") else "replace"
    data = text.encode(coding, errors)
    return mutated(rng, data) if rng.random() < 0.15 else data


def mutated_json(rng: Random, value: Any) -> Any:
    """A JSON value with one to three parts exchanged for others, lost or doubled."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _exchanged(rng, value)
    return value


def _exchanged(rng: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(sorted(value))
        fate = rng.random()
        if fate < 0.1:
            return {name: one for name, one in value.items() if name != key}
        if fate < 0.2:
            return {**value, rng.choice(TEXTS): rng.choice(VALUES)}
        return {**value, key: _exchanged(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.85:
        ref = rng.randrange(len(value))
        return [*value[:ref], _exchanged(rng, value[ref]), *value[ref + rng.randrange(2) :]]
    if isinstance(value, str) and rng.random() < 0.5:
        return mutated_text(rng, value)
    return rng.choice(VALUES)


def json_bytes(rng: Random, value: Any) -> bytes:
    """JSON, sometimes broken as a text."""
    data = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return mutated(rng, data) if rng.random() < 0.25 else data
