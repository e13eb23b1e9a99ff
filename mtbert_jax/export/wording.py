"""What the two kinds of export say alike: which tasks there are, how they scored, how text becomes tokens."""

from typing import Any

from mtbert_jax.encoders.tokenizer_rules import TokenizerRules

EXAMPLES = {
    1: ["A warm, funny, engaging film."],
    2: ["How do I learn to swim?", "What is the best way to learn swimming?"],
}
"""Texts to try a task on, by how many it reads."""

LOGITS = """\
Logits come out, one row per example. `decision` in `tasks.json` says what a task's logits mean:

- `argmax`: one per class, in the order of `classes`; softmax makes probabilities of them.
- `sign`: a single one; a sigmoid makes the probability of 1 of it, and the label is 1 where it is above 0.
- `value`: the number itself.
- `signs`: one per class, each through a sigmoid; the labels are the classes whose logit is above 0.
- `count`: one fewer than there are classes; the label is the class whose index is the number of logits above 0.
- `tags`: one per class for every token; a word has the class of the largest logit at its first token. Words are parted
  by single blanks."""


def quoted(text: str) -> str:
    """Text of a person's choice as code in Markdown, on one line and inside a table's cell, too."""
    return "`" + " ".join(text.split()).replace("`", "'").replace("|", "\\|") + "`"


def task_table(tasks: dict[str, dict[str, Any]]) -> str:
    """The tasks with their scores, in Markdown."""
    lines = ["| task | kind | reads | labels | pooling | dev |", "|---|---|---|---|---|---|"]
    for name, task in tasks.items():
        reads = " and ".join(quoted(column) for column in task["text"])
        dev = [f"{key} {value:.3f}" for key, value in (task["dev"] or {}).items() if isinstance(value, (int, float))]
        cells = [name, task["kind"], reads, _labels(task), task["pooling"], ", ".join(dev) or "not known"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _labels(task: dict[str, Any]) -> str:
    if not task["classes"]:
        low, high = task["label_range"] or (None, None)
        return "a number" if low is None or high is None else f"{low:g} to {high:g}"
    classes = task["classes"]
    if all(isinstance(name, int) for name in classes):
        return f"{classes[0]} to {classes[-1]}"
    return ", ".join(quoted(name) for name in classes)


def score_note(tasks: dict[str, dict[str, Any]]) -> str:
    """What the table's scores are of."""
    if any(task["dev"] for task in tasks.values()):
        return "Scores are of the run's dev files, on which this checkpoint was also chosen: expect less on new data."
    return "This checkpoint has no scores: the run scored another one, or none."


def order_note(tasks: dict[str, dict[str, Any]], who: str) -> str:
    """Which tasks' pairs are scored in both orders, and `who` does that; nothing where there is none."""
    names = ", ".join(name for name, task in tasks.items() if task["both_orders"])
    if not names:
        return ""
    return f"""
The run scored the pairs of {names} in both orders, (a, b) and (b, a), and took the mean of the logits: {who}.
"""


def text_notes(about: dict[str, Any], rules: TokenizerRules) -> str:
    """How text becomes tokens, as a list in Markdown."""
    limits = {task["max_length"] for task in about["tasks"].values()}
    limit = f"{limits.pop()} tokens" if len(limits) == 1 else "the task's `max_length` of tokens"
    apart = ""
    if names := [name for name, task in about["tasks"].items() if len(task["inputs"]) > 1]:
        apart = (
            f"- Of {', '.join(names)} the encoder reads each text alone, too, or only so: `inputs` in `tasks.json`.\n"
        )
    return f"""\
{apart}- Two texts are one input, `{rules.pair}`, with token types 0 and 1, made by the tokenizer rather than by hand.
- Inputs are cut off after {limit}, special ones included; of two texts the longer one loses tokens first.
- Lone surrogates, the half characters that JSON can hold, are replaced: `text.encode("utf-8", "replace").decode()`."""
