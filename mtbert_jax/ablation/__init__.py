"""Several configs with several seeds: processes one after the other, and one table of all."""
