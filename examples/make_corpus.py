"""Write the small English demo corpus in ``examples/data``.

The corpus has the file formats of the Stanford CS224N default project (tab-separated files
with the ending ``.csv``) and four tasks:

* ``ids-sst-*``: single sentences with a sentiment from 0 (very negative) to 4 (very positive);
* ``ids-cfimdb-*``: whole film reviews, negative (0) or positive (1);
* ``quora-*``: pairs of questions, duplicates (1.0) or not (0.0);
* ``sts-*``: pairs of sentences with a similarity from 0.0 to 5.0.

Every phrase and sentence was written for this project; the material lies in
``examples/corpus_material``, whose files explain their own layout. This script only combines
it. Dev and test never repeat a text of the training part, and they use material that the
training part does not: other families of questions and scenes, other films, and partly other
frames and phrases in the sentiment tasks.

Usage::

    python3 examples/make_corpus.py            # (re)write the files, always the same bytes
    python3 examples/make_corpus.py --check    # exit 1 if the files are not up to date
"""

import argparse
import csv
import hashlib
import io
import itertools
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

HERE = Path(__file__).resolve().parent
MATERIAL = HERE / "corpus_material"
DATA = HERE / "data"
SEED = 224

SPLITS = ("train", "dev", "test")
SIZES = {
    "sst": (500, 150, 60),
    "cfimdb": (120, 40, 20),
    "quora": (500, 150, 60),
    "sts": (500, 150, 60),
}

T = TypeVar("T")


class Row(NamedTuple):
    """One example: a text or a pair of texts, and its label as it is written."""

    texts: tuple[str, ...]
    label: str


Rows = dict[str, list[Row]]  # by split


class Draw:
    """Reproducible random choices, built on ``random.Random.random`` alone.

    That one method gives the same numbers in every Python version. ``pick`` prefers what it
    has picked least often since ``forget``, so that all the material gets used.
    """

    def __init__(self, name: str) -> None:
        seed = hashlib.sha256(f"{SEED} {name}".encode()).digest()
        self._random = random.Random(int.from_bytes(seed, "big"))
        self._used: Counter[object] = Counter()

    def forget(self) -> None:
        """Forget what has been picked."""
        self._used.clear()

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._random.random() < probability

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def shuffled(self, items: Iterable[T]) -> list[T]:
        """The items in a random order."""
        return sorted(items, key=lambda _: self._random.random())

    def pick(self, items: Sequence[T]) -> T:
        """One of the items that were picked least often."""
        item = min(self.shuffled(items), key=lambda candidate: self._used[candidate])
        self._used[item] += 1
        return item


# Reading the material


def read_lines(name: str) -> list[str]:
    """The lines of a material file without comments."""
    lines = (MATERIAL / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def read_lists(name: str) -> dict[str, list[str]]:
    """A file of lists, each opened by its name in square brackets."""
    lists: dict[str, list[str]] = {}
    items: list[str] = []
    for line in filter(None, read_lines(name)):
        if line.startswith("["):
            items = lists.setdefault(line.strip("[]"), [])
        else:
            items.append(line)
    return lists


def read_blocks(name: str) -> list[list[str]]:
    """A file of blocks with an empty line between them."""
    groups = itertools.groupby(read_lines(name), key=bool)
    return [list(lines) for filled, lines in groups if filled]


# Dividing the material among the splits


def divide(items: Sequence[T], draw: Draw, sizes: Sequence[int]) -> dict[str, list[T]]:
    """Give every item to one split, in proportion to the sizes of the splits."""
    shuffled, bounds = draw.shuffled(items), [0]
    for size in itertools.accumulate(sizes):
        bounds.append(round(len(items) * size / sum(sizes)))
    return {split: shuffled[bounds[i] : bounds[i + 1]] for i, split in enumerate(SPLITS)}


class Shelf(NamedTuple):
    """A list of phrases or frames, part of which the training split never sees."""

    open: list[str]
    held: list[str]

    @classmethod
    def fill(cls, items: Sequence[str], draw: Draw, share: float) -> "Shelf":
        """Hold back this share of the items."""
        shuffled, count = draw.shuffled(items), max(1, round(share * len(items)))
        return cls(shuffled[count:], shuffled[:count])

    def for_split(self, split: str, draw: Draw) -> list[str]:
        """What a row may use: half of the dev and test rows use held-out items only."""
        if split == "train":
            return self.open
        return self.held if draw.chance(0.5) else self.open + self.held


def capital(text: str) -> str:
    """The text with a capital letter in front."""
    return text[0].upper() + text[1:]


# Sentiment of single sentences

DEGREES = range(5)
DEGREE_SHARES = (0.16, 0.215, 0.24, 0.215, 0.17)
OPPOSED = [(a, b) for a in DEGREES for b in DEGREES if (a < 2 < b) or (b < 2 < a)]
# For each rule of a frame: the degrees of the phrases (first, second) that give a label.
RULES: dict[str, dict[tuple[int, int], int]] = {
    "same": {(degree, degree): degree for degree in DEGREES},
    "why": {(degree, degree): degree for degree in DEGREES if degree != 2},
    "but": {(a, b): round(0.35 * a + 0.65 * b) for a, b in OPPOSED},
    "over": {(a, b): b for a, b in OPPOSED},
    "not": {(0, 0): 3, (1, 1): 3, (3, 3): 1, (4, 4): 1},
    "hedge": {(0, 0): 1, (4, 4): 3},
}
# Phrases that already hold a negation or comparison do not go into these frames.
PLAIN_RULES = ("not", "hedge")
NEGATIONS = {"not", "nothing", "never", "less", "more", "better", "weaker", "too", "almost"}


def sentiment_rows() -> Rows:
    """Frames filled with opinion phrases whose degrees give the label by the frame's rule."""
    draw = Draw("sst")
    lists = read_lists("phrases.txt")
    phrases = {name: Shelf.fill(items, draw, 0.25) for name, items in lists.items() if not name.startswith("subject")}
    domains = [name.split()[1] for name in lists if name.startswith("subject")]
    by_rule: dict[str, list[str]] = defaultdict(list)
    for line in filter(None, read_lines("frames.txt")):
        by_rule[line.split(" | ")[1]].append(line)
    shelves = [Shelf.fill(items, draw, 0.15) for items in by_rule.values()]
    frames = Shelf(*(list(itertools.chain(*part)) for part in zip(*shelves, strict=True)))

    def sentence(split: str, label: int) -> str | None:
        """A random sentence with the label, or None where the frame cannot express it."""
        domain, rule, frame = draw.pick(frames.for_split(split, draw)).split(" | ")
        options = [pair for pair, result in RULES[rule].items() if result == label]
        if not options:
            return None
        first, second = draw.pick(options)
        domain = draw.pick(domains) if domain == "any" else domain
        subject = draw.pick(lists[f"subject {domain}"])
        slots = {"s": subject, "S": capital(subject)}
        for kind, degree in itertools.product(("adj", "np", "vp", "cl"), (1, 2)):
            slot = kind if degree == 1 else f"{kind}2"
            if f"{{{slot}}}" not in frame and f"{{{capital(slot)}}}" not in frame:
                continue
            name = f"{domain if kind == 'cl' else kind} {first if degree == 1 else second}"
            choices = [
                phrase
                for phrase in phrases[name].for_split(split, draw)
                if phrase not in slots.values() and not (rule in PLAIN_RULES and NEGATIONS & set(phrase.split()))
            ]
            if not choices:
                return None
            slots[slot] = draw.pick(choices)
            slots[capital(slot)] = capital(slots[slot])
        return frame.format(**slots)

    rows: Rows = {}
    seen: set[str] = set()
    for split, size in zip(SPLITS, SIZES["sst"], strict=True):
        draw.forget()
        counts = [round(share * size) for share in DEGREE_SHARES]
        counts[2] += size - sum(counts)
        labels = [degree for degree in DEGREES for _ in range(counts[degree])]
        rows[split] = []
        for label in draw.shuffled(labels):
            text = None
            while text is None or text in seen or not 4 <= len(text.split()) <= 40:
                text = sentence(split, label)
            seen.add(text)
            rows[split].append(Row((text,), str(label)))
    return rows


# Film reviews

ASPECTS = ("acting", "script", "look", "effect")
CONCEDING = ("True, ", "Granted, ", "To be fair, ", "Admittedly, ", "")
RETURNING = ("But ", "Still, ", "Yet ", "", "")
# First words that lose their capital letter behind another word; names and "I" do not.
COMMON_FIRST_WORDS = frozenset(
    "A At By Characters Even Every For It My Nobody One People Some Somebody Somewhere "
    "The There Two Watching Whole You".split()
)


def review_rows() -> Rows:
    """Reviews of invented films: most sentences speak for the label, and a few against it."""
    draw = Draw("cfimdb")
    lists = read_lists("reviews.txt")
    films = divide(lists.pop("films"), draw, SIZES["cfimdb"])
    shelves = {name: Shelf.fill(items, draw, 0.25) for name, items in lists.items()}

    def behind(words: str, text: str) -> str:
        common = text.split()[0] in COMMON_FIRST_WORDS
        return words + text[0].lower() + text[1:] if words and common else text

    def review(split: str, sign: str) -> list[str]:
        title, genre, lead, plot = draw.pick(films[split]).split(" | ")

        def part(name: str) -> str:
            sentences = [s for s in shelves[name].for_split(split, draw) if s not in body]
            text = draw.pick(sentences)
            body.append(text)
            return text.format(title=title, genre=genre, lead=lead)

        body: list[str] = []  # the sentences taken so far, as templates
        other = "-" if sign == "+" else "+"
        intro = [part("open")] if draw.chance(0.8) else []
        intro += [plot] if draw.chance(0.8) or not intro else []
        order, count = draw.shuffled(ASPECTS), draw.between(2, 4)
        aspects, spare = order[:count], [aspect for aspect in order[count:] if aspect != "effect"]
        verdicts = [part(f"{aspect} {sign}") for aspect in aspects]
        if draw.chance(0.3):
            verdicts.append(part(f"{aspects[0]} {sign}"))
        if draw.chance(0.55):
            concession = behind(draw.pick(CONCEDING), part(f"concede {other}"))
            place = draw.between(0, len(verdicts) - 1)
            verdicts[place] = behind(draw.pick(RETURNING), verdicts[place])
            verdicts.insert(place, concession)
        if spare and draw.chance(0.5):  # one aspect speaks for the other side
            verdicts[0] = behind(draw.pick(RETURNING), verdicts[0])
            verdicts.insert(0, behind(draw.pick(CONCEDING), part(f"{spare[0]} {other}")))
        if draw.chance(0.85):
            verdicts.append(part(f"verdict {sign}"))
        return intro + verdicts

    rows: Rows = {}
    seen = {""}
    for split, size in zip(SPLITS, SIZES["cfimdb"], strict=True):
        draw.forget()
        rows[split] = []
        for sign in draw.shuffled("+-" * (size // 2)):
            text = ""
            while text in seen:
                sentences = review(split, sign)
                text = " ".join(sentences) if 4 <= len(sentences) <= 10 else ""
            seen.add(text)
            rows[split].append(Row((text,), "1" if sign == "+" else "0"))
    return rows


# Pairs of sentences

Pair = tuple[str, str]


def take_pairs(
    pools: list[list[Pair]], count: int, label: Callable[[], str], draw: Draw, seen: set[frozenset[str]]
) -> list[Row]:
    """Take unused pairs from the pools in turn; as many as asked for, if there are enough."""
    rows: list[Row] = []
    queues = [draw.shuffled(pool) for pool in draw.shuffled(pools)]
    for pair in filter(None, itertools.chain(*itertools.zip_longest(*queues))):
        if len(rows) < count and frozenset(pair) not in seen:
            seen.add(frozenset(pair))
            rows.append(Row(tuple(draw.shuffled(pair)), label()))
    return rows


def question_rows() -> Rows:
    """Wordings of one question, and pairs of different questions on one matter or on two."""
    draw = Draw("quora")
    blocks = divide(read_blocks("questions.txt"), draw, SIZES["quora"])
    rows: Rows = {}
    seen: set[frozenset[str]] = set()
    for split, size in zip(SPLITS, SIZES["quora"], strict=True):
        same, hard, easy = [], [], []
        for block in blocks[split]:
            wordings = [line[2:] for line in block if line.startswith("=")]
            nearby = [line[2:] for line in block if line.startswith("-")]
            strange = [line[2:] for other in blocks[split] if other is not block for line in other]
            same.append(list(itertools.combinations(wordings, 2)))
            hard.append([*itertools.product(wordings, nearby), *itertools.combinations(nearby, 2)])
            easy.append(list(itertools.product(wordings, strange)))
        duplicates, hard_count = round(0.4 * size), round(0.3 * size)
        rows[split] = draw.shuffled(
            take_pairs(same, duplicates, lambda: "1.0", draw, seen)
            + take_pairs(hard, hard_count, lambda: "0.0", draw, seen)
            + take_pairs(easy, size - duplicates - hard_count, lambda: "0.0", draw, seen)
        )
    return rows


def scene_rows() -> Rows:
    """Scenes and their variants, whose grade gives the similarity but for a little noise."""
    draw = Draw("sts")
    blocks = divide(read_blocks("scenes.txt"), draw, SIZES["sts"])
    rows: Rows = {}
    seen: set[frozenset[str]] = set()

    def score(grade: int) -> Callable[[], str]:
        return lambda: f"{min(50, max(0, 10 * grade + draw.between(-4, 4))) / 10:.1f}"

    for split, size in zip(SPLITS, SIZES["sts"], strict=True):
        pools: dict[int, list[list[Pair]]] = defaultdict(list)
        for topic, original, same, *lower in blocks[split]:
            strange = [line for other in blocks[split] if other[0] != topic for line in other[1:]]
            pools[5].append([(original, same)])
            for grade, text in zip((4, 3, 2, 1), lower, strict=True):
                pools[grade].append([(original, text), (same, text)])
            pools[0].append(list(itertools.product((original, same), strange)))
        rows[split] = []
        for done, grade in enumerate((5, 4, 3, 2, 1, 0)):
            count = (size - len(rows[split])) // (6 - done)
            rows[split] += take_pairs(pools[grade], count, score(grade), draw, seen)
        rows[split] = draw.shuffled(rows[split])
    return rows


# Writing the files


class Task(NamedTuple):
    """What a task's files look like and where its rows come from."""

    prefix: str
    texts: tuple[str, ...]
    label: str
    rows: Callable[[], Rows]


TASKS = (
    Task("ids-sst", ("sentence",), "sentiment", sentiment_rows),
    Task("ids-cfimdb", ("sentence",), "sentiment", review_rows),
    Task("quora", ("sentence1", "sentence2"), "is_duplicate", question_rows),
    Task("sts", ("sentence1", "sentence2"), "similarity", scene_rows),
)


def identifier(prefix: str, texts: tuple[str, ...]) -> str:
    """An id in the original style, made from the content."""
    return hashlib.sha256("\n".join((prefix, *texts)).encode()).hexdigest()[:25]


def table(task: Task, split: str, rows: list[Row]) -> list[list[str]]:
    """The cells of one file, header first."""
    ids = [identifier(task.prefix, row.texts) for row in rows]
    if split != "test":
        cells = [[str(i), ids[i], *row.texts, row.label] for i, row in enumerate(rows)]
        return [["", "id", *task.texts, task.label], *cells]
    if len(task.texts) == 1:  # the original files number the rows of these twice
        cells = [[str(i + 1), f"{i}.0", ids[i], *row.texts] for i, row in enumerate(rows)]
        return [["0", "", "id", *task.texts], *cells]
    cells = [[str(i), ids[i], *row.texts] for i, row in enumerate(rows)]
    return [["", "id", *task.texts], *cells]


def corpus() -> dict[str, bytes]:
    """The content of every file, by file name."""
    files: dict[str, bytes] = {}
    for task in TASKS:
        for split, rows in task.rows().items():
            text = io.StringIO()
            csv.writer(text, delimiter="\t", lineterminator="\n").writerows(table(task, split, rows))
            ending = "test-student" if split == "test" else split
            files[f"{task.prefix}-{ending}.csv"] = text.getvalue().encode()
    return files


def main() -> int:
    """Write or check the files; the result is the exit code."""
    parser = argparse.ArgumentParser(description="Write the demo corpus in examples/data.")
    parser.add_argument("--check", action="store_true", help="only compare the files, write nothing")
    check = parser.parse_args().check
    files = corpus()
    if check:
        present = {path.name: path.read_bytes() for path in DATA.glob("*.csv")}
        stale = sorted(name for name in files | present if files.get(name) != present.get(name))
        if stale:
            print(f"make_corpus.py: not up to date in {DATA}: {', '.join(stale)}", file=sys.stderr)
        return 1 if stale else 0
    DATA.mkdir(exist_ok=True)
    for name, content in files.items():
        (DATA / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
