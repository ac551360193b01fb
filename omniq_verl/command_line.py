"""Commands that accept each option only once and know which options were given.

Exit codes of all commands: 0, success. 1: an input cannot be used (a file, a row, a model, an image), or there is no
result. 2: the command line itself is wrong (an unknown option, one given twice, or one without effect).
"""

from collections import Counter
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption

_GIVEN: ContextVar[frozenset[str]] = ContextVar("given", default=frozenset())


class StrictCommand(TyperCommand):
    """A command that rejects repeated options unless they are lists. Without this, the last one would silently win."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse like typer, and remember which parameters were given.

        Raises:
            BadParameter: an option is given twice.
        """
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for option, times in Counter(given).items():
            if times > 1 and isinstance(option, TyperOption) and not option.multiple and not option.count:
                message = f"it is given {times} times, but takes one value. Fix: give it once"
                raise typer.BadParameter(message, ctx=ctx, param=option)
        _GIVEN.set(frozenset(option.name for option in given))
        return super().parse_args(ctx, args)


def make_strict(app: typer.Typer) -> None:
    """Make every command of an application and its groups a ``StrictCommand``."""
    for command in app.registered_commands:
        command.cls = StrictCommand
    for group in app.registered_groups:
        if group.typer_instance is not None:
            make_strict(group.typer_instance)


def reject_idle(why: Mapping[str, str | None]) -> None:
    """Reject options that were given but have no effect.

    Args:
        why: the reason by parameter name, e.g. "with one greedy answer"; None if the option has an effect.

    Raises:
        BadParameter: one of the options was given; the message names it.
    """
    for name, reason in why.items():
        if reason and name in _GIVEN.get():
            raise typer.BadParameter(f"--{name.replace('_', '-')} has no effect {reason}. Fix: leave it out")
