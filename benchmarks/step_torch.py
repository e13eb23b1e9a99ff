"""What a user of PyTorch would run, as a worker of step.py and epoch.py.

Needs torch and transformers, and for `peer` also smart-pytorch and WeiChengTseng/Pytorch-PCGrad (its folder on
PYTHONPATH).

`peer` follows the READMEs: a BertModel of transformers, SMARTLoss over `inputs_embeds`, PCGrad around AdamW.
`tuned` is a stronger loop by hand: gradients per task by `autograd.grad`, PCGrad on the Gramian, fused AdamW, an inner
step of SMART that differentiates the noise alone, and the clean forward shared.
"""

import itertools
import json
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertModel, MPNetConfig, MPNetModel
from workers import serve

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
"""Ids, mask, token types, labels."""
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sst": lambda logits, labels: F.cross_entropy(logits, labels.long()),
    "para": lambda logits, labels: F.binary_cross_entropy_with_logits(logits[:, 0], labels),
    "sts": lambda logits, labels: F.mse_loss(logits[:, 0], labels),
}


class Model(nn.Module):
    """Encoder, pooling and one hidden layer per head, with our dropout rates."""

    def __init__(self, sizes: dict[str, Any], pooling: str) -> None:
        super().__init__()
        self.family = sizes.get("model_type", "bert")
        config, model = {"bert": (BertConfig, BertModel), "mpnet": (MPNetConfig, MPNetModel)}[self.family]
        own = {name: size for name, size in sizes.items() if name != "model_type"}
        self.bert = model(config(**own), add_pooling_layer=pooling == "cls")
        width = sizes["hidden_size"]
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, outputs))
                for name, outputs in (("sst", 5), ("para", 1), ("sts", 1))
            }
        )
        self.pooling = pooling

    def forward(self, task: str, mask: Tensor, **inputs: Tensor) -> Tensor:
        """Logits, from ids or from `inputs_embeds`."""
        if self.family == "mpnet":
            inputs.pop("token_type_ids", None)
        output = self.bert(attention_mask=mask, **inputs)
        if self.pooling == "cls":
            return self.heads[task](output.pooler_output)
        shown = mask[:, :, None].float()
        return self.heads[task]((output.last_hidden_state * shown).sum(1) / shown.sum(1))

    def embed(self, ids: Tensor, types: Tensor) -> Tensor:
        """What the first layer reads."""
        return self.bert.embeddings(ids) if self.family == "mpnet" else self.bert.embeddings(ids, types)

    def extended(self, mask: Tensor) -> Tensor | None:
        """The mask as the layers take it; None where nothing is padded."""
        if not bool((mask == 0).any()):
            return None
        if self.family == "bert":
            return mask[:, None, None, :].bool()
        return (1.0 - mask[:, None, None, :].float()) * torch.finfo(torch.float32).min

    def encode(self, task: str, embeddings: Tensor, extended: Tensor, mask: Tensor) -> Tensor:
        """From finished embeddings on: what `inputs_embeds` does not offer."""
        states = self.bert.encoder(embeddings, attention_mask=extended, return_dict=True).last_hidden_state
        if self.pooling == "cls":
            return self.heads[task](self.bert.pooler(states))
        shown = mask[:, :, None].float()
        return self.heads[task]((states * shown).sum(1) / shown.sum(1))


def peer_step(model: Model, method: str) -> Callable[[dict[str, Inputs]], dict[str, float]]:
    """As the packages' READMEs say."""
    from pcgrad import PCGrad
    from smart_pytorch import SMARTLoss, kl_loss, sym_kl_loss

    plain = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=1e-4)
    optimizer = PCGrad(plain)

    def objective(task: str, ids: Tensor, mask: Tensor, types: Tensor, labels: Tensor) -> Tensor:
        if "smart" not in method:
            return LOSSES[task](model(task, mask, input_ids=ids, token_type_ids=types), labels)
        embeddings = model.bert.embeddings(ids, types)
        evaluate = lambda x: model(task, mask, inputs_embeds=x)  # noqa: E731 - adds positions and types twice
        state = evaluate(embeddings)
        inner, outer = (kl_loss, sym_kl_loss) if task == "sst" else (F.mse_loss, F.mse_loss)
        smart = SMARTLoss(eval_fn=evaluate, loss_fn=inner, loss_last_fn=outer)
        return LOSSES[task](state, labels) + 0.02 * smart(embeddings, state)

    def step(batches: dict[str, Inputs]) -> dict[str, float]:
        losses = {task: objective(task, *batch) for task, batch in batches.items()}
        if "pcgrad" in method:
            optimizer.zero_grad()
            optimizer.pc_backward(list(losses.values()))
            optimizer.step()
        else:
            plain.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()
            plain.step()
        return {task: float(loss.detach()) for task, loss in losses.items()}

    return step


def tuned_step(model: Model, method: str) -> Callable[[dict[str, Inputs]], dict[str, float]]:
    """The stronger loop."""
    shared = [p for name, p in model.named_parameters() if name.startswith("bert.")]
    own = {task: list(model.heads[task].parameters()) for task in LOSSES}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=1e-4, fused=True)

    def objective(task: str, ids: Tensor, mask: Tensor, types: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if "smart" not in method:
            loss = LOSSES[task](model(task, mask, input_ids=ids, token_type_ids=types), labels)
            return loss, loss
        embeddings, extended = model.embed(ids, types), model.extended(mask)
        clean = model.encode(task, embeddings, extended, mask)
        target, ball = clean.detach(), "ball" in method
        noise = (1e-5 * torch.randn_like(embeddings)).requires_grad_()
        outputs = model.encode(task, embeddings.detach() + noise, extended, mask)
        inner = symmetric(task, outputs, target, False).sum() if ball else divergence(task, outputs, target).mean()
        (gradient,) = torch.autograd.grad(inner, noise)
        if ball:
            largest = gradient.abs().amax((1, 2), keepdim=True).clamp_min(1e-30)
            moved = (noise.detach() + 0.1 * gradient / largest).clamp(-0.1, 0.1)
        else:
            moved = noise.detach() + 1e-3 * gradient
            moved = moved / (moved.abs().amax(-1, keepdim=True) + 1e-6)
        perturbed = model.encode(task, embeddings + moved, extended, mask)
        loss = LOSSES[task](clean, labels)
        if ball:
            return loss, loss + symmetric(task, perturbed, clean, False).mean()
        return loss, loss + 0.02 * symmetric(task, perturbed, clean).sum()

    def step(batches: dict[str, Inputs]) -> dict[str, float]:
        losses, grads = {}, []
        optimizer.zero_grad(set_to_none=True)
        for task, batch in batches.items():
            loss, total = objective(task, *batch)
            found = torch.autograd.grad(total, shared + own[task], allow_unused=True)
            grads.append([g if g is not None else torch.zeros_like(p) for g, p in zip(found, shared, strict=False)])
            for parameter, gradient in zip(own[task], found[len(shared) :], strict=True):
                parameter.grad = gradient
            losses[task] = float(loss.detach())
        weights = pcgrad_weights(grads) if "pcgrad" in method else [1.0] * len(grads)
        for number, parameter in enumerate(shared):
            parameter.grad = sum(w * g[number] for w, g in zip(weights, grads, strict=True))
        optimizer.step()
        return losses

    return step


def pcgrad_weights(grads: list[list[Tensor]]) -> list[float]:
    """Algorithm 1 of Yu et al. on the Gramian."""
    tasks = range(len(grads))
    gram = [[0.0] * len(grads) for _ in tasks]
    for i in tasks:
        for j in range(i, len(grads)):
            dots = (torch.dot(a.flatten(), b.flatten()) for a, b in zip(grads[i], grads[j], strict=True))
            gram[i][j] = gram[j][i] = float(torch.stack(list(dots)).sum())
    weights = [0.0] * len(grads)
    for i in tasks:
        own = [float(i == j) for j in tasks]
        for j in random.sample([j for j in tasks if j != i], len(grads) - 1):
            dot = sum(own[k] * gram[k][j] for k in tasks)
            if dot < 0 < gram[j][j]:
                own[j] -= dot / gram[j][j]
        weights = [a + b for a, b in zip(weights, own, strict=True)]
    return weights


def divergence(task: str, perturbed: Tensor, clean: Tensor) -> Tensor:
    """KL(clean ‖ perturbed) per example, or the squared difference."""
    if task == "sts":
        return (perturbed[:, 0] - clean[:, 0]) ** 2
    log_p, log_q = (F.log_softmax(two_classes(task, z), -1) for z in (clean, perturbed))
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def symmetric(task: str, one: Tensor, other: Tensor, detach: bool = True) -> Tensor:
    """The symmetric divergence per example, its first factor held constant if `detach`; or the squared difference."""
    if task == "sts":
        return (one[:, 0] - other[:, 0]) ** 2
    log_p, log_q = (F.log_softmax(two_classes(task, z), -1) for z in (one, other))
    difference = log_p.exp() - log_q.exp()
    return ((difference.detach() if detach else difference) * (log_p - log_q)).sum(-1)


def two_classes(task: str, logits: Tensor) -> Tensor:
    """A binary logit as two classes."""
    return torch.cat([torch.zeros_like(logits), logits], -1) if task == "para" else logits


def main(spec: dict[str, Any]) -> None:
    """Builds the model, then steps when told to."""
    torch.manual_seed(0)
    device = torch.device(spec.get("device", "cpu"))
    model = Model(spec["sizes"], spec["pooling"]).to(device)
    if spec.get("compiled"):
        model.bert.encoder = torch.compile(model.bert.encoder)  # type: ignore[assignment]
    steps = load_steps(spec["batches"]) if "batches" in spec else [synthetic(spec["batch"], spec["length"])]
    turn = itertools.cycle(steps)
    losses: dict[str, float] = {}
    if spec["method"] == "evaluate":
        model.eval()
        take = partial(evaluate, model)
    else:
        model.train()
        take = {"peer": peer_step, "tuned": tuned_step}[spec["side"]](model, spec["method"])

    def step() -> None:
        batches = {task: tuple(part.to(device) for part in batch) for task, batch in next(turn).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=spec["compute_dtype"] == "bfloat16"):
            losses.update(take(batches))  # type: ignore[arg-type]
        if device.type == "cuda":
            torch.cuda.synchronize()

    def last() -> dict[str, Any]:
        peak = {"peak_memory_bytes": torch.cuda.max_memory_allocated()} if device.type == "cuda" else {}
        return {"losses": losses, **peak}

    since = time.perf_counter()
    for _ in steps:
        step()
    serve({"first_steps_seconds": time.perf_counter() - since}, step, last)


@torch.no_grad()
def evaluate(model: Model, batches: dict[str, Inputs]) -> dict[str, float]:
    """Scores a batch."""
    for task, (ids, mask, types, _) in batches.items():
        model(task, mask, input_ids=ids, token_type_ids=types).float().cpu().numpy()
    return {}


def synthetic(batch: int, length: int) -> dict[str, Inputs]:
    """Full batches of random tokens."""
    generator = torch.Generator().manual_seed(0)
    ones, labels = torch.ones((batch, length), dtype=torch.long), torch.arange(batch).float() % 2
    return {
        task: (torch.randint(1000, 30000, (batch, length), generator=generator), ones, 0 * ones, labels)
        for task in LOSSES
    }


def load_steps(path: str) -> list[dict[str, Inputs]]:
    """What epoch.py has stored, without the rows that only fill a batch up."""
    steps: dict[int, dict[str, Inputs]] = {}
    with np.load(path) as arrays:
        for number, task in sorted({tuple(name.split("/")[:2]) for name in arrays}, key=lambda at: int(at[0])):
            real = arrays[f"{number}/{task}/weights"] > 0
            ids, mask, types, labels = (
                torch.from_numpy(arrays[f"{number}/{task}/{field}"][real])
                for field in ("input_ids", "attention_mask", "token_type_ids", "labels")
            )
            steps.setdefault(int(number), {})[task] = ids.long(), mask.long(), types.long(), labels
    return [steps[number] for number in sorted(steps)]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
