"""Reasoning data: plan, reason along the plan, keep correct answers, drop the plan (OmniQuality-R, sec. 3.1)."""

from typing import TYPE_CHECKING

from omniq_verl.lazy_names import export_names

if TYPE_CHECKING:
    from omniq_verl.cot.run import CotConfig, make_paths, make_plans, select_paths
    from omniq_verl.cot.select import Selection

__all__ = ["CotConfig", "Selection", "make_paths", "make_plans", "select_paths"]

export_names(
    __name__,
    {
        "run": ["CotConfig", "make_paths", "make_plans", "select_paths"],
        "select": ["Selection"],
    },
)
