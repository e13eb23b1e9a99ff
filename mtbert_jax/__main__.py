"""``python -m mtbert_jax``: the same as ``mtbert``."""

from mtbert_jax.cli.main import main

raise SystemExit(main())
