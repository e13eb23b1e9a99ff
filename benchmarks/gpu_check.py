"""What the first device computes against float64 on the CPU: encoder, gradients, surgery, whole steps. Prints JSON.

python benchmarks/gpu_check.py          needs torch and transformers, for the references
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from step_jax import synthetic
from transformers import BertModel

from mtbert_jax.config import HeadConfig, SmartConfig, TaskConfig
from mtbert_jax.encoders.bert import BertConfig, BertEncoder
from mtbert_jax.encoders.hub import save_pretrained
from mtbert_jax.encoders.tokenizer import load_tokenizer
from mtbert_jax.model import EncoderWithHeads
from mtbert_jax.optim import pcgrad
from mtbert_jax.optim.aggregators import gramian, pcgrad_weights
from mtbert_jax.optim.headwise import chain
from mtbert_jax.regularizers import Smart
from mtbert_jax.training.objective import StageSpec
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.step import make_train_step

SIZES = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
CONFIG = BertConfig(vocab_size=30522, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **SIZES)


def encoder_and_gradient() -> dict[str, float]:
    """Pooled output, and the gradients of its dot product with a fixed vector, against transformers in float64."""
    encoder = BertEncoder(CONFIG)
    ids = np.asarray(synthetic(0, 4, 24).input_ids)
    mask = (np.arange(24) < np.array([24, 9, 3, 1])[:, None]).astype(np.int32)
    probe = np.random.default_rng(0).normal(size=(4, CONFIG.hidden_size))
    params = jax.device_get(encoder.init(jax.random.key(0), ids)["params"])
    with tempfile.TemporaryDirectory() as folder:
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        Path(folder, "vocab.txt").write_text("\n".join([*words, *map(str, range(CONFIG.vocab_size - 5))]) + "\n")
        save_pretrained(Path(folder), CONFIG, params, load_tokenizer(Path(folder)))
        reference = BertModel.from_pretrained(folder).double().eval()
    pooled = reference(torch.from_numpy(ids).long(), torch.from_numpy(mask).long()).pooler_output
    (pooled * torch.from_numpy(probe)).sum().backward()

    def objective(params: Any) -> Any:
        return jnp.sum(encoder.apply({"params": params}, ids, mask).pooled * probe)

    ours = encoder.apply({"params": params}, ids, mask).pooled
    grads = jax.jit(jax.grad(objective))(params)
    layer = reference.encoder.layer[0]
    pairs = {
        "word embeddings": (grads["embeddings"]["word"]["embedding"], reference.embeddings.word_embeddings.weight.grad),
        "query kernel": (grads["layer_0"]["attention"]["query"]["kernel"], layer.attention.self.query.weight.grad.T),
    }
    errors = {f"gradient of {name}": _relative(a, b.numpy()) for name, (a, b) in pairs.items()}
    return {"encoder": _relative(ours, pooled.detach().numpy()), **errors}


def surgery() -> dict[str, float]:
    """PCGrad on 10⁷ numbers against Algorithm 1 in float64."""
    rng = np.random.default_rng(0)
    grads = rng.normal(size=(3, 1000, 10000)).astype(np.float32) - 0.2 * rng.normal(size=(1, 1000, 10000))
    grads = (grads * np.array([1, -0.5, 2])[:, None, None]).astype(np.float32)
    order = np.array([[2, 1], [0, 2], [1, 0]])
    gram = jax.jit(lambda grads: gramian([grads]))(grads)
    weights = jax.jit(pcgrad_weights)(gram, order)
    flat = grads.reshape(3, -1).astype(np.float64)
    projected = []
    for i, others in enumerate(order):
        own = flat[i].copy()
        for j in others:
            dot = own @ flat[j]
            own -= min(dot, 0) / (flat[j] @ flat[j]) * flat[j]
        projected.append(own)
    ours = np.tensordot(np.asarray(weights, np.float64), flat, 1)
    return {"gramian": _relative(gram, flat @ flat.T), "PCGrad": _relative(ours, sum(projected))}


def steps() -> dict[str, float]:
    """Three steps of SMART + PCGrad: losses on the device against those on the CPU."""
    head = HeadConfig(dropout=0.0)
    tasks = {
        "sst": TaskConfig("sst", "classification", num_classes=5, head=head),
        "para": TaskConfig("para", "binary", head=head),
        "sts": TaskConfig("sts", "regression", head=head),
    }
    model = EncoderWithHeads.build(CONFIG, tuple(tasks.values()))
    tx = chain(pcgrad(), optax.sgd(0.01))
    smart = StageSpec(regularizers=(Smart(SmartConfig(weight=1.0, preset="ball", noise_std=0.1)),))
    batches = {name: synthetic(number, 8, 24) for number, name in enumerate(tasks)}
    found = []
    for device in (jax.devices()[0], jax.devices("cpu")[0]):
        with jax.default_device(device):
            key = jax.random.key(0)
            encoder = model.encoder.init(key, np.ones((1, 1), np.int32))["params"]
            state = TrainState.create({"encoder": encoder, "heads": model.init_heads(key)}, tx, key)
            step = make_train_step(model, tasks, tx, smart)
            for _ in range(3):
                state, metrics = step(state, batches)
            found.append(np.array([float(loss) for loss in metrics.losses.values()]))
    return {"losses of the third step": _relative(*found)}


def peak_flops(size: int) -> float:
    """The most bfloat16 operations a second that a large matrix product reaches here."""
    x = jnp.ones((size, size), jnp.bfloat16)
    multiply = jax.jit(lambda x: x @ x)
    seconds = []
    for _ in range(10):
        since = time.perf_counter()
        jax.block_until_ready(multiply(x))
        seconds.append(time.perf_counter() - since)
    return 2 * size**3 / min(seconds[1:])


def _relative(ours: Any, reference: Any) -> float:
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    return float(np.max(np.abs(ours - reference)) / np.max(np.abs(reference)))


if __name__ == "__main__":
    with jax.default_matmul_precision("highest"):
        errors = {**encoder_and_gradient(), **surgery(), **steps()}
    device = jax.devices()[0]
    peak = peak_flops(1024 if device.platform == "cpu" else 8192)
    print(json.dumps({"device": device.device_kind, "platform": device.platform, "errors": errors, "peak_flops": peak}))
