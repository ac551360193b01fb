"""Hide the log output of libraries from users of commands, unless they ask for it."""

import atexit
import os
import sys

_QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
_VERBOSE = {"VLLM_LOGGING_LEVEL": "INFO", "TRANSFORMERS_VERBOSITY": "info"}
_set_up: list[bool] = []


def set_up_logs(verbose: bool) -> None:
    """Set log levels. Commands call this before they import vLLM or transformers, which read the variables on import.

    Args:
        verbose: whether to show the libraries' logs. Variables that the user has set are not changed.
    """
    for name, value in (_VERBOSE if verbose else _QUIET).items():
        os.environ.setdefault(name, value)
    if not verbose and not _set_up:
        _set_up.append(True)
        atexit.register(_silence)  # registered first, so that it runs last


def _silence() -> None:
    """Hide output of compiled modules at exit: Triton's nanobind lists some 80 "leaked" objects."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
