"""What a run came to, in a few sentences that follow from its records, results and dev predictions alone."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from mtbert_jax.config import TaskConfig
from mtbert_jax.config.schema import with_nan
from mtbert_jax.report.contents import RunContents
from mtbert_jax.report.mistakes import FEW, recalls_of, where_it_errs
from mtbert_jax.results.differences import Difference, same_labels
from mtbert_jax.results.intervals import CONFIDENCE, Judged, bootstrap
from mtbert_jax.results.rows import Row
from mtbert_jax.tasks import kind_of, primary_metric
from mtbert_jax.tasks.metrics import Metric
from mtbert_jax.tasks.scores import AVERAGES, chosen_score

MOST_TASKS = 4  # that are spoken of one by one
SIGMAS = 3.0  # by which a share of steps must differ from one half to be called different
FAULTLESS = 0.999  # a score from which on there is nothing to gain
MOST_PREDICTIONS = 20_000  # of all tasks; of more there is no interval


def verdict(run: RunContents) -> str:
    """The sentences about a run."""
    parts = [_best(run), _course(run), _conflict(run), _errors(run)]
    if ideas := suggestions(run)[:2]:
        parts.append(f"To try: {'; '.join(ideas)}.")
    return " ".join(part for part in parts if part)


def _best(run: RunContents) -> str:
    """Which checkpoint is the best, what its score is, and what came after it."""
    steps, gains = chosen(run)
    name = chosen_name(run)
    step = (run.results or {}).get("step")
    if not run.of("eval"):
        if run.results is None or run.scores:
            return f"There is no evaluation yet; the records reach step {run.step}." if run.results is None else ""
        return f"No task has a dev file, so nothing is scored. The checkpoint is that of step {step}, the last."
    if not steps:
        return f"The {name} on dev was never defined, so no checkpoint is known to be the best."
    place = steps.index(step) if step in steps else int(np.argmax(gains))
    best, last = gains[place], gains[-1]
    shown = -best if _is_error(run) else best
    what = "checkpoint" if run.results is not None else "evaluation so far"
    text = f"The best {what} is that of step {steps[place]} of {run.step}: {name} {shown:.3f} on dev{_interval(run)}."
    if len(steps) == 1:
        return f"{text} It is the only evaluation, so it cannot be told whether the score was still rising."
    if place == len(steps) - 1:
        more = best - gains[-2]
        rose = f"it was still improving, by {more:.3f} since the one before" if more > 0 else "it had stopped improving"
        return f"{text} That is the last of {len(steps)} evaluations; {rose}."
    fell = f"{best - last:.3f} worse" if best > last else "as good"
    return f"{text} The last of {len(steps)} evaluations, at step {steps[-1]}, is {fell}."


def chosen_name(run: RunContents) -> str:
    """What the best checkpoint is chosen by."""
    which = run.config.checkpoint_metric
    if which in AVERAGES:
        return which.replace("_", " ")
    task, _, metric = which.partition(".")
    found = next((one for one in run.config.tasks if one.name == task), None)
    return f"{task} {metric or (primary_metric(found).name if found else '')}".strip()


def _is_error(run: RunContents) -> bool:
    """Whether the best checkpoint is chosen by a metric of which less is better."""
    name, _, metric = run.config.checkpoint_metric.partition(".")
    task = next((one for one in run.config.tasks if one.name == name), None)
    if task is None:
        return False
    return next((one for one in kind_of(task).metrics if one.name == metric), primary_metric(task)).best == "min"


def chosen(run: RunContents) -> tuple[list[int], list[float]]:
    """Steps of the evaluations with the score that the best checkpoint is chosen by, larger the better.

    Tasks whose primary metric is never defined are left out of an average, as in training.
    """
    which = run.config.checkpoint_metric
    evaluations = [(record["step"], with_nan(record["scores"])) for record in run.of("eval")]
    if which in AVERAGES:
        scored = [{task.name for task in run.config.tasks if _is_scored(scores, task)} for _, scores in evaluations]
        tasks = [task for task in run.config.tasks if any(task.name in names for names in scored)]
    else:
        tasks = [task for task in run.config.tasks if task.name == which.partition(".")[0]]
    found = []
    for step, scores in evaluations:
        try:
            value = chosen_score(scores, tasks, which)
        except (KeyError, TypeError):  # records of another metric, or damaged ones
            value = math.nan
        if math.isfinite(value):
            found.append((step, value))
    return [step for step, _ in found], [value for _, value in found]


def _is_scored(scores: dict[str, object], task: TaskConfig) -> bool:
    own = scores.get(task.name)
    value = own.get(primary_metric(task).name) if isinstance(own, dict) else None
    return isinstance(value, int | float) and math.isfinite(value)


def _interval(run: RunContents) -> str:
    """The bootstrap interval of an average over the dev examples, if it is of all tasks and not too much work."""
    name, scored = run.config.checkpoint_metric, [n for n, scores in run.scores.items() if isinstance(scores, dict)]
    judged = {n: Judged(one.task, one.predicted[None], one.labels) for n, one in run.judged.items() if n in scored}
    sizes = [len(one.labels) for one in judged.values()]
    finite = all(np.isfinite(one.predicted).all() for one in judged.values())
    if name not in AVERAGES or set(judged) != set(scored) or not judged:
        return ""
    if min(sizes) < 2 or sum(sizes) > MOST_PREDICTIONS or not finite:
        return ""
    low, high = bootstrap(judged)[name]
    if not (math.isfinite(low) and math.isfinite(high)) or low == high:  # no resample of a faultless file differs
        return ""
    return f" ({CONFIDENCE:.0%} interval over the dev examples {low:.3f} to {high:.3f})"


def _course(run: RunContents) -> str:
    """Training loss beside dev score, task by task."""
    told = []
    for task in run.config.tasks[:MOST_TASKS]:
        metric = primary_metric(task)
        _, losses = run.means("loss", task.name)
        _, scores = run.series("eval", "scores", task.name, metric.name)
        parts = []
        if len(losses) > 1:
            parts.append(f"training loss {_way(losses)}")
        if len(scores) > 1:
            parts.append(f"dev {metric.name} {_way(scores)}")
        elif not scores and run.of("eval") and task.dev:
            parts.append(f"dev {metric.name} undefined")
        if parts:
            told.append(f"{task.name}: {', '.join(parts)}")
    more = len(run.config.tasks) - MOST_TASKS
    return f"From first to last: {'; '.join(told)}{f'; {more} more tasks below' if more > 0 else ''}." if told else ""


def _way(values: Sequence[float]) -> str:
    return f"{values[0]:.3f} → {values[-1]:.3f}"


def _conflict(run: RunContents) -> str:
    """How often gradients of the encoder point against each other, beside what unrelated ones would do."""
    pairs = [(pair, *run.share("conflict", pair), run.share("cosine", pair)[0]) for pair in run.names("conflict")]
    pairs = sorted((pair for pair in pairs if pair[2]), key=lambda pair: -pair[1])
    if not pairs:
        return ""
    told = [
        f"{pair} in {share:.0%} of {steps} steps (mean cosine {cosine:+.3f})" for pair, share, steps, cosine in pairs
    ]
    if len(told) > 3:
        told = [told[0], f"{told[-1]} at the other end, of {len(told)} pairs"]
    more = [pair for pair, share, steps, _ in pairs if beyond_half(share, steps) > SIGMAS]
    less = [pair for pair, share, steps, _ in pairs if beyond_half(share, steps) < -SIGMAS]
    apart = [f"{_names(more)} {_be(more)} above that"] if more else []
    apart += [f"{_names(less)} {_be(less)} below it"] if less else []
    seen = " and ".join(apart) if apart else "no pair is clearly above or below that"
    return (
        f"Gradients of the encoder conflict: {', '.join(told)}. Unrelated gradients are nearly orthogonal and would "
        f"conflict in about half of the steps; {seen}. A conflict alone does not say that a task is harmed."
    )


def beyond_half(share: float, steps: int) -> float:
    """By how many standard deviations a share of independent steps lies above one half, which is 0.5 / √steps each.

    >>> beyond_half(0.6, 100)
    1.9999999999999996
    """
    return (share - 0.5) / (0.5 / math.sqrt(steps))


def _names(pairs: Sequence[str]) -> str:
    return ", ".join(pairs) if len(pairs) <= 3 else f"{len(pairs)} pairs"


def _be(pairs: Sequence[str]) -> str:
    return "is" if len(pairs) == 1 else "are"


def _errors(run: RunContents) -> str:
    told = [text for one in list(run.judged.values())[:MOST_TASKS] if (text := where_it_errs(one))]
    return " ".join(told)


def suggestions(run: RunContents) -> list[str]:
    """What the run itself gives a reason to try, the strongest reason first."""
    return [*_not_finite(run), *_length(run), *_surgery(run), *_rare(run)]


def _not_finite(run: RunContents) -> Iterator[str]:
    left_out: dict[str, int] = {}
    for record in run.of("train"):
        for task, count in record.get("left_out", {}).items():
            left_out[task] = left_out.get(task, 0) + count
    if left_out:
        listed = ", ".join(f"{task} {count} times" for task, count in left_out.items())
        yield f"a lower lr, since a loss or gradient was not finite and left out ({listed})"


def _length(run: RunContents) -> Iterator[str]:
    steps, gains = chosen(run)
    if len(steps) < 2:
        if len(steps) == 1 and run.results is not None and not run.config.eval_every_steps:
            yield "eval_every_steps, to see how the score moves within an epoch"
        return
    place = int(np.argmax(gains))
    perfect = FAULTLESS <= gains[-1] <= 1
    if place == len(steps) - 1 and gains[-1] > gains[-2] and run.results is not None and not perfect:
        yield "more epochs, since the score was still improving"
    learning = [task.name for task in run.config.tasks if _still_learns(run, task, steps[place])]
    if len(steps) - place > 2 and learning:
        yield (
            f"patience = 2 or fewer epochs, since the training loss of {', '.join(learning)} kept falling after step "
            f"{steps[place]} and no later evaluation was better"
        )


def _still_learns(run: RunContents, task: TaskConfig, best: int) -> bool:
    steps, losses = run.means("loss", task.name)
    metric: Metric = primary_metric(task)
    at, scores = run.series("eval", "scores", task.name, metric.name)
    before = [loss for step, loss in zip(steps, losses, strict=True) if step <= best]
    if not before or steps[-1] <= best or best not in at:
        return False
    return losses[-1] < before[-1] and metric.gain(scores[-1]) < metric.gain(scores[at.index(best)])


def _surgery(run: RunContents) -> Iterator[str]:
    plain = all(stage.optimizer[0].startswith(("sum_tasks", "mean_tasks")) for stage in run.config.resolved_stages())
    shares = {pair: run.share("conflict", pair) for pair in run.names("conflict")}
    above = [pair for pair, (share, steps) in shares.items() if steps and beyond_half(share, steps) > SIGMAS]
    if plain and above:
        found = f"gradients of {_names(above)} conflict more often than unrelated ones would"
        yield f"an aggregator such as pcgrad(), since {found}"


def _rare(run: RunContents) -> Iterator[str]:
    for one in run.judged.values():
        if not kind_of(one.task).one_class_each or not np.isfinite(one.predicted).all():
            continue
        balanced = one.task.loss_balance or one.task.sampling_balance or one.task.class_weights
        never = [name for name, (right, total) in recalls_of(one).items() if right == 0 and total >= 2 * FEW]
        if never and not balanced:
            yield (
                f"loss_balance for {one.task.name} if class {', '.join(never)} matters, of which nothing is found; "
                "accuracy may fall"
            )


def comparison(rows: Sequence[Row], gains: Sequence[Difference], alike: bool = True) -> str:
    """Which of several rows has the highest average, and whether dev examples tell it from the first row.

    `alike` says whether the averages are of the same tasks and metrics.
    """
    scored = [row for row in rows if "average" in row.values and math.isfinite(row.values["average"].mean)]
    if len(scored) < 2:
        return _seeds(scored)
    if not alike or not all(same_labels(row, scored[0]) for row in scored):
        return "The averages do not compare: these runs differ in their tasks, metrics or dev examples."
    best = max(scored, key=lambda row: row.values["average"].mean)
    text = f"{best.name} has the highest average on dev, {best.values['average'].mean:.3f}."
    found = next((one for one in gains if one.name == best.name and "average" in one.values), None)
    if found is None:
        return text
    value = found.values["average"]
    text += f" It is {value.mean:+.3f} beside {found.against} over {len(found.seeds)} shared seed"
    text += "" if len(found.seeds) == 1 else "s"
    if value.interval is None:
        return f"{text}."
    low, high = value.interval
    apart = "without" if low > 0 or high < 0 else "with"
    one = " One seed each does not show what other seeds would change." if len(found.seeds) == 1 else ""
    return f"{text}, {CONFIDENCE:.0%} interval over dev examples {low:+.3f} to {high:+.3f}, {apart} zero in it.{one}"


def _seeds(rows: Sequence[Row]) -> str:
    """Mean and spread of the average over the seeds of a single row."""
    if not rows or rows[0].values["average"].sd is None:
        return ""
    (row,), average = rows, rows[0].values["average"]
    text = f"{row.name}: the average on dev is {average.mean:.3f} over {len(row.seeds)} seeds"
    return f"{text}, with a standard deviation of {average.sd:.3f} between them."
