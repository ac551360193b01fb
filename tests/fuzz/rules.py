"""What every answer to a hostile input has to be."""


class Wrong(AssertionError):
    """An answer that is none, or a wrong one."""


def check(true: bool, what: str) -> None:
    """Raise ``Wrong`` unless it is true."""
    if not true:
        raise Wrong(what)


def one_line(error: BaseException, most: int = 20_000) -> str:
    """A rejection's text: one line, not empty, of bounded length.

    Raises:
        Wrong: it is none.
    """
    text = str(error)
    check(bool(text.strip()), f"a rejection without a reason: {error!r}")
    check("Traceback" not in text and len(text) <= most, f"no reason for a reader: {text[:300]!r}")
    return text
