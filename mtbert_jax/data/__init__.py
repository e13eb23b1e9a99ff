"""Files → examples → token arrays → batches."""
