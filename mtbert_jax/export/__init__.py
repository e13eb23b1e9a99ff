"""A trained model, taken elsewhere: to `transformers`, or to plain JAX."""
