"""The model card of an encoder with its heads: what it is, and the code that computes with it."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub

from mtbert_jax import trees
from mtbert_jax.config import Config
from mtbert_jax.config.schema import to_dict, to_toml
from mtbert_jax.export.wording import EXAMPLES, LOGITS, order_note, quoted, score_note, task_table, text_notes
from mtbert_jax.inference import MultitaskModel
from mtbert_jax.regularizers import REGULARIZERS

_START = """\
import json
import torch
from safetensors.torch import load_file
from torch.nn.functional import linear
from transformers import AutoModel, AutoTokenizer

folder = "."  # where this file lies
with open(f"{folder}/tasks.json", encoding="utf-8") as file:
    tasks = json.load(file)["tasks"]
heads = load_file(f"{folder}/heads.safetensors")
tokenizer = AutoTokenizer.from_pretrained(folder)
encoder = AutoModel.from_pretrained(folder).eval()
"""
_MEAN = """
def mean(states, keep):
    keep = keep[:, :, None].float()
    return (states * keep).sum(1) / keep.sum(1).clamp(min=1)
"""
_TOKENS = """\
    tokens = tokenizer(*texts, max_length=task["max_length"], truncation="longest_first", padding=True,
                       split_special_tokens=True, return_token_type_ids=True, return_tensors="pt")
    mask, second = tokens["attention_mask"], tokens{second}
"""
_TOWERS = f"""
def encode(task, *texts):
{_TOKENS}    return encoder(**tokens), mask, second

def towers(task, texts):  # each text is an input of its own
    u, v = (mean(output.last_hidden_state, mask) for output, mask, _ in (encode(task, text) for text in texts))
    return torch.cat([u, v, (u - v).abs(), u * v, torch.cosine_similarity(u, v, dim=-1)[:, None]], dim=-1)
"""
_LOGITS = """
@torch.no_grad()
def {name}(name, *texts):  # a list of texts; for pairs a list of the first ones and a list of the second ones
    task = tasks[name]
"""
_PAIR = [
    "u, v = (mean(output.last_hidden_state, mask * keep) for keep in (1 - second, second))",
    "x = torch.cat([u, v, (u - v).abs(), u * v], dim=-1)",
]
_POOLING = {
    "cls": ["x = output.pooler_output"],
    "mean": ["x = mean(output.last_hidden_state, mask)"],
    "pair": _PAIR,
    "towers": ["x = towers(task, texts)"],
    "both": [*_PAIR, "x = torch.cat([x, towers(task, texts)], dim=-1)"],
    "tokens": ["x = output.last_hidden_state  # of every token: a word has the label of its first one"],
}
_ENCODER_ALONE = """\
`model.safetensors` and `config.json` are the encoder, as `AutoModel` reads it.

## Use

```python
from transformers import AutoModel, AutoTokenizer

tokenizer, encoder = AutoTokenizer.from_pretrained("."), AutoModel.from_pretrained(".")
```
"""
_WHOSE = {
    "student": "The parameters are those that were trained.",
    "teacher": "The parameters are the teacher's, made of earlier ones of the run: it is what the run evaluated.",
}
_LORA = " Of the encoder those were LoRA's products, which are added to its kernels here."
_END = """\
    layer = lambda key, x: linear(x, heads[f"{name}.{key}.weight"], heads[f"{name}.{key}.bias"])
    for number in range(task["hidden_layers"]):
        x = torch.relu(layer(f"hidden_{number}", x))
    return layer("output", x)
"""
_BOTH_ORDERS = """
def logits(name, *texts):  # the mean of both orders, for tasks whose pairs are scored so
    orders = [texts, texts[::-1]] if tasks[name]["both_orders"] else [texts]
    return sum(one_order(name, *order) for order in orders) / len(orders)
"""


def model_card(model: MultitaskModel, about: dict[str, Any]) -> str:
    """The card, with front matter as the hub reads it, of what `describe_export` describes."""
    config, family, encoder = model.setup.config, model.setup.family, model.setup.encoder_config
    tasks, hub = about["tasks"], hub_name(config)
    size = trees.count(model.params["encoder"]) / 1e6
    base = hub or Path(config.encoder).name
    separator = family.tokenizer.sep
    plural = "a head for it" if len(tasks) == 1 else "a head for each with labels" if tasks else "no head"
    return f"""\
---
library_name: transformers
pipeline_tag: feature-extraction
{f"base_model: {json.dumps(hub)}" + chr(10) if hub else ""}tags:
- {family.name}
- multitask-learning
- mtbert_jax
---

# {about["run"]}

{family.title} ({encoder.num_hidden_layers} layers, hidden size {encoder.hidden_size}, {size:.1f}M parameters),
fine-tuned from {quoted(base)} on {", ".join(model.setup.tasks)} with mtbert_jax, and {plural}. Step {about["step"]} of
the run.

{_heads(tasks, family.token_types(encoder)) if tasks else _ENCODER_ALONE}
## For equal numbers

{text_notes(about, family.tokenizer)}
- Split special tokens: without `split_special_tokens=True` a "{separator}" in a text would become a separator.
{_dtype_note(about)}
## Training

```toml
{_training(config)}```

## What to know

- {_WHOSE[about["parameters"]]}{_LORA if config.lora.rank else ""}
- `pipeline(...)` of `transformers` gives the encoder's states, no labels.
- Nothing is known here of texts unlike those of the training data.
- No licence is stated here: those of the base encoder and of the training data apply.
"""


def _heads(tasks: dict[str, dict[str, Any]], token_types: bool) -> str:
    """The tasks, and how their heads are used."""
    return f"""\
{task_table(tasks)}

{score_note(tasks)}

`model.safetensors` and `config.json` are the encoder, as `AutoModel` reads it; `heads.safetensors` has the heads, which
are no classes of `transformers`; `tasks.json` says how each is built, what it reads and what its logits mean.

## Use

`pip install torch transformers safetensors`. Then, in this folder:

```python
{code(tasks, token_types)}
print({_call(tasks)})
```

{LOGITS}
{order_note(tasks, "`logits` of the code above does")}"""


def code(tasks: dict[str, dict[str, Any]], token_types: bool) -> str:
    """Python for torch, `transformers` and `safetensors`: logits of every task, by the poolings that the heads have."""
    poolings = [pooling for pooling in _POOLING if any(task["pooling"] == pooling for task in tasks.values())]
    lines = []
    for pooling in poolings:
        if len(poolings) > 1:
            lines.append(f'    if task["pooling"] == "{pooling}":')
        indent = " " * (4 if len(poolings) == 1 else 8)
        lines += [indent + line for line in _POOLING[pooling]]
    apart = bool({"towers", "both"} & {*poolings})
    mean = _MEAN if apart or {"mean", "pair"} & {*poolings} else ""
    output = _TOKENS + "    output = encoder(**tokens)\n"
    if apart:
        output = "" if poolings == ["towers"] else "    output, mask, second = encode(task, *texts)\n"
    both = any(task["both_orders"] for task in tasks.values())
    logits = _LOGITS.replace("{name}", "one_order" if both else "logits") + output + "\n".join(lines) + "\n" + _END
    program = _START + mean + (_TOWERS if apart else "") + logits + (_BOTH_ORDERS if both else "")
    return program.replace("{second}", '["token_type_ids"]' if token_types else '.pop("token_type_ids")')


def hub_name(config: Config) -> str | None:
    """The base encoder's name on the hub, where it is sure to be one: the hub's cache here has it under that name."""
    if Path(config.encoder).is_dir():
        return None
    try:
        found = huggingface_hub.try_to_load_from_cache(config.encoder, "config.json", revision=config.revision)
    except ValueError:  # no name that a hub could have
        return None
    return config.encoder if isinstance(found, str) else None


def _call(tasks: dict[str, dict[str, Any]]) -> str:
    name, task = next(iter(tasks.items()))
    return f"logits({name!r}, {', '.join(repr([text]) for text in EXAMPLES[len(task['text'])])})".replace("'", '"')


def _training(config: Config) -> str:
    """What was trained how, without anything that names a place on this machine."""
    stages = []
    for stage in config.resolved_stages():
        fields = to_dict(stage)
        idle = [name for name, cls in REGULARIZERS.items() if cls.table and not fields[name]["weight"]]
        idle += [] if stage.regularizers else ["regularizers"]
        for name in [*idle, "epochs" if stage.steps else "steps"]:
            del fields[name]
        stages.append(fields)
    lora = {"lora": to_dict(config.lora)} if config.lora.rank else {}
    return to_toml({"seed": config.seed, "compute_dtype": config.compute_dtype, **lora, "stages": stages})


def _dtype_note(about: dict[str, Any]) -> str:
    if about["compute_dtype"] == "float32":
        return ""
    return (
        f"- The run computed matrix products in {about['compute_dtype']}, this code does so in float32: numbers differ "
        "by that type's rounding.\n"
    )
