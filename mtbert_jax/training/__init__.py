"""State, step, evaluation, checkpoints, records, and the loop that ties them."""
