"""Labels of words: spans such as names of persons, by a tag for each word (BIO)."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float

from mtbert_jax.config import TaskConfig
from mtbert_jax.errors import InputError
from mtbert_jax.tasks.classification import Classification
from mtbert_jax.tasks.kind import IGNORED, LOWEST, PER_PLACE, Labels, Logits
from mtbert_jax.tasks.metrics import SPAN_F1, WORD_ACCURACY
from mtbert_jax.tasks.parsing import check_classes, parse_list
from mtbert_jax.tasks.registry import register_kind
from mtbert_jax.types import Example

OUTSIDE = "O"


@register_kind("tokens")
class Tokens(Classification):
    """One logit per tag at the first token of each word, softmax, cross entropy; a label is a tag for each word.

    `classes` of the task are the types of spans; its tags are O, and for each type B- (a span begins) and I- (it goes
    on). In the order of the tags O is 0, B of type t is 2 t + 1 and I is 2 t + 2, which the metrics rely on.
    """

    metrics = (SPAN_F1, WORD_ACCURACY)
    one_class_each = False
    decision = "tags"
    reads = "tokens"

    def check(self, task: TaskConfig) -> None:
        """Checks the types of spans, and that there is one text."""
        if task.label_range or task.num_classes:
            raise InputError("label_range and num_classes do not belong to kind = 'tokens'")
        if not task.classes:
            raise InputError('tokens needs the types of spans, such as classes = ["PER", "LOC"]')
        check_classes(task.classes)
        for name in task.classes:
            if name == OUTSIDE or name[:2] in ("B-", "I-") or name != "".join(name.split()):
                raise InputError(f"classes: {name!r}: name types of spans without B-, I- and O, such as PER")
        if len(task.text) != 1:
            raise InputError("text: kind = 'tokens' reads one column")

    def label_shape(self, task: TaskConfig) -> tuple[int, ...]:
        """As many numbers as there are words."""
        return (PER_PLACE,)

    def classes(self, task: TaskConfig) -> tuple[str, ...]:
        """O, and B- and I- of each type."""
        return (OUTSIDE, *(f"{place}-{name}" for name in task.classes for place in "BI"))

    def num_outputs(self, task: TaskConfig) -> int:
        """The number of tags."""
        return len(self.classes(task))

    def expected(self, task: TaskConfig) -> str:
        """The tags."""
        return f"a list of tags, one for each word, of {', '.join(self.classes(task))}"

    def text(self, value: Any) -> str:
        """Words with one blank between them, of a text or of a JSON list of words."""
        if isinstance(value, str):
            return " ".join(value.split())
        if not isinstance(value, list):
            raise ValueError("")
        for number, word in enumerate(value, start=1):
            if not isinstance(word, str) or len(word.split()) != 1 or word != word.strip():
                raise ValueError(f"has {word!r} as word {number}, which is not one word")
        return " ".join(value)

    def parse(self, task: TaskConfig, text: str) -> Float[np.ndarray, " word"]:
        """``B-PER I-PER O``, or a JSON list of tags → their places in `classes`."""
        if not text:
            raise ValueError(text)
        return self.read(task, text)

    def read(self, task: TaskConfig, text: str) -> Float[np.ndarray, " word"]:
        """As `parse`; an empty text has no words."""
        tags = self.classes(task)
        return np.array(
            [tags.index(tag) for tag in (parse_list(text) if text.startswith("[") else text.split())], float
        )

    def misfit(self, task: TaskConfig, example: Example) -> str:
        """Whether there are as many tags as words."""
        words, tags = len(example.texts[0].split()), len(example.label)
        return "" if words == tags else f"has {tags} tags for the {words} words of {task.text[0]!r}"

    def describe(self, task: TaskConfig, prediction: Any) -> list[str]:
        """The tag of each word."""
        tags = self.classes(task)
        return [tags[int(place)] for place in prediction if place >= 0]

    def format(self, task: TaskConfig, prediction: Any) -> str:
        """The tags with blanks between them."""
        return " ".join(self.describe(task, prediction))

    def predict(self, logits: Float[np.ndarray, "example place output"]) -> Float[np.ndarray, "example place"]:
        """The tag of the largest logit; what is no word stays without one."""
        found = np.argmax(logits, axis=-1).astype(np.float64)
        return np.where((logits == LOWEST).all(axis=-1), float(IGNORED), found)

    def probabilities(self, logits: Logits) -> Float[Array, "batch 0"]:
        """None: predictions tell the tags alone."""
        return logits[:, 0, :0]

    def loss(self, logits: Logits, labels: Labels) -> Float[Array, "batch place"]:
        """Cross entropy of every word."""
        return super().loss(logits, labels)

    def errors(
        self, predictions: Float[np.ndarray, "example place"], labels: Float[np.ndarray, "example place"]
    ) -> Float[np.ndarray, " example"]:
        """Number of words with a wrong tag."""
        return np.sum((predictions != labels) & (labels >= 0), axis=-1).astype(np.float64)
