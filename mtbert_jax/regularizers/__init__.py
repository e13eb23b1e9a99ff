"""Terms that are added to the losses of a stage."""
