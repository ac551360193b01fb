"""The three tasks in the form of OmniQuality-R's released code: a system turn before the question, and a scale 0 to 5.

The form is the authors' (README and training scripts of yeppp27/VisualScore); the wording is this package's own.
"""

from dataclasses import replace

from omniq_verl.tasks.omniquality_r import AESTHETIC, ALIGNMENT, TECHNICAL
from omniq_verl.tasks.task import Scale

SYSTEM = (
    "You judge images. First think about the image step by step, between <think> and </think>. Then write your answer,"
    " between <answer> and </answer>, and nothing after it."
)
CODE_TASKS = tuple(
    replace(task, name=f"code_{task.name}", like=task.name, scale=Scale(0.0, 5.0), system=SYSTEM)
    for task in (TECHNICAL, AESTHETIC, ALIGNMENT)
)
