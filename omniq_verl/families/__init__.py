"""Families of released models: how each is asked, and how its answers are read; facts with their sources."""

from typing import TYPE_CHECKING

from omniq_verl.lazy_names import export_names

if TYPE_CHECKING:
    from omniq_verl.families.family import Family
    from omniq_verl.families.find import find_family

__all__ = ["Family", "find_family"]

export_names(__name__, {"family": ["Family"], "find": ["find_family"]})
