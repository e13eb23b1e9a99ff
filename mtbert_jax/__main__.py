"""``python -m mtbert_jax``: the same as ``mtbert``."""

from mtbert_jax.cli import main

raise SystemExit(main())
