"""Upper limits on what files, configs and texts may ask for.

Against whom: a config, a data file, an encoder's folder or a run folder may come from somebody else, by a hub, a mail
or a shared disk. Such files must not make this program run code, read outside of their folder, wait without an end, or
take all memory. Each limit is far above what real use needs, so nobody meets one by accident; what exceeds it is
refused in one message. A plugin is code, is named on the command line only, and is trusted.
"""

MEBIBYTE = 2**20

# Files, in bytes.
LARGEST_TOML = MEBIBYTE
LARGEST_JSON = 32 * MEBIBYTE
"""The largest vocabularies of encoders take half of it."""
LARGEST_RECORDS = 4096 * MEBIBYTE
"""Ten million steps, each on record."""
LARGEST_LOGITS = 1024 * MEBIBYTE
LARGEST_PREDICTIONS = 256 * MEBIBYTE
LARGEST_WEIGHTS_HEADER = 8 * MEBIBYTE

# Config files.
MOST_INCLUDES = 100
MOST_DOTS = 200
"""Dots in one line, those of decimal numbers aside: tomllib's time grows with the square of a dotted key's length."""

# Config values.
MOST_ENTRIES = 100
"""Tasks, stages, seeds or paths of LoRA of a run."""
LARGEST_BATCH = 2**16
MOST_CLASSES = 10**5
MOST_EPOCHS = 10**5
MOST_STEPS = 10**7
WIDEST_LAYER = 10**5
DEEPEST_HEAD = 100
MOST_ASCENTS = 100

# Call strings of the optimizer.
LONGEST_CALL = 2000
"""Characters."""
LARGEST_COUNT = 1000
"""Arguments of optax that Python loops over, or that programs grow with."""

# Data files and texts.
LONGEST_FIELD = 16 * MEBIBYTE
"""Characters of a field; csv's own limit of 128 KiB refuses long documents."""
LONGEST_WORD = 1000
"""Characters of a word that a tokenizer takes apart; the work grows with their square."""

# Encoders.
LARGEST_SIZES = {"num_hidden_layers": 100, "hidden_size": 10**5, "intermediate_size": 10**6}
LARGEST_SIZE = 10**7
"""Of any other whole number in an encoder's config.json."""
LARGEST_CHARSMAP = MEBIBYTE
"""Bytes of a tokenizer's table of replacements; sentencepiece's own have a quarter of it."""
MOST_GROWTH = 16
"""Bytes of a replacement for each that it replaces; compatibility composition (NFKC) needs 11."""
