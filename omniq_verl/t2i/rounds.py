"""Settings of a reflection run, and the state of one text over its rounds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omniq_verl.generation.spec import EngineSpec
from omniq_verl.scoring.scorer import asked_tasks
from omniq_verl.t2i.candidates import Candidate, GuidedRun
from omniq_verl.t2i.ranking import Choice
from omniq_verl.t2i.rewriting import ask_for_prompt, feedback_of


@dataclass(frozen=True)
class Reflection(GuidedRun):
    """Settings of a reflection run."""

    writer: EngineSpec | None = None
    """Language model that writes prompts; None: the scorer itself, loaded only once."""
    rounds: int = 20
    """Rounds after the first, which draws from the text itself; 20 in table 5."""
    n: int = 1
    """Images of the first round; the best of them is reflected on. Later rounds draw one image each."""
    stop_at: float | None = None
    """A text whose best image reaches this score gets no further rounds; None: every text gets all rounds."""
    longest: int = 1000
    """Maximum length of a new prompt in characters; our choice. SANA reads 300 tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.n, self.longest) < 1 or self.rounds < 0 or self.scorer is None:
            raise ValueError(
                "n and longest must be >= 1, rounds must be >= 0, and a reasoning model (scorer) is required"
            )
        if self.stop_at is not None and not self.stop_at <= (top := self._highest_value()):
            raise ValueError(f"no image reaches stop_at={self.stop_at:g}: the scores end at {top:g}")

    def _highest_value(self) -> float:
        """The highest value that an image can be ranked by; infinite for a selector, whose values have no known end."""
        if self.selector:
            return math.inf
        tasks = asked_tasks(self.order[:1] or self.tasks, self.scale)
        return min(task.score_scale.high for task in tasks)

    def settings(self) -> dict[str, Any]:
        """Settings that images, scores and prompts depend on. Not ``rounds``: a run can be extended by more rounds."""
        # The image to reflect on is a choice only if a round has several.
        by = [self.used_weights, list(self.order), self.within, *filter(None, [self.selector])]
        chosen = by if self.n > 1 else None
        writer = self.writer or self.scorer
        assert writer is not None  # checked above
        own = {"writer": writer.identity(), "n": self.n, "longest": self.longest, "chosen_by": chosen}
        return {**super().settings(), **own}


class ReflectionState:
    """State of one text over its rounds.

    Args:
        run: settings of the run.
        number: index of the text.
        scores: records of all images by key; grows during the run.
        rewrites: records of the prompts written for a round, by key; grows during the run.
    """

    def __init__(self, run: Reflection, number: int, scores: Mapping[str, Any], rewrites: Mapping[str, Any]):
        self.number, self.wanted = number, run.prompts[number]["prompt"]
        self.rounds: list[list[Candidate]] = []
        self._run, self._scores, self._rewrites = run, scores, rewrites

    @property
    def drawings(self) -> list[Candidate]:
        """All images so far, by image number."""
        return [candidate for some in self.rounds for candidate in some]

    @property
    def key(self) -> str:
        """Key of the prompt for the next round."""
        return self._key(len(self.rounds))

    @property
    def stopped(self) -> bool:
        """True if the best image has reached ``stop_at``."""
        if self._run.stop_at is None or not self.rounds:
            return False
        return any(value is not None and value >= self._run.stop_at for value in self._choice(self.drawings).values)

    def begin_round(self) -> list[Candidate]:
        """Start the next round: its images, each with its own seed. Uses the previous prompt if there is no new one."""
        self.rounds.append(self._images(len(self.drawings), 1) if self.rounds else self.first_images())
        return self.rounds[-1]

    def first_images(self) -> list[Candidate]:
        """The images of the first round."""
        return self._images(0, self._run.n)

    def _images(self, first: int, count: int) -> list[Candidate]:
        text = self.wanted
        if self.rounds:
            text = self._rewrites[self.key]["prompt"] or self.rounds[-1][0].text
        images = range(first, first + count)
        return [Candidate(self.number, image, text, self._run.seed + image) for image in images]

    def question(self) -> list[dict[str, str]] | None:
        """Ask for the next prompt, given the best image of the last round; None if there is no criticism of it."""
        last = self.rounds[-1]
        best = last[self._choice(last).best or 0]
        feedback = feedback_of(self._scores[best.key]["scores"])
        return ask_for_prompt(self.wanted, best.text, feedback, self._run.longest) if feedback else None

    def round_numbers(self) -> list[int]:
        """Round of each image, from 0."""
        return [number for number, some in enumerate(self.rounds) for _ in some]

    def statuses(self) -> list[str]:
        """Status of the rewrites, from the second round on."""
        return [self._rewrites[self._key(number)]["status"] for number in range(1, len(self.rounds))]

    def lines(self) -> list[dict[str, Any]]:
        """Lines of ``rounds.jsonl``."""
        read, values = [None, *self.statuses()], self._choice(self.drawings).values
        return [
            {
                "text": self.number,
                "round": number,
                "image": candidate.image,
                "seed": candidate.seed,
                "drawn_from": candidate.text,
                "rewrite": read[number],
                "value": values[candidate.image],
                **{
                    part: {task: one[name] for task, one in self._scores[candidate.key]["scores"].items()}
                    for part, name in (("scores", "score"), ("reasoning", "reasoning"))
                },
            }
            for number, candidate in zip(self.round_numbers(), self.drawings, strict=True)
        ]

    def _choice(self, drawings: Sequence[Candidate]) -> Choice:
        found = [self._scores[candidate.key]["scores"] for candidate in drawings]
        return self._run.choose({task: [one[task]["score"] for one in found] for task in self._run.tasks})

    def _key(self, number: int) -> str:
        return f"{self.number:05d}/{number:05d}"
