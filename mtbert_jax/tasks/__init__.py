"""Task kinds: what the labels, logits, losses and scores of a task are. One file a kind; `kind` has the protocol."""

from mtbert_jax.tasks import (
    binary,
    classification,
    contrastive,
    distribution,
    masked_lm,
    multilabel,
    ranking,
    regression,
    tokens,
)
from mtbert_jax.tasks.kind import TaskKind
from mtbert_jax.tasks.metrics import Metric
from mtbert_jax.tasks.registry import KINDS, kind_of, primary_metric, register_kind, register_metric
from mtbert_jax.tasks.scores import averages, score, task_scores

__all__ = [
    "KINDS",
    "Metric",
    "TaskKind",
    "averages",
    "binary",
    "classification",
    "contrastive",
    "distribution",
    "kind_of",
    "masked_lm",
    "multilabel",
    "primary_metric",
    "ranking",
    "register_kind",
    "register_metric",
    "regression",
    "score",
    "task_scores",
    "tokens",
]
