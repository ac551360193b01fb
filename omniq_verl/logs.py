"""What the libraries below say on their own: hidden from those who run commands, unless they ask for it."""

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
    """To be called by commands before they import vLLM or transformers, which read these variables as they start.

    Args:
        verbose: let them say what they like. Variables that the user has set stay in either case.
    """
    for name, value in (_VERBOSE if verbose else _QUIET).items():
        os.environ.setdefault(name, value)
    if not verbose and not _set_up:
        _set_up.append(True)
        atexit.register(_silence)  # the first to be registered is the last to run


def _silence() -> None:
    """Hide what compiled modules write as the interpreter ends: Triton's nanobind lists some 80 "leaked" objects."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
