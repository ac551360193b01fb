"""Tasks by name: this package's own, those of installed packages, and ``package.module:object``.

Nothing is registered at run time, so a name means the same task in every process, whatever was imported before.
"""

import hashlib
import logging
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from omniq_verl.object_reference import FORM, BadReference, is_reference, load_object
from omniq_verl.tasks.authors_code import CODE_TASKS
from omniq_verl.tasks.labels import shown
from omniq_verl.tasks.omniquality_r import AESTHETIC, ALIGNMENT, DEGRADATION, TECHNICAL
from omniq_verl.tasks.q_insight import (
    Q_INSIGHT_COMPARISON,
    Q_INSIGHT_COMPARISON_REFERENCE,
    Q_INSIGHT_DEGRADATION,
    Q_INSIGHT_SCORE,
)
from omniq_verl.tasks.task import Task
from omniq_verl.tasks.without_reasoning import (
    AESTHETIC_DIRECT,
    ALIGNMENT_DIRECT,
    Q_INSIGHT_SCORE_DIRECT,
    TECHNICAL_DIRECT,
)

GROUP = "omniq_verl.tasks"
"""Group of the entry points that name the tasks of installed packages."""
EXPECTED = "an object of omniq_verl.tasks.Task"
TASKS = {
    task.name: task
    for task in (
        *(TECHNICAL, AESTHETIC, ALIGNMENT, DEGRADATION),
        *(Q_INSIGHT_SCORE, Q_INSIGHT_DEGRADATION, Q_INSIGHT_COMPARISON, Q_INSIGHT_COMPARISON_REFERENCE),
        *(TECHNICAL_DIRECT, AESTHETIC_DIRECT, ALIGNMENT_DIRECT, Q_INSIGHT_SCORE_DIRECT),
        *CODE_TASKS,
        # Add new tasks at the end: a task's number is its position here.
    )
}
"""This package's own tasks by name."""
IMAGE_TASKS = {name: task for name, task in TASKS.items() if task.images == 1}
"""This package's own tasks about a single image."""
_FIRST_OUTSIDE, _NUMBERS = 2**16, 2**24
"""Range of the numbers of tasks that are not this package's own. Numbers below 2**24 are exact in 32-bit floats."""
logger = logging.getLogger(__name__)


def find_task(name: str, setting: str = "task") -> Task:
    """Find a task by name. Its ``name`` is set to this name, so that every process can find it again.

    Args:
        name: name of a task of this package, of an entry point in the group ``omniq_verl.tasks``, or
            ``package.module:object``.
        setting: name of the setting, for error messages.

    Raises:
        ValueError: the task is unknown, or the name does not lead to a task.
    """
    try:
        return _found(name)
    except ValueError:
        return _look_up(name, setting)  # again, for an error that names the setting


@lru_cache(maxsize=256)
def _found(name: str) -> Task:
    return _look_up(name, "task")


def _look_up(name: str, setting: str) -> Task:
    if name in TASKS:
        return TASKS[name]
    if is_reference(name):
        return _checked(setting, name, _opened(setting, name))
    if point := _outside().get(name):
        where = f"{setting} {name!r}, which is the entry point {point.value!r} of the group {GROUP},"
        return _checked(where, name, load_object(where, point.value, EXPECTED))
    problem = f"unknown task {shown(name)}" if setting == "task" else f"{setting} is {shown(name)}, an unknown task"
    raise ValueError(f"{problem}. Fix: name one of {', '.join(task_names())}, or {FORM}, {EXPECTED}")


def task_names() -> list[str]:
    """Return the names of this package's tasks and those of installed packages."""
    return [*TASKS, *sorted(_outside())]


def known_tasks() -> dict[str, Task]:
    """Return all tasks that ``task_names`` lists. Tasks that cannot be imported are skipped and logged as a warning."""
    found = {}
    for name in task_names():
        try:
            found[name] = find_task(name)
        except ValueError as error:
            logger.warning("a task is skipped: %s", error)
    return found


def image_task(name: str, setting: str = "task") -> Task:
    """Find a task about a single image.

    Raises:
        ValueError: there is no task of that name, it is about several images, or it asks for several numbers.
    """
    task = find_task(name, setting)
    if task.images > 1:
        known = ", ".join(name for name in task_names() if name not in TASKS or name in IMAGE_TASKS)
        raise ValueError(
            f"the task {name!r} is not about one image: it compares {task.images}. Fix: name one of {known}"
        )
    if task.heads:
        raise ValueError(
            f"{setting} is {name!r}, which asks for {len(task.heads)} numbers, but one is read here. Fix: name a task"
            " with a single score; validation during training reports each number"
        )
    return task


def outside_marks(names: Iterable[str]) -> dict[str, str]:
    """Return a digest of each task that is not this package's own; it changes with the task's wording or scale.

    Saved answers depend on the digest. This package's own tasks change only with its version.
    """
    outside = sorted(set(names) - TASKS.keys())
    return {name: hashlib.blake2b(repr(find_task(name)).encode(), digest_size=8).hexdigest() for name in outside}


def task_number(name: str) -> int:
    """Return a task's number for reward metrics, which must be numbers; it is the same in every process.

    It does not depend on what is installed: the number of this package's own tasks is their index in ``TASKS``, and
    that of any other task is derived from its name.
    """
    if name in TASKS:
        return list(TASKS).index(name)
    digest = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
    return _FIRST_OUTSIDE + digest % (_NUMBERS - _FIRST_OUTSIDE)


def names_by_number(names: Iterable[str]) -> dict[int, str]:
    """Return task names by number: this package's own and those in ``names``.

    Raises:
        ValueError: two tasks have the same number.
    """
    found: dict[int, str] = {}
    for name in dict.fromkeys((*TASKS, *names)):
        if (other := found.setdefault(task_number(name), name)) != name:
            raise ValueError(f"the tasks {other!r} and {name!r} have the same number. Fix: rename one of them")
    return found


def _opened(setting: str, name: str) -> object:
    top = name.partition(":")[0].partition(".")[0]
    # Task names can come from data files, and importing a module runs it.
    if top in sys.stdlib_module_names:
        raise BadReference(
            f"{setting} is {name!r}, but {top} is part of Python's standard library. Fix: name {EXPECTED}"
        )
    return load_object(setting, name, EXPECTED)


def _checked(setting: str, name: str, found: object) -> Task:
    if not isinstance(found, Task):
        raise BadReference(f"{setting} is {name!r}, which is of the type {type(found).__name__}. Fix: name {EXPECTED}")
    return replace(found, name=name)


@lru_cache(maxsize=1)
def _outside() -> dict[str, EntryPoint]:
    """Return the entry points by name.

    Raises:
        ValueError: an entry point has the name of a built-in task, or two of the same name lead to different tasks.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        owner = point.dist.name if point.dist else "an unknown package"
        if point.name in TASKS:
            raise ValueError(
                f"{owner} provides a task {point.name!r}, which is the name of a built-in task. Fix: rename it"
            )
        if not point.name.isidentifier():
            raise ValueError(f"{owner} provides a task {point.name!r}. Fix: use letters, digits and _ in its name")
        if found.setdefault(point.name, point).value != point.value:
            raise ValueError(
                f"two packages provide a task {point.name!r}: {found[point.name].value} and {point.value}."
                " Fix: uninstall one, or name the task by package.module:object"
            )
    return found
