"""An engine that writes its answers as Q-Insight's release often does."""

from evaluation_builders import Rater, brightness

from omniq_verl.generation.expectation import Expectation
from omniq_verl.generation.request import Answer, expected_answer


class Fenced(Rater):
    """Writes JSON in a code fence, which Q-Insight's authors read and training does not; also reads scores.

    Without reasoning it puts a probability of brightness x 0.9 on the best score and the rest of 0.9 on the worst.
    """

    reads_scores = True

    def answer(self, requests, sampling):
        return [[self._one(request)] * sampling.n for request in requests]

    def _one(self, request):
        share = brightness(request.images[0])
        if request.texts is None:
            return Answer(f'<think>light</think><answer>```json\n{{"rating": {1 + 4 * share:.2f}}}\n```</answer>')
        values = sorted(value for _, value in request.texts.values)
        mean = values[0] + (values[-1] - values[0]) * share
        return expected_answer(Expectation(mean, 0.5, 0.1, None, 3), request.texts)
