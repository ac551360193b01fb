"""One text's way through the rounds of a reflection."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omniq_verl.t2i.guided import Drawing
from omniq_verl.t2i.rewriting import ask_for_prompt, feedback_of
from omniq_verl.t2i.selection import Choice

if TYPE_CHECKING:
    from omniq_verl.t2i.reflection import Reflection


class Walk:
    """One text's way through the rounds.

    Args:
        run: its settings.
        number: of the text.
        scores: records of all images by key, as they come.
        rewrites: likewise, of the prompts written for a round.
    """

    def __init__(self, run: "Reflection", number: int, scores: Mapping[str, Any], rewrites: Mapping[str, Any]):
        self.number, self.wanted = number, run.prompts[number]["prompt"]
        self.rounds: list[list[Drawing]] = []
        self._run, self._scores, self._rewrites = run, scores, rewrites

    @property
    def drawings(self) -> list[Drawing]:
        """All so far, in the order of their numbers."""
        return [drawing for some in self.rounds for drawing in some]

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

    def begin_round(self) -> list[Drawing]:
        """The images of the next round, each with its own seed; from the last prompt where there is no new one."""
        text, first = self.wanted, len(self.drawings)
        if self.rounds:
            text = self._rewrites[self.key]["prompt"] or self.rounds[-1][0].text
        images = range(first, first + (1 if self.rounds else self._run.n))
        self.rounds.append([Drawing(self.number, image, text, self._run.seed + image) for image in images])
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
                "image": drawing.image,
                "seed": drawing.seed,
                "drawn_from": drawing.text,
                "rewrite": read[number],
                "value": values[drawing.image],
                **{
                    part: {task: one[name] for task, one in self._scores[drawing.key]["scores"].items()}
                    for part, name in (("scores", "score"), ("reasoning", "reasoning"))
                },
            }
            for number, drawing in zip(self.round_numbers(), self.drawings, strict=True)
        ]

    def _choice(self, drawings: Sequence[Drawing]) -> Choice:
        found = [self._scores[drawing.key]["scores"] for drawing in drawings]
        return self._run.choose({task: [one[task]["score"] for one in found] for task in self._run.tasks})

    def _key(self, number: int) -> str:
        return f"{self.number:05d}/{number:05d}"
