"""A scorer for tests of adapters."""

import numpy as np

from omniq_verl.data.images import BadImage
from omniq_verl.scoring.image_inputs import decode_source, listed, name_of
from omniq_verl.scoring.scorer import BAD_IMAGE, Score


class Brightness:
    """Between 1 and 5; black images have no readable answer. Images come in by ``Scorer``'s own rules."""

    def __init__(self):
        self.calls = []

    def score(self, images, task="technical", prompt=None):
        self.calls.append((len(listed(images)), task, prompt))
        return [self._one(name_of(image, number), image, task) for number, image in enumerate(listed(images))]

    def _one(self, name, image, task):
        try:
            grey = np.asarray(decode_source(image).convert("L")).mean() / 255
        except BadImage as error:
            return Score(name, task, BAD_IMAGE, error=str(error))
        score = 1 + 4 * grey
        return Score(name, task, "ok", score, "fair") if grey else Score(name, task, "no_answer", reasoning="dark")
