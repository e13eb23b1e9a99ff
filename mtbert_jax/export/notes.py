"""What an export for plain JAX says to the person who opens its folder."""

from typing import Any

import jax

from mtbert_jax.export.wording import EXAMPLES, LOGITS, order_note, score_note, task_table, text_notes
from mtbert_jax.training.setup import Setup

_COMPATIBILITY = "https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees"


def program_notes(about: dict[str, Any], platforms: tuple[str, ...], setup: Setup) -> str:
    """A page in Markdown about an export that `describe_export` describes, lowered for these platforms."""
    tasks, positions = about["tasks"], setup.positions
    whose = "the teacher's parameters" if about["parameters"] == "teacher" else "the parameters that were trained"
    rounding = ", which on a GPU may be rounded to TF32" if about["compute_dtype"] == "float32" else ""
    first = next(iter(tasks))
    text = "\\t".join(EXAMPLES[len(tasks[first]["text"])])
    return f"""\
# {about["run"]}, for plain JAX

Step {about["step"]} of a run of mtbert_jax, {whose}: a program for each task, and one file of parameters for
all of them.

{task_table(tasks)}

{score_note(tasks)}

| file | what it is |
|---|---|
| `<task>.jax` | `(params, input_ids, attention_mask, token_type_ids) → logits`, serialized by `jax.export` |
| `params.npz` | all parameters by path, float32; a program takes a dict of those below `encoder/` and `heads/<task>/` |
| `tokenizer.json` | for the package `tokenizers` |
| `tasks.json` | what each task reads, and what its logits mean |
| `load.py` | all of this in use |

## Use

`pip install jax flatbuffers numpy tokenizers`. Then, in this folder:

```
printf '{text}\\n' | python load.py {first}
```

{LOGITS}
{order_note(tasks, "`load.py` does, and a program computes one order")}
Arrays of tokens are int32, `[batch seq]`, or `[batch input seq]` for a task with several `inputs` in `tasks.json`: the
places of the texts that each input holds. A mask is 1 for a token and 0 for padding. Any batch size and any length up
to {positions} will do. JAX compiles a program for each shape that it meets, so pad to a few lengths and fill batches up
to one size; `load.py` takes its whole input as one batch. Parameters that are used again belong on the device:
`params = jax.device_put(params)`.

Programs were lowered for {" and ".join(platforms)}, attention in plain operations. Matrix products are in
{about["compute_dtype"]}{rounding}.

## For equal numbers

{text_notes(about, setup.family.tokenizer)}
- Special tokens in a text are text: `tokenizer.encode_special_tokens = True`, which `tokenizer.json` cannot store.

## How long the programs can be read

They were written by JAX {jax.__version__}. JAX promises to run them in versions up to six months newer than that one,
and up to three weeks older ([its words]({_COMPATIBILITY})).
Later, export the run again. `params.npz` does not age.
"""
