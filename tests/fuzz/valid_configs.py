"""Configs that are right, drawn over tiny data: sparse tables, as people write them, of every field that a run has."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.conftest import BAD, GOOD

Table = dict[str, Any]
MOODS = ["awful", "so so", "lövely"]
TEXTS = {
    "sst": {"text": ["sentence"], "label": "sentiment", "kind": "classification", "num_classes": 5},
    "para": {"text": ["sentence1", "sentence2"], "label": "is_duplicate", "kind": "binary"},
    "sts": {"text": ["sentence1", "sentence2"], "label": "similarity", "kind": "regression"},
    "mood": {"text": ["review"], "label": "mood", "kind": "classification", "classes": MOODS, "id": ""},
    "stars": {"text": ["review"], "label": "stars", "kind": "regression", "id": ""},
    "plain": {"text": ["a", "b"], "label": "good", "kind": "binary", "quotes": False},
    "tags": {"text": ["review"], "label": "tags", "kind": "multilabel", "classes": ["warm", "löng", "rare"], "id": ""},
    "soft": {"text": ["review"], "label": "soft", "kind": "distribution", "classes": MOODS, "id": ""},
    "order": {"text": ["review"], "label": "stars", "kind": "ranking", "id": ""},
    "text": {"text": ["review"], "kind": "masked_lm", "id": ""},
    "near": {"text": ["review"], "kind": "contrastive", "id": ""},
    "alike": {
        **{"text": ["sentence1", "sentence2"], "label": "is_duplicate", "kind": "contrastive"},
        **{"min_label": 1.0, "temperature": 0.1},
    },
    "names": {"text": ["words"], "label": "spans", "kind": "tokens", "classes": ["GOOD", "THING"], "id": ""},
}
"""Tasks: those of reviews are of one file, and `plain` has quotes as GLUE's files have them."""
WHOLE_BATCHES = ("order", "near", "alike")
"""Tasks whose loss is of a batch, which cannot be computed in parts."""
WORDS = ("names", "text", "near", "alike")
"""Tasks of whose heads no features can be kept, and whose words stay: they read tokens, or two vectors."""
AUXILIARY = ("masked_lm", "contrastive")
"""Kinds that predict no labels."""
REVIEWS = ("reviews.jsonl", "few.jsonl", "unlabelled.jsonl")
FILES = {
    "sst": ("ids-sst-train.csv", "ids-sst-dev.csv", "ids-sst-test-student.csv"),
    "para": ("quora-train.csv", "quora-dev.csv", "quora-test-student.csv"),
    "sts": ("sts-train.csv", "sts-dev.csv", "sts-test-student.csv"),
    **dict.fromkeys(("mood", "stars", "tags", "soft", "order", "names", "text", "near"), REVIEWS),
    "alike": ("quora-train.csv", "quora-dev.csv", ""),
    "plain": ("plain.tsv", "one.tsv", "plain.tsv"),
}
METRICS = {
    "classification": ["accuracy", "f1"],
    "binary": ["accuracy", "f1"],
    "regression": ["pearson", "spearman", "mae", "rmse"],
    "multilabel": ["micro_f1", "macro_f1"],
    "distribution": ["accuracy", "f1", "cross_entropy"],
    "ranking": ["spearman", "pearson"],
    "tokens": ["f1", "accuracy"],
    "masked_lm": ["loss", "perplexity"],
    "contrastive": ["loss", "alignment", "uniformity"],
}
SMART = [
    {"weight": 1.0},
    {"weight": 0.5, "preset": "paper", "ramp_fraction": 0.5},
    {"weight": 1.0, "preset": "smart_pytorch", "norm": "2"},
    {"weight": 1.0, "preset": "mtdnn", "norm": "1", "resample_dropout": True},
    {"weight": 1.0, "steps": 0, "radius": 0.01, "noise_std": 0.001, "step_size": 0.1},
]
PROXIMAL = [
    {"weight": 1.0},
    {"weight": 0.5, "teacher": "vanilla", "anchor_every_steps": 2},
    {"weight": 0.1, "momentum": 0.0},
]
CHAINS = [
    ["pcgrad()", "clip_by_global_norm(1.0)", "adamw(lr, weight_decay=0.01, mask=kernels)"],
    ["mean_tasks()", "adam(lr)"],
    ["sum_tasks()", "sgd(lr, momentum=0.9)"],
    ["pcgrad(reduction='mean', include_self=True)", "layerwise_decay(0.9)", "lamb(lr)"],
    ["mean_tasks()", "partition({'encoder': adam(lr), 'heads': adamw(0.01)}, parts)"],
]


def write_data(course: Path, folder: Path) -> Path:
    """The course's files, and those of the other tasks: one row of each is bad in files named so."""
    shutil.copytree(course, folder)

    def rows(count: int, labelled: bool) -> str:
        lines = []
        for number in range(count):
            words = [(GOOD if number % 3 else BAD)[number % 5], "film", BAD[number % 4]][: 1 + number % 3]
            labels: Table = {"mood": MOODS[number % 3], "stars": number % 5 + 0.5}
            labels |= {
                "tags": [["warm"], "warm|löng", ""][number % 3],
                "soft": [[0.25, 0.5, 0.25], MOODS[0]][number % 2],
            }
            said = f"the film was {' '.join(words)} {number}"
            tags = ["O", "B-THING", "O", *(["B-GOOD", "I-GOOD", "I-GOOD"][: len(words)]), "O"]
            text: Table = {"words": said.split() if number % 2 else said}
            labels |= {"spans": tags if number % 3 else " ".join(tags)}
            labels = {**text, **(labels if labelled else {})}
            lines.append(json.dumps({"review": said, **labels}) + "\n")
        return "".join(lines)

    def pairs(count: int) -> str:
        lines = [f'{number}\tthe "film\ta "{GOOD[number % 5]}" {number}\t{number % 2}\n' for number in range(count)]
        return "".join(["id\ta\tb\tgood\n", *lines])

    (folder / "reviews.jsonl").write_text(rows(30, True), encoding="utf-8")
    (folder / "few.jsonl").write_text(rows(4, True), encoding="utf-8")
    (folder / "unlabelled.jsonl").write_text(rows(5, False), encoding="utf-8")
    (folder / "plain.tsv").write_text(pairs(20), encoding="utf-8")
    (folder / "one.tsv").write_text(pairs(1), encoding="utf-8")
    for name in ("ids-sst-train.csv", "sts-dev.csv"):
        (folder / f"bad-{name}").write_text((folder / name).read_text() + "9\tbad\n", encoding="utf-8")
    return folder


@st.composite
def valid_configs(draw: st.DrawFn, pinned: Mapping[str, Any]) -> Table:
    """A config that training takes, but for `encoder`, `data_dir`, `cache_dir` and `out`.

    Args:
        pinned: Fields that are not drawn: those that decide which programs are compiled, where these are to be shared.
            `names` are the tasks, `fields` fields of all tasks.
    """

    def some(name: str, *choices: Any, left_out: int = 1) -> Table:
        """`name` with one of the choices, or nothing, so that the default counts."""
        if name in pinned:
            return {name: pinned[name]} if pinned[name] is not None else {}
        chosen = draw(st.sampled_from([None] * left_out + [*choices]))
        return {} if chosen is None else {name: chosen}

    names = pinned.get("names") or draw(st.lists(st.sampled_from([*TEXTS]), min_size=1, max_size=3, unique=True))
    tasks = [_task(draw, name, pinned.get("fields")) for name in names]
    config: Table = {
        **some("max_length", 40, 12),
        **some("lengths", [40], [8, 40], left_out=2),
        **some("max_shapes", 1, 2),
        **some("head", *_heads(paired=False)),
        **some("compute_dtype", "bfloat16", left_out=3),
        **some("encoder_dropout", *([] if "near" in names else [0.0]), 0.2),
        **some("remat", True, left_out=3),
        **({} if {*names} & {*WHOLE_BATCHES} else some("micro_batches", 2, 3, left_out=4)),
        **some("order", "sequential", "round_robin", "proportional", "annealed", "temperature"),
        **some("batch_size", 4),
        **some("eval_batch_size", 8),
        **some("optimizer", *CHAINS),
        **some("smart", *SMART, left_out=6),
        **some("proximal", *PROXIMAL, left_out=3),
        **some("lora", {"rank": 2}, {"rank": 3, "alpha": 1.0, "paths": ["encoder/*/output"]}, left_out=6),
        **some("seed", 1, 2**32 - 1),
        **some("seeds", [0, 3], left_out=9),
    }
    for name, choices in _CHEAP.items():
        config |= some(name, *choices)
    config |= _length(draw)
    if draw(st.integers(0, 3)) == 0:
        config["bad_rows"] = "skip"
        for task in tasks:
            if task["name"] in ("sst", "sts"):
                split = {"sst": "train", "sts": "dev"}[task["name"]]
                task[split] = f"bad-{task[split]}" if task.get(split) else task.get(split, "")
    if config.get("proximal") and draw(st.booleans()):
        config["evaluate"] = "teacher"
    if config.get("seeds"):
        config.pop("patience", None)
    if (
        stages := pinned["stages"]
        if "stages" in pinned
        else draw(st.sampled_from([None, None, "frozen", "two", "limits"]))
    ):
        changed = any(task.get(name) for task in tasks for name in ("swap_pairs", "word_deletion"))
        config["stages"] = _stages(draw, stages, cached=not changed and not {*names} & {*WORDS})
        if config.get("evaluate") == "teacher":
            config.pop("evaluate")
    scores = ["average", "plain_average"]
    scores += [task["name"] for task in tasks if task.get("dev")]
    scores += [f"{task['name']}.{draw(st.sampled_from(METRICS[task['kind']]))}" for task in tasks if task.get("dev")]
    config |= {"checkpoint_metric": draw(st.sampled_from(scores))} if draw(st.booleans()) else {}
    return {**config, "tasks": tasks}


_CHEAP: dict[str, list[Any]] = {
    "lr": [1e-3, 1e-5],
    "schedule": ["constant", "linear", "cosine"],
    "warmup_fraction": [0.5, 1.0],
    "log_every_steps": [1, 2],
    "eval_every_steps": [1],
    "save_every_steps": [1],
    "max_bad_steps": [0, 1],
    "patience": [1],
}
"""Fields that change no program."""


def _heads(paired: bool) -> Sequence[Table]:
    heads = [{"pooling": "mean"}, {"hidden_layers": 0}, {"hidden_layers": 2, "hidden_size": 6, "dropout": 0.0}]
    own = [{"pooling": "pair", "hidden_layers": 0}, {"pooling": "pair"}, {"pooling": "towers"}, {"pooling": "both"}]
    return [*heads, *own] if paired else heads


def _length(draw: st.DrawFn) -> Table:
    return draw(st.sampled_from([{"steps": 2}, {"steps": 2}, {"epochs": 0.1}, {"epochs": 0.05, "steps": 2}]))


def _task(draw: st.DrawFn, name: str, fixed: Mapping[str, Any] | None) -> Table:
    """One task, with or without files for dev and test."""
    task: Table = {"name": name, **TEXTS[name]}
    train, dev, test = FILES[name]
    task |= {
        "train": train,
        "dev": draw(st.sampled_from([dev, dev, dev, ""])),
        "test": draw(st.sampled_from([test, dev, ""])),
    }
    task |= {"metric": draw(st.sampled_from(METRICS[task["kind"]]))} if draw(st.booleans()) else {}
    if task["kind"] == "regression" and draw(st.booleans()):
        task["label_range"] = [0.0, 5.0]
    if task["kind"] in ("classification", "binary"):
        match draw(st.sampled_from(["", "", "weights", "loss", "sampling"])):
            case "weights":
                task["class_weights"] = {"binary": [1.0, 2.5]}.get(task["kind"], [0.5] * (3 if name == "mood" else 5))
            case "loss":
                task["loss_balance"] = 0.5
            case "sampling":
                task["sampling_balance"] = 1.0
    task |= draw(st.sampled_from([{}, {}, {"loss_weight": 0.3}, {"output_column": "says, it"}, {"smart_factor": 0.0}]))
    if task["kind"] == "masked_lm" and draw(st.booleans()):
        task["whole_words"] = True
    if fixed is not None:
        return {**task, **fixed}
    labelled_pair = len(task["text"]) == 2 and task["kind"] != "contrastive"
    if draw(st.booleans()):
        task["head"] = draw(st.sampled_from(_heads(labelled_pair)))
    if labelled_pair:
        task |= draw(st.sampled_from([{}, {}, {"swap_pairs": 0.5}, {"both_orders": True}]))
    if name not in WORDS and task.get("head", {}).get("pooling") not in ("towers", "both"):
        task |= draw(st.sampled_from([{}, {}, {"word_deletion": 0.3}, {"word_swap": 1.0, "word_deletion": 0.1}]))
    return task | draw(st.sampled_from([{}, {}, {"max_length": 9}, {"batch_size": 3}]))


def _stages(draw: st.DrawFn, which: str, cached: bool) -> list[Table]:
    last = {**_length(draw), **draw(st.sampled_from([{}, {"name": "all"}, {"lr": 1e-4, "schedule": "cosine"}]))}
    match which:
        case "frozen":
            cached = cached and draw(st.booleans())
            first = {"steps": 1, "freeze": ["encoder"], "cache_features": cached, "smart": {"weight": 0.0}}
            return [{"name": "heads", **first}, last]
        case "two":
            return [{"name": "one by one", "order": "sequential", "steps": 1, "smart": {"weight": 1.0}}, last]
        case _:
            return [{**last, "freeze": ["encoder/embeddings"], "optimizer": ["mean_tasks()", "sgd(lr)"]}]
