"""Addresses of servers: what is one, which lead to this machine, and which go through a proxy."""

from ipaddress import ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def checked_address(url: str, example: str) -> str:
    """An address without white space around it and without slashes at its end.

    Args:
        url: as the user wrote it.
        example: an address of the expected form, for the error.

    Raises:
        ValueError: it is no http or https address with a host.
    """
    found = url.strip().rstrip("/")
    try:
        parts = urlsplit(found)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, or half of an IPv6 address
        sound = False
    if not sound or any(character.isspace() for character in found):
        raise ValueError(f"{url!r} is no address of a server. Fix: write it as {example}")
    return found


def is_loopback(url: str) -> bool:
    """Whether an address leads to this machine, where no proxy is of use: another machine would call itself."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def proxy_of(url: str) -> str | None:
    """The proxy through which an address is reached, by the environment (``http_proxy``); None: there is none."""
    parts = urlsplit(url)
    if is_loopback(url) or proxy_bypass(parts.netloc):
        return None
    found = getproxies()
    return found.get(parts.scheme) or found.get("all")


def proxy_hint(url: str) -> str:
    """What to do if a proxy is to blame, as an addition to a fix; empty without a proxy."""
    if proxy_of(url) is None:
        return ""
    host = urlsplit(url).hostname
    return f"; it is reached by a proxy ({urlsplit(url).scheme}_proxy): if it should not be, set no_proxy={host}"


def checked_key(key: str, source: str) -> str:
    """An API key without white space around it, such as the line end of the file that it was read from.

    Args:
        key: as it was given.
        source: where it comes from, for the error.

    Raises:
        ValueError: it has characters that a header of HTTP cannot carry; the message does not quote it.
    """
    found = key.strip()
    if not found.isascii() or not found.isprintable():
        raise ValueError(f"{source} has characters that no HTTP header can carry. Fix: use a key of ASCII characters")
    return found
