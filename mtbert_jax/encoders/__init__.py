"""Encoder families: what each is made of, where its weights and tokenizer come from, and how they are written.

One file a family; `family` has the protocol.
"""

from mtbert_jax.encoders import albert, bert, deberta_v2, distilbert, electra, modernbert, mpnet, roberta

__all__ = ["albert", "bert", "deberta_v2", "distilbert", "electra", "modernbert", "mpnet", "roberta"]
