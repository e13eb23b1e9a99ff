"""Texts → token ids, by Hugging Face tokenizers; cached by the hash of all that the ids depend on."""

import hashlib
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers
from jaxtyping import Int
from tokenizers import Tokenizer

from mtbert_jax.files import user_cache


class Tokens(NamedTuple):
    """Encoded examples, one after the other.

    Attributes:
        ids: All token ids.
        starts: Where each example begins, and the end of the last.
        first: Length of each example's first segment, which ends where the second text begins.
        words: For each token the word that it is the first token of, or -1; None where that was not asked for.
        num_words: Number of words of each example, those included that are cut off; None likewise.
    """

    ids: Int[np.ndarray, " total"]
    starts: Int[np.ndarray, " example+1"]
    first: Int[np.ndarray, " example"]
    words: Int[np.ndarray, " total"] | None = None
    num_words: Int[np.ndarray, " example"] | None = None

    @property
    def lengths(self) -> Int[np.ndarray, " example"]:
        """Tokens of each example, special ones included."""
        return np.diff(self.starts)


def tokenize_texts(
    tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]], max_length: int, words: bool = False
) -> Tokens:
    """Encodes one text or two, with special tokens; after `max_length` tokens the longer text is cut first.

    With `words`, single texts of words with one blank between them, it also says where each word begins.
    """
    parts = [_shortened(tokenizer, text, max_length) if len(text) == 2 else text[0] for text in texts]
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    encode = tokenizer.encode_batch if words else tokenizer.encode_batch_fast  # which tells no offsets
    encodings = encode(parts)
    tokenizer.no_truncation()  # as it was: the cache's hash and a saved copy are of the tokenizer alone
    lengths = np.array([len(e.ids) for e in encodings], np.int64)
    first = np.array([len(e.type_ids) - sum(e.type_ids) for e in encodings], np.int32)
    ids = np.fromiter((token for e in encodings for token in e.ids), np.int32, int(lengths.sum()))
    tokens = Tokens(ids, np.concatenate([[0], np.cumsum(lengths)]), first)
    if not words:
        return tokens
    begun = [_first_of_words(text, e.offsets) for (text,), e in zip(texts, encodings, strict=True)]
    counts = np.array([len(text.split()) for (text,) in texts], np.int32)
    return tokens._replace(words=np.concatenate([np.zeros(0, np.int32), *begun]), num_words=counts)


def _first_of_words(text: str, offsets: Sequence[tuple[int, int]]) -> Int[np.ndarray, " token"]:
    """For each token the word that it is the first token of, or -1.

    A token belongs to the word of its last character: the first one may be the blank before. Special tokens have none.

    >>> _first_of_words("an apple", [(0, 0), (0, 2), (2, 5), (5, 8), (0, 0)]).tolist()
    [-1, 0, 1, -1, -1]
    """
    blank = np.array([character == " " for character in text], bool)
    word = np.where(blank, -1, np.cumsum(blank))
    found = [int(word[end - 1]) if end > start else -1 for start, end in offsets]
    seen: set[int] = {-1}
    first = np.full(len(found), -1, np.int32)
    for place, own in enumerate(found):
        if own not in seen:
            seen.add(own)
            first[place] = own
    return first


def _shortened(tokenizer: Tokenizer, texts: tuple[str, ...], max_length: int) -> tuple[str, ...]:
    """A pair of texts without most of what is cut off anyway.

    The tokenizer keeps every combination of what it cuts off of both texts: two texts of a megabyte would take more
    memory than there is. More is kept here than any cut leaves, and by far more of the longer text, which stays the
    longer one whatever the last characters become: the cut then finds the same tokens. Of two texts of the same number
    of tokens the second one counts as the longer.
    """
    if max(map(len, texts)) <= 8 * max_length:
        return texts
    first, second = (tokenizer.encode(text, add_special_tokens=False).offsets for text in texts)
    most = (4 * max_length, 2 * max_length) if len(first) > len(second) else (2 * max_length, 4 * max_length)
    kept = first[: most[0]], second[: most[1]]
    return tuple(text[: own[-1][1]] if own else "" for text, own in zip(texts, kept, strict=True))


def tokenize_cached(
    tokenizer: Tokenizer,
    texts: Sequence[tuple[str, ...]],
    max_length: int,
    cache_dir: str | Path = "",
    words: bool = False,
) -> Tokens:
    """`tokenize_texts`, kept on disk under a hash of tokenizer, texts and length.

    Texts that several tasks read are encoded once. The cache is an optimisation alone: where it cannot be read or
    written, texts are encoded anew.
    """
    digest = hashlib.sha256(f"1 {tokenizers.__version__} {max_length} {len(texts)}\n".encode())
    digest.update(tokenizer.to_str().encode())
    for text in texts:
        for part in text:
            data = part.encode()
            digest.update(b"%d %d:" % (len(text), len(data)) + data)
    folder = Path(cache_dir or user_cache("tokens"))
    plain, with_words = (folder / f"{digest.hexdigest()}{end}.npz" for end in ("", "-words"))
    for path in (with_words,) if words else (plain, with_words):
        if (cached := _load(path, len(texts))) is not None:
            return cached if words else cached._replace(words=None, num_words=None)
    tokens = tokenize_texts(tokenizer, texts, max_length, words)
    _store(with_words if words else plain, tokens)
    return tokens


def _load(path: Path, examples: int) -> Tokens | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            tokens = Tokens(**{name: arrays[name] for name in arrays.files})
    except (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile):
        return None
    sound = (
        len(tokens.starts) == examples + 1 and len(tokens.first) == examples and tokens.starts[-1] == len(tokens.ids)
    )
    if tokens.words is not None:
        sound &= (
            tokens.num_words is not None and len(tokens.num_words) == examples and len(tokens.words) == len(tokens.ids)
        )
    return tokens if sound else None


def _store(path: Path, tokens: Tokens) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            np.savez(file, **{name: array for name, array in tokens._asdict().items() if array is not None})
        Path(file.name).replace(path)  # all or nothing: a reader never sees half a file
    except OSError:
        return
