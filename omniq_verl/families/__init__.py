"""Families of released models: how to ask each one and how to parse its answers. All facts name their sources."""

from typing import TYPE_CHECKING

from omniq_verl.lazy_names import export_names

if TYPE_CHECKING:
    from omniq_verl.families.family import Family
    from omniq_verl.families.find import find_family

__all__ = ["Family", "find_family"]

export_names(__name__, {"family": ["Family"], "find": ["find_family"]})
