"""Measure how well scores agree with labels: correlations, evaluation runs, reports."""

from typing import TYPE_CHECKING

from omniq_verl.lazy_names import export_names

if TYPE_CHECKING:
    from omniq_verl.evaluation.compare import compare_runs, read_runs
    from omniq_verl.evaluation.correlations import correlations
    from omniq_verl.evaluation.heatmap import draw_heatmap
    from omniq_verl.evaluation.intervals import Interval, correlation_intervals, mean_interval
    from omniq_verl.evaluation.logistic import logistic4, logistic5
    from omniq_verl.evaluation.metrics import all_metrics
    from omniq_verl.evaluation.paired import PairedDifference, compare_scores, paired_difference
    from omniq_verl.evaluation.run import EvalConfig

__all__ = [
    "EvalConfig",
    "Interval",
    "PairedDifference",
    "all_metrics",
    "compare_runs",
    "compare_scores",
    "correlation_intervals",
    "correlations",
    "draw_heatmap",
    "logistic4",
    "logistic5",
    "mean_interval",
    "paired_difference",
    "read_runs",
]

export_names(
    __name__,
    {
        "compare": ["compare_runs", "read_runs"],
        "correlations": ["correlations"],
        "heatmap": ["draw_heatmap"],
        "intervals": ["Interval", "correlation_intervals", "mean_interval"],
        "logistic": ["logistic4", "logistic5"],
        "metrics": ["all_metrics"],
        "paired": ["PairedDifference", "compare_scores", "paired_difference"],
        "run": ["EvalConfig"],
    },
)
