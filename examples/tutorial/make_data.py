"""Writes the tutorial's data: two small tasks over invented sentences about a library's desk.

    python examples/tutorial/make_data.py FOLDER

``tone`` is a TSV file as GLUE's are (no quoting): is a message friendly, neutral or angry? ``fits`` is JSON Lines over
pairs: does the answer fit the question? All sentences are made here, from lists of words.
"""

import json
import random
import sys
from pathlib import Path

THINGS = ("book", "map", "record", "magazine", "dictionary", "atlas", "poster", "score")
OPENINGS = {
    "friendly": ("thank you so much,", "what a lovely help,", "you are so kind,", "many thanks,"),
    "neutral": ("please note:", "for your files:", "as agreed,", "today"),
    "angry": ("this is a disgrace,", "I have had enough,", "how dare you,", "never again:"),
}
FACTS = ("the {} has come back", "the {} is still missing", "the {} was lent out", "the {} was renewed")
QUESTIONS = {
    "when": ("when can I fetch the {}?", ("the {} is ready on Monday", "you can have the {} tomorrow")),
    "where": ("where do I find the {}?", ("the {} stands on the second floor", "look for the {} next to the stairs")),
    "how much": ("how much is the {}?", ("the {} costs three pounds", "you pay two pounds for the {}")),
}
SIZES = {"train": 240, "dev": 60}


def tone(rng: random.Random) -> tuple[str, str]:
    """A message and its tone."""
    name = rng.choice(list(OPENINGS))
    return f"{rng.choice(OPENINGS[name])} {rng.choice(FACTS).format(rng.choice(THINGS))}", name


def fits(rng: random.Random) -> dict[str, str | int]:
    """A question, an answer, and whether they fit: the same kind and the same thing."""
    asked, thing = rng.choice(list(QUESTIONS)), rng.choice(THINGS)
    told, other = asked, thing
    if fitting := rng.random() < 0.5:
        pass
    elif rng.random() < 0.5:
        told = rng.choice([name for name in QUESTIONS if name != asked])
    else:
        other = rng.choice([name for name in THINGS if name != thing])
    answer = rng.choice(QUESTIONS[told][1]).format(other)
    return {"question": QUESTIONS[asked][0].format(thing), "answer": answer, "fits": int(fitting)}


def main() -> None:
    """Writes four files."""
    if len(sys.argv) != 2:
        raise SystemExit("name a folder: python examples/tutorial/make_data.py FOLDER")
    folder, rng = Path(sys.argv[1]), random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    for split, size in SIZES.items():
        rows = [f"{number}\t{text}\t{label}\n" for number, (text, label) in enumerate(tone(rng) for _ in range(size))]
        (folder / f"tone-{split}.tsv").write_text("index\tsentence\ttone\n" + "".join(rows), encoding="utf-8")
        lines = [json.dumps({"id": f"{split}{number}", **fits(rng)}) for number in range(size)]
        (folder / f"fits-{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
