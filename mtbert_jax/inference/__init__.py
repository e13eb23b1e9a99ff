"""Trained models on splits and on one's own texts: that of one run, or the mean of several."""

from mtbert_jax.inference.ensemble import Ensemble, files_read_of, load_predictor, output_folder
from mtbert_jax.inference.multitask import MultitaskModel
from mtbert_jax.inference.predictor import Prediction, Predictor

__all__ = ["Ensemble", "MultitaskModel", "Prediction", "Predictor", "files_read_of", "load_predictor", "output_folder"]
