"""Terms that are added to the losses of a stage: a regulariser a file. `base` has the protocol and the registry."""

from mtbert_jax.regularizers.base import REGULARIZERS, Forward, Penalty, Regularizer, register_regularizer
from mtbert_jax.regularizers.freelb import FreeLB
from mtbert_jax.regularizers.proximal import Proximal, proximal_loss, update_teacher
from mtbert_jax.regularizers.rdrop import RDrop
from mtbert_jax.regularizers.smart import Smart, smoothness_loss
from mtbert_jax.regularizers.stage import check_regularizers, stage_regularizers

__all__ = [
    "REGULARIZERS",
    "Forward",
    "FreeLB",
    "Penalty",
    "Proximal",
    "RDrop",
    "Regularizer",
    "Smart",
    "check_regularizers",
    "proximal_loss",
    "register_regularizer",
    "smoothness_loss",
    "stage_regularizers",
    "update_teacher",
]
