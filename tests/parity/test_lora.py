"""LoRA against PyTorch: products beside the layers of `transformers`, as peft has them, and a step of its Adam."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax import trees
from mtbert_jax.encoders.family import family_of
from mtbert_jax.model import EncoderWithHeads
from mtbert_jax.optim import sum_tasks
from mtbert_jax.training.objective import StageSpec
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.step import make_train_step
from tests.test_model import BATCH, IDS, MASK, TYPES

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make parity")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: make parity")
optax = pytest.importorskip("optax")

RANK, ALPHA, RATE = 2, 6.0, 1e-2
SIGNS = 1e-4
"""Adam's first step is the rate times the gradient's sign: of smaller gradients it is that of rounding."""


class Beside(torch.nn.Module):  # type: ignore[misc, name-defined]
    """A layer W x + b with (α / r) B (A x) beside it, W and b fixed."""

    def __init__(self, layer: Any, a: np.ndarray, b: np.ndarray) -> None:
        super().__init__()
        self.layer = layer
        self.a, self.b = (torch.nn.Parameter(torch.tensor(np.asarray(x).T.copy())) for x in (a, b))

    def forward(self, x: Any) -> Any:
        return self.layer(x) + ALPHA / RANK * (x @ self.a.T) @ self.b.T


def test_logits_and_a_step_of_adam_are_those_of_products_beside_the_layers(encoder_dir: Path) -> None:
    config, encoder = mt.load_pretrained(encoder_dir)
    config = family_of(config).with_dropout(config, 0.0)
    task = mt.TaskConfig("sts", "regression", head=mt.HeadConfig(hidden_layers=0))
    model = EncoderWithHeads.build(config, (task,)).with_lora(mt.LoraConfig(RANK, ALPHA))
    leaves = trees.flatten_dict(model.lora.added(encoder, jax.random.key(0)), sep="/")
    rng = np.random.default_rng(0)
    for path in [path for path in leaves if path.endswith("lora_b")]:
        leaves[path] = jax.numpy.asarray(rng.normal(size=leaves[path].shape), "f4")
    params = {"encoder": trees.unflatten_dict(leaves, sep="/"), "heads": model.init_heads(jax.random.key(1))}
    batch = BATCH._replace(labels=np.array([1.0, 3.0], np.float32))

    theirs = transformers.AutoModel.from_pretrained(encoder_dir, attn_implementation="eager").eval()
    theirs.requires_grad_(False)
    beside = {}
    for number, layer in enumerate(theirs.encoder.layer):
        for name in ("query", "value"):
            path = f"layer_{number}/attention/{name}"
            own = Beside(getattr(layer.attention.self, name), leaves[f"{path}/lora_a"], leaves[f"{path}/lora_b"])
            setattr(layer.attention.self, name, own)
            beside[path] = own
    output = params["heads"]["sts"]["output"]
    head = torch.nn.Linear(config.hidden_size, 1)
    head.weight.data, head.bias.data = (
        torch.tensor(np.array(output["kernel"]).T.copy()),
        torch.tensor(np.array(output["bias"])),
    )
    tokens = {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": TYPES}
    found = head(theirs(**{name: torch.tensor(x, dtype=torch.long) for name, x in tokens.items()}).pooler_output)
    np.testing.assert_allclose(model.logits(params, "sts", batch), found.detach().numpy(), atol=1e-5)

    optimizer = torch.optim.Adam([*(p for own in beside.values() for p in (own.a, own.b)), *head.parameters()], lr=RATE)
    ((found[:, 0] - torch.tensor(batch.labels)) ** 2).mean().backward()
    optimizer.step()
    tx, stage = optax.chain(sum_tasks(), optax.adam(RATE)), StageSpec(model.frozen(()))
    before = jax.tree.map(np.array, params)
    step = make_train_step(model, {"sts": task}, tx, stage)
    gradient = step.gradients["sts"](params, None, batch, jax.random.key(0), np.int32(0))[0]["encoder"]
    grads = dict(trees.leaves(gradient))
    state, _ = step(TrainState.create(params, tx, jax.random.key(0), stage.frozen), {"sts": batch})
    after = dict(trees.leaves(state.params["encoder"]))
    checked = 0
    for path, own in beside.items():
        for end, parameter in (("lora_a", own.a), ("lora_b", own.b)):
            where = f"{path}/{end}"
            sure = np.abs(grads[where]) > SIGNS
            checked += sure.sum()
            np.testing.assert_allclose(grads[where], parameter.grad.numpy().T, atol=1e-5, err_msg=where)
            np.testing.assert_allclose(after[where][sure], parameter.detach().numpy().T[sure], atol=1e-5, err_msg=where)
    assert checked > 0.5 * 2 * len(beside) * RANK * config.hidden_size
    own = {path: leaf for path, leaf in after.items() if "/lora_" not in path}
    jax.tree.map(
        np.testing.assert_array_equal, own, {path: dict(trees.leaves(before["encoder"]))[path] for path in own}
    )
