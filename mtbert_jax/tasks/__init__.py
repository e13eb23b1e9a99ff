"""Task kinds: what labels, logits, losses and scores of a task are."""
