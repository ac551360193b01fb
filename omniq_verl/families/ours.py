"""Models trained by this package: the same questions as in training, and the same strict parser."""

from omniq_verl.families.family import Family
from omniq_verl.tasks import AESTHETIC, ALIGNMENT, DEGRADATION, Q_INSIGHT_DEGRADATION, Q_INSIGHT_SCORE, TECHNICAL

_TASKS = (TECHNICAL, AESTHETIC, ALIGNMENT, DEGRADATION, Q_INSIGHT_SCORE, Q_INSIGHT_DEGRADATION)

OURS = Family(
    name="ours",
    title="a model of omniq_verl",
    sources=("omniq_verl/tasks/omniquality_r.py",),
    tasks={task.name: task for task in _TASKS},
    marks=("omniq_verl", "omniq-verl"),
)
