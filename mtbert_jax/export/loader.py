"""The script that an export for plain JAX carries with it."""

LOADER = '''\
"""Predicts lines of standard input: python load.py TASK < texts.txt. A tab parts the two texts of a pair."""
import json, pathlib, sys, numpy as np
from jax import export
from tokenizers import Tokenizer
folder, name = pathlib.Path(__file__).parent, sys.argv[1]
task = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))["tasks"][name]
texts, names = [line.rstrip("\\r\\n").split("\\t") for line in sys.stdin], task["classes"]
if task["decision"] == "tags": texts = [[" ".join(text[0].split())] for text in texts]
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.encode_special_tokens = True  # a special token's name in a text is text
tokenizer.enable_truncation(task["max_length"], strategy="longest_first")
tokenizer.enable_padding()
both = texts + [text[::-1] for text in texts] if task["both_orders"] else texts
inputs = [[text[place] for place in places] for text in both for places in task["inputs"]]
rows = tokenizer.encode_batch([own[0] if len(own) == 1 else own for own in inputs])
tokens = [np.array([getattr(row, key) for row in rows], np.int32) for key in ("ids", "attention_mask", "type_ids")]
tokens = [x if len(x) == len(both) else x.reshape(len(both), -1, x.shape[1]) for x in tokens]
params = {key: x for key, x in np.load(folder / "params.npz").items() if key.startswith(("encoder/", f"heads/{name}/"))}
logits = np.asarray(export.deserialize((folder / f"{name}.jax").read_bytes()).call(params, *tokens))
logits = logits.reshape(-1, len(texts), *logits.shape[1:]).mean(0)  # over both orders, where there are two
decide = {"argmax": lambda row: names[row.index(max(row))], "sign": lambda row: names[row[0] > 0],
          "value": lambda row: row[0], "signs": lambda row: [name for name, x in zip(names, row) if x > 0],
          "count": lambda row: names[sum(x > 0 for x in row)]}
def tags(row, text, offsets):  # a word has the tag of its first token; one that is cut off has the first tag
    ends = [(end, own) for (start, end), own in zip(offsets, row) if end > start and text[end - 1] != " "]
    first = {text[:end].count(" "): names[own.index(max(own))] for end, own in reversed(ends)}
    return [first.get(number, names[0]) for number in range(len(text.split()))]
for text, row, own in zip(texts, logits.tolist(), rows):
    label = tags(row, text[0], own.offsets) if task["decision"] == "tags" else decide[task["decision"]](row)
    print(json.dumps({"text": text, "label": label, "logits": row}))
'''
"""Some 30 lines, and nothing of this library: JAX for the model, a tokenizer for the text."""
