"""Which options a command line of ``data_prep/`` gives: one that would do nothing is rejected by name."""

import argparse
from collections.abc import Callable, Mapping, Sequence


def given_options(
    make: Callable[[], argparse.ArgumentParser], arguments: Sequence[str] | None = None
) -> frozenset[str]:
    """Names of the options that a command line gives, whatever their values.

    Args:
        make: makes the parser.
        arguments: the command line; None: that of the program.
    """
    names, not_given = vars(make().parse_args(arguments)), object()
    found = make().parse_args(arguments, argparse.Namespace(**dict.fromkeys(names, not_given)))
    return frozenset(name for name, value in vars(found).items() if value is not not_given)


def idle_option(given: frozenset[str], why: Mapping[str, str | None]) -> str | None:
    """What to say of the first option that was given and would do nothing; None: there is none.

    Args:
        given: of ``given_options``.
        why: by option, why it would do nothing, e.g. "with --data"; None: it does something.
    """
    for name, reason in why.items():
        if reason and name in given:
            return f"--{name.replace('_', '-')} has no effect {reason}. Fix: leave it out"
    return None
