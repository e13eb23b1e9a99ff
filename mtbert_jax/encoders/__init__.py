"""Encoder families: what each is made of, where its weights and tokenizer come from, and how they are written."""
