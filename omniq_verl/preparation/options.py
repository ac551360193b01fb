"""Reject options of a ``data_prep/`` command line that have no effect."""

import argparse
from collections.abc import Callable, Mapping, Sequence


def given_options(
    make: Callable[[], argparse.ArgumentParser], arguments: Sequence[str] | None = None
) -> frozenset[str]:
    """Return the names of the options on a command line, including those set to their default.

    Args:
        make: creates the parser.
        arguments: the command line; None uses the program's own.
    """
    names, not_given = vars(make().parse_args(arguments)), object()
    found = make().parse_args(arguments, argparse.Namespace(**dict.fromkeys(names, not_given)))
    return frozenset(name for name, value in vars(found).items() if value is not not_given)


def idle_option(given: frozenset[str], why: Mapping[str, str | None]) -> str | None:
    """Return the error message for the first given option that has no effect; None if there is none.

    Args:
        given: the result of ``given_options``.
        why: for each option, why it has no effect, e.g. "with --data"; None if it has one.
    """
    for name, reason in why.items():
        if reason and name in given:
            return f"--{name.replace('_', '-')} has no effect {reason}. Fix: leave it out"
    return None
