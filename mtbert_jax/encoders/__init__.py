"""Encoder families: what each is made of, where its weights and tokenizer come from, and how they are written.

One file a family; `family` has the protocol.
"""

from mtbert_jax.encoders import albert, bert, distilbert, electra, mpnet, roberta

__all__ = ["albert", "bert", "distilbert", "electra", "mpnet", "roberta"]
