"""Settings every test runs under."""

import os

import pytest

# Two test processes with a thread per core each wait for one another far longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

_ALONE = ("test_training", "test_serve")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With ``--dist loadgroup`` a file stays in one process, and a server does not wait for a training run beside it.

    These two, which take longest, come first, so that nothing is left to wait for at the end.
    """
    items.sort(key=lambda item: item.path.stem not in _ALONE)
    for item in items:
        item.add_marker(pytest.mark.xdist_group("alone" if item.path.stem in _ALONE else str(item.path)))
