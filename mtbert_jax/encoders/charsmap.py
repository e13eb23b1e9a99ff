"""The table of replacements of a sentencepiece normalizer, checked before a tokenizer follows it.

The table is a double-array trie over UTF-8 bytes, followed by the replacements, each up to a zero byte (sentencepiece's
``normalizer.cc``, darts-clone). `tokenizers` trusts it: an index that leads out of it ends the program, in Rust, below
Python's errors.
"""

import base64
from typing import Any

import numpy as np

from mtbert_jax.limits import LARGEST_CHARSMAP, MOST_GROWTH

DEEPEST = 8
"""Bytes that are looked up at most; `tokenizers` looks up single characters, and clusters of at most 5 bytes."""


def charsmap_problem(charsmap: Any) -> str | None:
    """Why a table cannot be followed, as a clause; None where it can.

    Args:
        charsmap: The table in base64, as ``tokenizer.json`` has it.
    """
    try:
        data = base64.b64decode(charsmap, validate=True)
        size = int.from_bytes(data[:4], "little")
        data[4 + size :].decode("utf-8")
    except (TypeError, ValueError):
        return "is no base64 of a trie and of text"
    if len(data) > LARGEST_CHARSMAP:
        return f"has {len(data)} bytes; {LARGEST_CHARSMAP} are the most"
    if not size or size % 1024 or 4 + size > len(data):  # 256 units of 4 bytes are a block, which no node leads out of
        return f"is cut off: its trie claims {size} bytes"
    return _problem(
        np.frombuffer(data, "<u4", size // 4, 4).astype(np.int64), np.frombuffer(data[4 + size :], np.uint8)
    )


def _problem(units: np.ndarray, text: np.ndarray) -> str | None:
    """Walks the trie from its root, all nodes of one depth at a time."""
    places = np.arange(len(units))
    bases = places ^ (units >> 10 << ((units & 512) >> 6))
    labels = units & 0x800000FF  # those of values have the highest bit
    has_parent, parents = (labels > 0) & (labels < 256), places ^ (labels & 255)
    ends = np.append(np.flatnonzero(text == 0), len(text))
    nodes = places == 0
    for depth in range(DEEPEST + 1):
        if (bases[nodes] >= len(units)).any():
            return "leads out of its trie"
        starts = units[bases[nodes & (units & 256 > 0)]] & 0x7FFFFFFF
        if (starts > len(text)).any() or (text[starts[starts < len(text)]] & 0xC0 == 0x80).any():
            return "leads out of its text"
        if (ends[np.searchsorted(ends, starts)] - starts > MOST_GROWTH * depth).any():
            return f"has a replacement more than {MOST_GROWTH} times as long as what it replaces"
        reached = np.zeros(len(units), bool)
        reached[bases[nodes]] = True
        nodes = has_parent & reached[parents]
    return None
