"""The course's prediction files to hand in: written by a run, or made elsewhere, and checked."""
