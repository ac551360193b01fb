"""Check ports before something slow starts."""

import socket


def check_free(host: str, port: int) -> None:
    """Raise a ValueError if this machine cannot listen on the port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # like servers, so that a socket that was just closed does not count
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"cannot listen on {host}:{port} ({error.strerror}). Fix: choose another --port"
            ) from error
