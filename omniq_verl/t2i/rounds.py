"""The settings of a reflection, and one text's way through its rounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omniq_verl.generation.spec import EngineSpec
from omniq_verl.t2i.candidates import Candidate, GuidedRun
from omniq_verl.t2i.ranking import Choice
from omniq_verl.t2i.rewriting import ask_for_prompt, feedback_of
from omniq_verl.tasks import find_task


@dataclass(frozen=True)
class Reflection(GuidedRun):
    """A run."""

    writer: EngineSpec | None = None
    """The language model that writes prompts; None: the scorer's own, loaded once for both."""
    rounds: int = 20
    """After the first, which draws from the text itself: table 5."""
    n: int = 1
    """Images of the first round; the best of them is reflected on. Later rounds have one each."""
    stop_at: float | None = None
    """A text whose best image has this score gets no further rounds; None: all get all."""
    longest: int = 1000
    """Letters of a new prompt; ours. SANA reads 300 tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.n, self.longest) < 1 or self.rounds < 0 or self.scorer is None:
            raise ValueError("n and longest from 1, rounds from 0, and a reasoning model that says what is wrong")
        tops = [find_task(task).scale.high for task in self.tasks]
        if self.stop_at is not None and not self.stop_at <= min(tops):
            raise ValueError(f"no image reaches stop_at={self.stop_at:g}: the scores end at {min(tops):g}")

    def settings(self) -> dict[str, Any]:
        """What images, scores and prompts depend on; more rounds go on with what is there."""
        # Which image is reflected on is a choice only where a round has several.
        by = [dict(self.weights), list(self.order), self.within, *filter(None, [self.selector])]
        chosen = by if self.n > 1 else None
        writer = (self.writer or self.scorer).identity()
        return {**super().settings(), "writer": writer, "n": self.n, "longest": self.longest, "chosen_by": chosen}


class ReflectionState:
    """One text's way through the rounds.

    Args:
        run: its settings.
        number: of the text.
        scores: records of all images by key, as they come.
        rewrites: likewise, of the prompts written for a round.
    """

    def __init__(self, run: Reflection, number: int, scores: Mapping[str, Any], rewrites: Mapping[str, Any]):
        self.number, self.wanted = number, run.prompts[number]["prompt"]
        self.rounds: list[list[Candidate]] = []
        self._run, self._scores, self._rewrites = run, scores, rewrites

    @property
    def drawings(self) -> list[Candidate]:
        """All so far, in the order of their numbers."""
        return [candidate for some in self.rounds for candidate in some]

    @property
    def key(self) -> str:
        """Of the prompt for the next round."""
        return self._key(len(self.rounds))

    @property
    def stopped(self) -> bool:
        """Is the best good enough?"""
        if self._run.stop_at is None or not self.rounds:
            return False
        return any(value is not None and value >= self._run.stop_at for value in self._choice(self.drawings).values)

    def begin_round(self) -> list[Candidate]:
        """The images of the next round, each with its own seed; from the last prompt where there is no new one."""
        text, first = self.wanted, len(self.drawings)
        if self.rounds:
            text = self._rewrites[self.key]["prompt"] or self.rounds[-1][0].text
        images = range(first, first + (1 if self.rounds else self._run.n))
        self.rounds.append([Candidate(self.number, image, text, self._run.seed + image) for image in images])
        return self.rounds[-1]

    def question(self) -> list[dict[str, str]] | None:
        """How to draw the next round, by the best image of the last; None: nobody says what is wrong with it."""
        last = self.rounds[-1]
        best = last[self._choice(last).best or 0]
        feedback = feedback_of(self._scores[best.key]["scores"])
        return ask_for_prompt(self.wanted, best.text, feedback, self._run.longest) if feedback else None

    def round_numbers(self) -> list[int]:
        """Of all images, from 0."""
        return [number for number, some in enumerate(self.rounds) for _ in some]

    def statuses(self) -> list[str]:
        """What became of the answers, from the second round on."""
        return [self._rewrites[self._key(number)]["status"] for number in range(1, len(self.rounds))]

    def lines(self) -> list[dict[str, Any]]:
        """Of ``rounds.jsonl``."""
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
