"""Trains one run: ``python train.py CONFIG.toml [--field value ...]``, the same as ``mtbert train``."""

import sys

from mtbert_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
