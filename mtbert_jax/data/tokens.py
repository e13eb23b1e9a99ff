"""Texts → token ids, by Hugging Face tokenizers; cached by the hash of all that the ids depend on."""

import hashlib
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import tokenizers
from jaxtyping import Int
from tokenizers import Tokenizer

from mtbert_jax.files import user_cache

Words = Literal["none", "first", "all"]
"""What is told of words: nothing; for each token the word that it is the first token of, words being parted by blanks;
or for each token its word, as the tokenizer parts words."""


class Tokens(NamedTuple):
    """Encoded examples, one after the other.

    Attributes:
        ids: All token ids.
        starts: Where each example begins, and the end of the last.
        first: Length of each example's first segment, which ends where the second text begins.
        words: For each token a word or -1, see `Words`; None where that was not asked for.
        num_words: Number of words of each example, those included that are cut off; None likewise.
        places: Share of a batch's tokens that words can begin at, at most.
        inputs: Number of inputs that the encoder reads of each example. With k of them, `starts` and `first` are of
            inputs, those of example i from k i on.
    """

    ids: Int[np.ndarray, " total"]
    starts: Int[np.ndarray, " example+1"]
    first: Int[np.ndarray, " example"]
    words: Int[np.ndarray, " total"] | None = None
    num_words: Int[np.ndarray, " example"] | None = None
    places: float = 1.0
    inputs: int = 1

    @property
    def lengths(self) -> Int[np.ndarray, " example"]:
        """Tokens of each example's longest input, special ones included: what a batch is padded to."""
        lengths = np.diff(self.starts)
        return lengths if self.inputs == 1 else lengths.reshape(-1, self.inputs).max(axis=1)

    def inputs_of(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> Int[np.ndarray, " input"]:
        """Places of all inputs of some examples, one example after the other."""
        return (np.asarray(rows, int)[:, None] * self.inputs + np.arange(self.inputs)).reshape(-1)

    def take(self, rows: Sequence[int]) -> "Tokens":
        """Tokens of some examples, in that order."""
        own = self.inputs_of(rows)
        parts = [slice(self.starts[place], self.starts[place + 1]) for place in own]
        empty = np.zeros(0, np.int32)
        lengths = np.array([part.stop - part.start for part in parts], np.int64)
        return self._replace(
            ids=np.concatenate([empty, *(self.ids[part] for part in parts)]),
            starts=np.concatenate([[0], np.cumsum(lengths)]),
            first=self.first[own],
            words=None if self.words is None else np.concatenate([empty, *(self.words[part] for part in parts)]),
            num_words=None if self.num_words is None else self.num_words[list(rows)],
        )


def tokenize_inputs(
    texts: Sequence[tuple[str, ...]],
    inputs: Sequence[tuple[int, ...]],
    tokenize: Callable[[Sequence[tuple[str, ...]]], Tokens],
) -> Tokens:
    """Encodes the inputs that the encoder reads of every example; a text that is read alone is encoded once.

    Args:
        texts: The texts of every example.
        inputs: Places of the texts of each input.
        tokenize: Encodes texts, as `tokenize_texts` does.
    """
    if len(inputs) == 1:
        return tokenize(texts)
    wanted = [tuple(text[place] for place in own) for text in texts for own in inputs]
    pools: list[Tokens] = []
    places: dict[tuple[str, ...], int] = {}
    for size in {len(own) for own in inputs}:
        # Single texts in an order of their own: a cache then has the same ones for pairs the other way round.
        pool = texts if size > 1 else sorted({text for text in wanted if len(text) == 1})
        before = sum(len(other.first) for other in pools)
        places |= {text: before + place for place, text in enumerate(pool)}
        pools.append(tokenize(pool))
    every = Tokens(
        ids=np.concatenate([pool.ids for pool in pools]),
        starts=np.concatenate([[0], np.cumsum(np.concatenate([pool.lengths for pool in pools]))]),
        first=np.concatenate([pool.first for pool in pools]),
    )
    return every.take([places[text] for text in wanted])._replace(inputs=len(inputs))


def tokenize_texts(
    tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]], max_length: int, words: Words = "none"
) -> Tokens:
    """Encodes one text or two, with special tokens; after `max_length` tokens the longer text is cut first.

    `words` says what else is told; where it is `first`, texts are single ones with one blank between words.
    """
    parts = [_shortened(tokenizer, text, max_length) if len(text) == 2 else text[0] for text in texts]
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    encode = tokenizer.encode_batch_fast if words == "none" else tokenizer.encode_batch  # which tells offsets
    encodings = encode(parts)
    tokenizer.no_truncation()  # as it was: the cache's hash and a saved copy are of the tokenizer alone
    lengths = np.array([len(e.ids) for e in encodings], np.int64)
    first = np.array([len(e.type_ids) - sum(e.type_ids) for e in encodings], np.int32)
    ids = np.fromiter((token for e in encodings for token in e.ids), np.int32, int(lengths.sum()))
    tokens = Tokens(ids, np.concatenate([[0], np.cumsum(lengths)]), first)
    if words == "none":
        return tokens
    if words == "all":
        own = [np.array(_word_of_tokens(e), np.int32) for e in encodings]
        empty = np.zeros(len(texts), np.int32)
        return tokens._replace(words=np.concatenate([np.zeros(0, np.int32), *own]), num_words=empty)
    begun = [_first_of_words(text, e.offsets) for (text,), e in zip(texts, encodings, strict=True)]
    counts = np.array([len(text.split()) for (text,) in texts], np.int32)
    return tokens._replace(words=np.concatenate([np.zeros(0, np.int32), *begun]), num_words=counts)


def _word_of_tokens(encoding: tokenizers.Encoding) -> list[int]:
    """For each token its word, those of the second text after those of the first; -1 for special tokens."""
    words, texts = encoding.word_ids, encoding.sequence_ids
    after = 1 + max(
        (word for word, text in zip(words, texts, strict=True) if text == 0 and word is not None), default=-1
    )
    return [
        -1 if word is None or text is None else word + after * text for word, text in zip(words, texts, strict=True)
    ]


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
    words: Words = "none",
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
    files: dict[Words, Path] = {
        "none": folder / f"{digest.hexdigest()}.npz",
        "first": folder / f"{digest.hexdigest()}-first.npz",
        "all": folder / f"{digest.hexdigest()}-all.npz",
    }
    for path in files.values() if words == "none" else (files[words],):
        if (cached := _load(path, len(texts))) is not None:
            return cached._replace(words=None, num_words=None) if words == "none" else cached
    tokens = tokenize_texts(tokenizer, texts, max_length, words)
    _store(files[words], tokens)
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
        arrays = {name: array for name, array in tokens._asdict().items() if isinstance(array, np.ndarray)}
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        Path(file.name).replace(path)  # all or nothing: a reader never sees half a file
    except OSError:
        return
