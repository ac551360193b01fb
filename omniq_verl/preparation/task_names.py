"""The tasks that suit the labels of a data set."""

import argparse
from collections.abc import Collection

from omniq_verl.object_reference import is_reference
from omniq_verl.tasks import TASKS, find_task, task_names


def names_for(labels: Collection[str]) -> list[str]:
    """Return the tasks of this package that these labels suit, in any of their wordings.

    Args:
        labels: names of the tasks whose labels a data set has.
    """
    return [name for name, task in TASKS.items() if (task.like or name) in labels]


def name_for(labels: Collection[str], any_task: bool, name: str) -> str:
    """Check the name of a task against the labels of a data set.

    Args:
        labels: names of the tasks whose labels a data set has.
        any_task: whether a user-defined task may use labels of its kind; otherwise it has to be ``like`` one of
            ``labels``.
        name: the name given on the command line.

    Raises:
        ArgumentTypeError: the task is unknown, or needs other labels.
    """
    rejected = argparse.ArgumentTypeError(f"invalid choice: {name!r} (choose from {', '.join(names_for(labels))})")
    if not is_reference(name) and name not in task_names():
        raise rejected
    try:
        task = find_task(name, "it")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if (task.like or name) in labels:
        return name
    if name in TASKS:
        raise rejected
    if any_task and task.images == 1 and task.asks_for in {find_task(one).asks_for for one in labels}:
        return name
    likes = " or ".join(f"like={one!r}" for one in labels)
    raise argparse.ArgumentTypeError(f"{name} asks for labels that this data set lacks. Fix: give the task {likes}")
