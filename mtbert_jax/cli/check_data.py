"""The data of a config in words and numbers, and what of it would stop a training run."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from rich.console import Group

from mtbert_jax.checks import check_config
from mtbert_jax.config import Config
from mtbert_jax.config.schema import finite, nearest, to_dict
from mtbert_jax.data.raw_rows import SKIP
from mtbert_jax.data.streams import epoch_shapes, padded_lengths, stage_batches
from mtbert_jax.data.survey import PERCENTILES, Lines, Repeats, SplitSurvey, Surveyed, survey
from mtbert_jax.data.unknown import unknown_warning
from mtbert_jax.encoders.tokenizer import LoadedTokenizer, read_tokenizer
from mtbert_jax.tasks import kind_of
from mtbert_jax.terminal import Grid
from mtbert_jax.training.source import source_of, with_encoder


class StageShapes(NamedTuple):
    """The batches of a stage's first epoch.

    Attributes:
        shapes: How many batches there are of each shape: rows, length, count; none on kept features.
        computed_per_token: Tokens computed for each real one: what padding costs; None on kept features.
    """

    stage: str
    steps: int
    steps_per_epoch: int
    shapes: list[tuple[int, int, int]]
    computed_per_token: float | None


@dataclasses.dataclass(frozen=True)
class DataCheck:
    """What there is to say of a config's data.

    Attributes:
        lengths: The lengths that training batches are padded to, by task.
        stages: The batches of every stage; empty where some task cannot be trained.
        problems: What would stop a training run.
        warnings: What is probably not meant.
        remarks: What makes scores mean less than they seem to, or leaves rows or tokens out.
    """

    found: Surveyed
    lengths: dict[str, list[int]]
    stages: list[StageShapes]
    problems: list[str]
    warnings: list[str]
    remarks: list[str]

    def verdict(self) -> str:
        """Whether these data can be trained on, and what to look at before, line by line."""
        if self.problems:
            return "\n".join(["verdict: training would refuse these data:", *(f"- {line}" for line in self.problems)])
        if not (self.remarks or self.warnings):
            return "verdict: these data can be trained on; nothing in them stands out"
        lines = ["verdict: these data can be trained on; look at this first:"]
        told = [*self.remarks, *(["what the lines on standard error say"] if self.warnings else [])]
        return "\n".join([*lines, *(f"- {line}" for line in told)])

    def as_dict(self) -> dict[str, Any]:
        """For machines: plain values, as JSON has them."""
        found = {"splits": self.found.splits, "overlaps": self.found.overlaps, "lengths": self.lengths}
        told = {"stages": self.stages, "problems": self.problems, "warnings": self.warnings, "remarks": self.remarks}
        return finite(to_dict({**found, **told}))

    def tables(self) -> Group:
        """For people."""
        splits = self.found.splits
        tables = [
            Grid([ROWS, *map(_rows, splits)], "rows", REPEATS, 2),
            Grid([["task", "split", "labels"], *([s.task, s.split, _labels(s)] for s in splits)], "labels", left=3),
            Grid([TOKENS, *map(_tokens, splits)], "tokens", TOKENS_CAPTION, 2),
        ]
        if bad := [line for split in splits for line in _bad(split)]:
            tables.append(Grid([["task", "split", "bad rows", "count", "first"], *bad], "bad rows", left=3))
        if several := [_lines(split, split.several) for split in splits if split.several.rows]:
            tables.append(Grid([["task", "split", "rows", "first"], *several], "rows of several lines", SEVERAL, 2))
        if self.found.overlaps:
            tables.append(Grid([OVERLAP, *self._overlaps()], "overlap", left=2))
        if self.stages:
            tables.append(Grid([STAGES, *map(_stage, self.stages)], "batches of the first epoch", self._lengths()))
        return Group(*tables)

    def _overlaps(self) -> Iterator[list[str]]:
        for task, split, within, found in self.found.overlaps:
            yield [task, f"{split} in {within}", str(found.rows), str(found.other_label), _pairs(found)]

    def _lengths(self) -> str:
        alike: dict[tuple[int, ...], list[str]] = {}
        for task, lengths in self.lengths.items():
            alike.setdefault(tuple(lengths), []).append(task)
        return "\n".join(
            f"{', '.join(tasks)}: padded to {', '.join(map(str, lengths))} tokens" for lengths, tasks in alike.items()
        )


ROWS = ["task", "split", "rows", "bad", "labelled", "no label", "duplicates", "other label", "lines"]
REPEATS = (
    "no label: predicted and not scored in a test file, left out of train and dev; "
    "duplicates: texts of an earlier row, but for capitals and blanks; other label: those whose label is another one; "
    "lines: where the first of them stand, and the rows that they repeat"
)
SEVERAL = "texts in quotes with line breaks in them; if quotes are plain text in the file, set quotes = false"
TOKENS = ["task", "split", "50%", "90%", "95%", "99%", "longest", "limit", "cut", "share cut", "unknown"]
TOKENS_CAPTION = (
    "tokens of an example, special ones included, or of the longer text where each is read alone; cut: rows that are "
    "longer than the limit; unknown: share of the tokens that stand for words that the vocabulary lacks"
)
OVERLAP = ["task", "splits", "rows", "other label", "lines"]
STAGES = ["stage", "steps", "steps an epoch", "rows × tokens (batches)", "computed for each real token"]


def check_data(config: Config) -> DataCheck:
    """Reads all data files of a config, and its encoder's tokenizer; `InputError` where one cannot be read."""
    check_config(config)
    loaded = read_tokenizer(with_encoder(config, source_of(config), weights=False)[1])
    found = survey(config, loaded.tokenizer)
    problems = list(_problems(config, found))
    train = found.train
    trainable = len(train) == len(config.tasks) and all(data.labelled for data in train.values())
    lengths = {name: rungs.tolist() for name, rungs in padded_lengths(config, train).items()} if trainable else {}
    warnings = [*loaded.remarks(max(task.max_length for task in config.resolved_tasks())), *_unknown(loaded, found)]
    stages = list(_stages(config, found)) if trainable else []
    return DataCheck(found, lengths, stages, problems, warnings, list(_remarks(config, found)))


SHARE = 0.01  # of a split's rows: what concerns fewer of them is no remark
MAJORITY = 0.8  # share of a class from which on it is a remark


def _remarks(config: Config, found: Surveyed) -> Iterator[str]:
    for split in found.splits:
        yield from _split_remarks(config, split)
    sizes = {(split.task, split.split): split.rows for split in found.splits}
    for task, later, within, repeats in found.overlaps:
        total = sizes[task, later]
        if repeats.rows > SHARE * total:
            why = "; scores on them say less about new texts" if within == "train" else ""
            yield f"task {task}: {repeats.rows} of {total} {later} rows also stand in {within}{why}"
    if not any(task.dev for task in config.tasks):
        yield "no task has a dev file: no checkpoint can be called the best"


def _split_remarks(config: Config, split: SplitSurvey) -> Iterator[str]:
    where = f"task {split.task}, {split.split}"
    task = {task.name: task for task in config.resolved_tasks()}[split.task]
    if (wrong := sum(bad.rows for bad in split.bad)) and config.bad_rows != "error":
        yield f"{where}: {wrong} bad rows are left out"
    if split.unlabelled.rows and split.split != "test":
        yield f"{where}: {split.unlabelled.rows} rows with {kind_of(task).lacks(task)} are left out"
    if split.split == "test" and not split.labelled and kind_of(task).reads_label(task):
        taken = {*task.text, task.id, *(other.label for other in config.tasks)}
        hint = nearest(task.label, [name for name in split.columns if name not in taken])
        if hint and task.label not in split.columns:
            yield f"{where}: no row has a label, since there is no column {task.label!r}{hint}"
    if split.empty.rows:
        yield f"{where}: {split.empty.rows} rows have an empty text, the first in line {split.empty.lines[0]}"
    if split.duplicates.other_label:
        yield f"{where}: {split.duplicates.other_label} rows repeat an earlier text with another label"
    if split.cut > SHARE * split.rows:
        yield f"{where}: {split.cut} of {split.rows} rows are cut off after {split.limit} tokens (max_length)"
    if split.classes and split.split == "train" and (missing := [n for n, count in split.classes.items() if not count]):
        yield f"{where}: no row of class {', '.join(missing)}"
    largest = max(split.classes, key=lambda name: split.classes[name], default="")
    if split.split == "dev" and split.labelled and split.classes:
        share = split.classes[largest] / split.labelled
        if share >= MAJORITY:
            yield f"{where}: {share:.0%} of the labels are {largest}, so that always saying so has that accuracy"


def _unknown(loaded: LoadedTokenizer, found: Surveyed) -> Iterator[str]:
    """A line for every task with too many unknown tokens in a split, about the worst of them."""
    worst: dict[str, SplitSurvey] = {}
    for split in found.splits:
        if split.task not in worst or split.unknown > worst[split.task].unknown:
            worst[split.task] = split
    for split in worst.values():
        warning = unknown_warning(loaded.tokenizer, f"task {split.task}, {split.split}", split.unknown)
        if warning:
            yield warning


def _problems(config: Config, found: Surveyed) -> Iterator[str]:
    for split in found.splits:
        wrong = sum(bad.rows for bad in split.bad)
        if wrong and (config.bad_rows == "error" or not split.rows):
            first = min(split.bad, key=lambda bad: bad.lines[0])
            told = f"the first: {split.file}:{first.lines[0]}: {first.reason}"
            if split.rows or first.advice != SKIP:
                told += f" ({first.advice})"
            yield f"task {split.task}: {'only bad rows' if not split.rows else f'{wrong} bad rows'}, {told}"
        elif not split.rows:
            yield f"task {split.task}: no row of {split.file} has a label"
    for task in config.tasks:
        if not task.train:
            yield f'task {task.name} has no train file; give its name as train = "..."'


def _stages(config: Config, found: Surveyed) -> Iterator[StageShapes]:
    for number, stage in enumerate(config.resolved_stages()):
        batches = stage_batches(config, number, stage, found.train, lambda size: size)
        shapes = None if stage.cache_features else epoch_shapes(batches)
        listed = [(rows, length, count) for (rows, length), count in shapes.batches.items()] if shapes else []
        cost = shapes.computed / shapes.real if shapes else None
        yield StageShapes(stage.name, batches.num_steps, batches.steps_per_epoch, listed, cost)


def _rows(split: SplitSurvey) -> list[str]:
    wrong, twice = sum(bad.rows for bad in split.bad), split.duplicates
    counts = (split.rows, wrong, split.labelled, split.unlabelled.rows, twice.rows, twice.other_label)
    return [split.task, split.split, *map(str, counts), _pairs(twice)]


def _labels(split: SplitSurvey) -> str:
    if split.scores:
        return ", ".join(f"{at}%: {value:g}" for at, value in split.scores.items())
    total = split.places or split.labelled
    shares = (f"{name}: {count} ({count / total:.1%})" for name, count in split.classes.items())
    return ", ".join(shares) or "none"


def _tokens(split: SplitSurvey) -> list[str]:
    counts = (*(split.tokens.get(at, "") for at in PERCENTILES), split.limit, split.cut)
    shares = (f"{split.cut / max(split.rows, 1):.1%}", f"{split.unknown:.1%}")
    return [split.task, split.split, *map(str, counts), *shares]


def _bad(split: SplitSurvey) -> Iterator[list[str]]:
    for bad in split.bad:
        task, name, count, first = _lines(split, Lines(bad.rows, bad.lines))
        yield [task, name, bad.reason, count, first]


def _lines(split: SplitSurvey, found: Lines) -> list[str]:
    more = ", …" if found.rows > len(found.lines) else ""
    return [split.task, split.split, str(found.rows), f"{split.file}:{', '.join(map(str, found.lines))}{more}"]


def _stage(stage: StageShapes) -> list[str]:
    shapes = ", ".join(f"{rows} × {length} ({count})" for rows, length, count in stage.shapes)
    cost = "" if stage.computed_per_token is None else f"{stage.computed_per_token:.2f}"
    return [stage.stage, str(stage.steps), str(stage.steps_per_epoch), shapes or "features, kept", cost]


def _pairs(found: Repeats) -> str:
    more = ", …" if found.rows > len(found.lines) else ""
    return ", ".join(f"{line} = {other}" for line, other in found.lines) + more
