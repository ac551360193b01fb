"""Compares what the package uses with a recording of what a set of pinned packages offers."""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from surface.resolve import ABSENT, MODULE, UNKNOWN, UNREADABLE, VALUE
from surface.usage import Call, Use

SETS = ("cpu", "gpu")
LOST = "lost"
"""Recorded where an earlier recording had a method that our class overrides or calls, and upstream has removed it."""

Names = Mapping[str, str | None]


def recording(name: str) -> dict:
    """The recording of ``cpu`` or ``gpu``: its ``versions`` by distribution, and ``names``: name -> description."""
    return json.loads(file_of(name).read_text())


def file_of(name: str) -> Path:
    return Path(__file__).with_name(f"{name}.json")


def problems(uses: Iterable[Use], names: Names, allowed: Mapping[str, str]) -> list[str]:
    """What would fail at run time, one line each, beginning with the place in our source.

    Args:
        uses: of the package.
        names: of the recording.
        allowed: names that this set need not have, and keywords that a function need not take (``name(keyword)``),
            each with the reason.
    """
    found = []
    for use in uses:
        if use.name not in allowed and (problem := _problem(_without(use, allowed), names)):
            found.append(f"{use.where}: {problem}")
    return list(dict.fromkeys(found))


def _without(use: Use, allowed: Mapping[str, str]) -> Use:
    """The use without the keywords that are allowed to be missing."""
    if use.call is None:
        return use
    keywords = tuple(key for key in use.call.keywords if f"{use.name}({key})" not in allowed)
    return replace(use, call=replace(use.call, keywords=keywords))


def _problem(use: Use, names: Names) -> str | None:
    if use.name not in names:
        return f"{use.name} is not in the recording. Renew it: make surface"
    described = names[use.name]
    if described == LOST:
        return f"{use.name} is no longer there, and our class overrides or calls it"
    if described is ABSENT:
        return None if use.ours else f"{use.name} does not exist"
    if described in (MODULE, UNKNOWN, UNREADABLE, VALUE):
        return None
    if use.method is not None and (problem := override_problem(use.method, described)):
        return f"{use.name}({described}) is overridden by ({use.method}): {problem}"
    if use.call is not None and (problem := call_problem(use.call, described)):
        return f"{use.name}({described}): {problem}"
    return None


def call_problem(call: Call, parameters: str) -> str | None:
    """Why a function with these parameters rejects the call; None if it accepts it."""
    signature = signature_of(parameters)
    bind = signature.bind_partial if call.open else signature.bind
    return _error(bind, [None] * call.positional, dict.fromkeys(call.keywords))


def override_problem(ours: str, upstream: str) -> str | None:
    """Why our method rejects a call that the upstream method accepts; None if it accepts them.

    All of upstream's parameters are passed by name. They are passed by position as well, unless our method ends in
    ``**kwargs``: such a method counts on upstream's habit of calling it with names.
    """
    theirs, signature = signature_of(upstream).parameters.values(), signature_of(ours)
    open_ended = any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in theirs)
    bind = signature.bind_partial if open_ended else signature.bind
    first = [one for one in theirs if one.kind is one.POSITIONAL_ONLY]
    either = [one for one in theirs if one.kind is one.POSITIONAL_OR_KEYWORD]
    named = {one.name: None for one in theirs if one.kind is one.KEYWORD_ONLY}
    problem = _error(bind, first, {**{one.name: None for one in either}, **named})
    if problem or any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values()):
        return problem
    return _error(bind, first + either, named)


def signature_of(parameters: str) -> inspect.Signature:
    """The signature with this parameter list, as Python itself reads it."""
    return inspect.signature(eval(f"lambda {parameters}: None"))


def _error(bind: Callable[..., object], positional: list, keywords: dict) -> str | None:
    try:
        bind(*positional, **keywords)
    except TypeError as error:
        return str(error)
    return None
