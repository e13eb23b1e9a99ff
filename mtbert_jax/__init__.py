"""Multitask fine-tuning of text encoders in JAX, with gradient surgery and smoothness regularisation.

>>> import mtbert_jax as mt
>>> tx = mt.pcgrad(reduction="sum")
"""

from mtbert_jax import start  # noqa: F401 - first: from then on Ctrl-C ends a command that still imports
from mtbert_jax.config import (
    Config,
    HeadConfig,
    LoraConfig,
    ProximalConfig,
    SmartConfig,
    StageConfig,
    TaskConfig,
    load_config,
)
from mtbert_jax.data.readers import read_task
from mtbert_jax.encoders.bert import BertConfig, BertEncoder, BertFamily
from mtbert_jax.encoders.family import Encoder, Family, encoder, register_family
from mtbert_jax.encoders.hub import load_pretrained, save_pretrained
from mtbert_jax.encoders.tokenizer import load_tokenizer
from mtbert_jax.encoders.tokenizer_rules import TokenizerRules
from mtbert_jax.errors import InputError, TrainingError
from mtbert_jax.inference import Ensemble, MultitaskModel, Prediction
from mtbert_jax.optim import (
    aggregator,
    aggregator_weights,
    aligned_mtl,
    cagrad,
    dualproj,
    dwa,
    equal_norms,
    fairgrad,
    famo,
    gls,
    gradnorm,
    gradvac,
    imtl_g,
    layerwise_decay,
    mean_tasks,
    mgda,
    nash_mtl,
    pcgrad,
    pcgrad_weights,
    random_weights,
    register_aggregator,
    register_transformation,
    smoothed,
    stch,
    sum_tasks,
    upgrad,
    uw,
)
from mtbert_jax.regularizers import Forward, Penalty, Regularizer, proximal_loss, register_regularizer, smoothness_loss
from mtbert_jax.run import Run, SeedsOfRun, load_run, train
from mtbert_jax.tasks import Metric, TaskKind, register_kind, register_metric
from mtbert_jax.training.interrupt import Interrupted
from mtbert_jax.types import Batch, Example
from mtbert_jax.version import __version__

__all__ = [
    "Batch",
    "BertConfig",
    "BertEncoder",
    "BertFamily",
    "Config",
    "Encoder",
    "Ensemble",
    "Example",
    "Family",
    "Forward",
    "HeadConfig",
    "InputError",
    "Interrupted",
    "LoraConfig",
    "Metric",
    "MultitaskModel",
    "Penalty",
    "Prediction",
    "ProximalConfig",
    "Regularizer",
    "Run",
    "SeedsOfRun",
    "SmartConfig",
    "StageConfig",
    "TaskConfig",
    "TaskKind",
    "TokenizerRules",
    "TrainingError",
    "__version__",
    "aggregator",
    "aggregator_weights",
    "aligned_mtl",
    "cagrad",
    "dualproj",
    "dwa",
    "encoder",
    "equal_norms",
    "fairgrad",
    "famo",
    "gls",
    "gradnorm",
    "gradvac",
    "imtl_g",
    "layerwise_decay",
    "load_config",
    "load_pretrained",
    "load_run",
    "load_tokenizer",
    "mean_tasks",
    "mgda",
    "nash_mtl",
    "pcgrad",
    "pcgrad_weights",
    "proximal_loss",
    "random_weights",
    "read_task",
    "register_aggregator",
    "register_family",
    "register_kind",
    "register_metric",
    "register_regularizer",
    "register_transformation",
    "save_pretrained",
    "smoothed",
    "smoothness_loss",
    "stch",
    "sum_tasks",
    "train",
    "upgrad",
    "uw",
]
