"""Runs with LoRA: what trains, what is kept, what comes out, for every way that a run can go."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbert_jax import trees
from mtbert_jax.config import Config, LoraConfig, ProximalConfig, SmartConfig, StageConfig
from mtbert_jax.encoders.family import FAMILIES
from mtbert_jax.encoders.hub import load_pretrained
from mtbert_jax.errors import InputError
from mtbert_jax.export.write import export_run
from mtbert_jax.inference import MultitaskModel
from mtbert_jax.parallel import ALONE
from mtbert_jax.report.contents import RunContents
from mtbert_jax.report.sections import _facts
from mtbert_jax.training.active import first_state
from mtbert_jax.training.evaluate import make_eval_step
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.interrupt import Interrupted
from mtbert_jax.training.memory import estimate
from mtbert_jax.training.plan import Plan, make_plans
from mtbert_jax.training.records import read_metrics
from mtbert_jax.training.setup import Setup
from mtbert_jax.training.step import make_train_step
from mtbert_jax.training.update import stack_gradients
from tests.cases import slow_but_for
from tests.encoders.modern import save_modern
from tests.encoders.test_family import with_encoder
from tests.encoders.tiny import TOKENIZERS, save_encoder
from tests.training.test_fit import Quiet, assert_same_run, run
from tests.training.test_regularized_runs import largest_difference, restored, without_dropout
from tests.training.test_seeds import CHAIN, alone, assert_close

LORA = LoraConfig(rank=4)


@pytest.fixture
def adapted(config: Config) -> Config:
    """Six steps of PCGrad with LoRA, large ones."""
    return dataclasses.replace(config, lora=LORA, lr=0.02)


def planned(config: Config) -> tuple[Setup, Plan]:
    setup = Setup.load(config, Path(config.encoder))
    return setup, make_plans(setup, setup.datasets("train"))[-1]


def own_and_products(encoder: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The leaves of an encoder's own parameters, and those of LoRA."""
    leaves = dict(trees.leaves(encoder))
    products = {path: leaf for path, leaf in leaves.items() if "/lora_" in path}
    return {path: leaf for path, leaf in leaves.items() if path not in products}, products


def same(one: Any, other: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("name", slow_but_for(("deberta-v2",), FAMILIES))
def test_every_family_begins_as_it_was_and_trains_products_alone(name: str, config: Config, tmp_path: Path) -> None:
    save = save_encoder if name in TOKENIZERS else save_modern
    config = with_encoder(without_dropout(config), save(name, tmp_path / "encoder"), "mean")
    config = dataclasses.replace(config, tasks=config.tasks[2:], lora=LORA, lr=0.02)
    setup, plan = planned(config)
    before = load_pretrained(config.encoder)[1]
    plain, params = setup.without_lora(), setup.initial_params(before)
    step = make_train_step(setup.model, setup.tasks, plan.tx, plan.spec(0))
    state = first_state(setup, plan, jax.tree.map(jnp.copy, params), 0)
    logits, without = (
        jax.jit(lambda params, batch, of=one.model: of.logits(params, "sts", batch)) for one in (setup, plain)
    )
    batch = plan.batches[0]["sts"]
    begun = logits(params, batch)
    same(begun, without({**params, "encoder": before}, batch))
    for number in range(3):
        state, metrics = step(state, plan.batches[number])
    assert metrics.finite["sts"]
    own, products = own_and_products(state.params["encoder"])
    same(own, dict(trees.leaves(before)))
    first = own_and_products(params["encoder"])[1]
    of_a_layer = 2 if name == "modernbert" else 4
    assert products.keys() == first.keys() and len(products) == of_a_layer * setup.family.num_layers(
        setup.encoder_config
    )
    assert all(np.abs(leaf - first[path]).max() > 1e-4 for path, leaf in products.items())
    merged = jax.jit(setup.model.merged)(state.params)
    assert jax.tree.structure(merged["encoder"]) == jax.tree.structure(before)
    found = logits(state.params, batch)
    np.testing.assert_allclose(without(merged, batch), found, atol=1e-6)
    assert np.abs(found - logits({**state.params, "encoder": params["encoder"]}, batch)).max() > 1e-4


def test_one_step_of_adam_is_the_literal_one(adapted: Config) -> None:
    """W + (α / r) A B written out, with α / r = 2 and products beside three kinds of kernels; Adam in NumPy."""
    paths = ("encoder/layer_0/attention/value", "encoder/*/intermediate", "encoder/pooler")
    adapted = dataclasses.replace(without_dropout(adapted, "cls"), lora=LoraConfig(2, 4.0, paths))
    setup, plan = planned(dataclasses.replace(adapted, optimizer=("sum_tasks()", "adam(lr)")))
    start = setup.initial_params(load_pretrained(adapted.encoder)[1])
    rng, touched = np.random.default_rng(0), [f"{layer.removeprefix('encoder/')}" for layer in setup.model.lora.layers]
    leaves = trees.flatten_dict(start["encoder"], sep="/")
    for layer in touched:  # B is zero at first, and A's gradient with it
        leaves[f"{layer}/lora_b"] = jnp.asarray(rng.normal(0, 0.1, leaves[f"{layer}/lora_b"].shape), "f4")
    start["encoder"] = trees.unflatten_dict(leaves, sep="/")
    trained = {f"{layer}/{end}": leaves[f"{layer}/{end}"] for layer in touched for end in ("lora_a", "lora_b")}
    assert len(touched) == 3

    def total(trained: dict[str, Any], heads: Any) -> Any:
        own = {path: leaf for path, leaf in leaves.items() if path not in trained}
        for layer in touched:
            own[f"{layer}/kernel"] = (
                own[f"{layer}/kernel"] + 2.0 * trained[f"{layer}/lora_a"] @ trained[f"{layer}/lora_b"]
            )
        params = {"encoder": trees.unflatten_dict(own, sep="/"), "heads": heads}
        one = setup.without_lora().model
        kinds = dict(setup.kinds)
        logits = {task: one.logits(params, task, batch) for task, batch in plan.batches[0].items()}
        return sum(kinds[task].batch_loss(logits[task], b.labels, b.weights) for task, b in plan.batches[0].items())

    grads, heads = jax.jit(jax.grad(total, argnums=(0, 1)))(trained, start["heads"])
    copy = jax.tree.map(jnp.copy, start)
    state = first_state(setup, plan, copy, 0)
    state, _ = make_train_step(setup.model, setup.tasks, plan.tx, plan.spec(0))(state, plan.batches[0])
    found = trees.flatten_dict(state.params["encoder"], sep="/")
    for path, gradient in grads.items():
        g = np.asarray(gradient, np.float64)
        expected = trained[path] - 0.02 * g / (np.abs(g) + 1e-8)  # m / (1 - β₁) = g, v / (1 - β₂) = g²
        sure = np.abs(g) > 1e-5  # Adam magnifies rounding of smaller ones
        assert sure.mean() > 0.5, path
        np.testing.assert_allclose(found[path][sure], expected[sure], atol=1e-4, err_msg=path)
    for path, gradient in trees.leaves(heads):
        sure = np.abs(gradient) > 1e-5
        moved = dict(trees.leaves(state.params["heads"]))[path] - dict(trees.leaves(start["heads"]))[path]
        np.testing.assert_allclose(moved[sure], -0.02 * np.sign(gradient)[sure], atol=1e-4, err_msg=path)


def test_state_and_surgery_are_of_products_and_heads_alone(adapted: Config) -> None:
    """Shapes of Adam's moments, of the teacher, and of the tasks' gradients; bytes as the estimate has them."""
    adam = dataclasses.replace(adapted, optimizer=("pcgrad()", "adamw(lr)"), proximal=ProximalConfig(weight=1.0))
    setup, plan = planned(adam)
    params = setup.abstract_params()
    state = jax.eval_shape(lambda params: first_state(setup, plan, params, 0), params)
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape]
    trained = {path: leaf for path, leaf in trees.leaves(params) if "/lora_" in path or path.startswith("heads/")}
    products = 2 * 2 * 16 * 4  # A and B of queries and values of the only layer
    assert sum(leaf.size for path, leaf in trained.items() if "/lora_" in path) == products
    assert sum(leaf.size for leaf in moments) == 2 * sum(leaf.size for leaf in trained.values())
    assert trees.paths(state.teacher) == list(trained)
    step = make_train_step(setup.model, setup.tasks, plan.tx, plan.spec(0))
    batches = jax.eval_shape(lambda: plan.batches[0])
    grads = {
        name: jax.eval_shape(step.gradients[name], state.params, state.teacher, batch, state.key, state.step)[0]
        for name, batch in batches.items()
    }
    stacked = jax.eval_shape(stack_gradients, trees.split(params, plan.frozen)[1], grads)
    assert trees.count(stacked["encoder"]) == 3 * products
    told = estimate(setup, plan, ALONE)
    assert told.gradients == 6 * 4 * sum(leaf.size for leaf in trained.values())


def test_pcgrad_projects_the_gradients_of_the_products(adapted: Config) -> None:
    """Two tasks: g_i - min(0, g_i·g_j) / ‖g_j‖² g_j, over all A and B as one vector; what is recorded is of them."""
    adapted = dataclasses.replace(without_dropout(adapted), optimizer=("pcgrad()", "sgd(1.0)"), tasks=adapted.tasks[:2])
    setup, plan = planned(adapted)
    params = setup.initial_params(load_pretrained(adapted.encoder)[1])
    step, state = make_train_step(setup.model, setup.tasks, plan.tx, plan.spec(0)), first_state(setup, plan, params, 0)
    state, _ = step(state, plan.batches[0])  # now B is not zero, and A has a gradient
    batches = plan.batches[1]
    before = jax.tree.map(np.asarray, state.params)
    grads = [
        step.gradients[name](state.params, None, batch, state.key, state.step)[0] for name, batch in batches.items()
    ]
    state, metrics = step(state, batches)
    a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree["encoder"])]) for tree in grads)
    assert len(a) == 4 * 64
    np.testing.assert_allclose(metrics.cosines[0, 1], a @ b / np.linalg.norm(a) / np.linalg.norm(b), atol=1e-5)
    update = a - min(0, a @ b) / (b @ b) * b + b - min(0, a @ b) / (a @ a) * a
    old, new = (own_and_products(tree["encoder"])[1] for tree in (before, state.params))
    moved = np.concatenate([np.ravel(old[path] - new[path]) for path in old])
    np.testing.assert_allclose(moved, update, atol=1e-5)
    assert set(metrics.layers) == {"layer_0"}


FULL: dict[str, Any] = {
    "smart": SmartConfig(weight=0.1, ramp_fraction=0.5),
    "proximal": ProximalConfig(weight=1.0, early_momentum=0.5, momentum=0.9),
    "optimizer": (
        "pcgrad()",
        "clip_by_global_norm(1.0)",
        "adamw(lr, weight_decay=0.1, mask=kernels)",
        "layerwise_decay(0.9)",
    ),
}


@pytest.mark.slow
def test_a_run_is_stopped_gone_on_with_evaluated_and_begun_from(adapted: Config, tmp_path: Path) -> None:
    """Heads first, then SMART and a teacher; to the bit, and every reader of the run has merged kernels."""
    heads = StageConfig(
        "heads", steps=2, freeze=("encoder",), cache_features=True, smart=SmartConfig(), proximal=ProximalConfig()
    )
    stages = (heads, StageConfig("products", steps=3))
    config = dataclasses.replace(adapted, **FULL, stages=stages)
    whole = run(config, tmp_path / "whole", display=(display := Quiet()))
    for at in (1, 2):
        with pytest.raises(Interrupted):
            run(config, tmp_path / "parts", resume=True, display=Quiet(at=at))
    assert_same_run(config, whole, run(config, tmp_path / "parts", resume=True), 5)
    told = [line for line in display.lines if line.startswith("stage ")]
    assert told[0].startswith("stage heads: 2 steps, round_robin, encoder frozen")
    count = trees.count(Setup.load(config, Path(config.encoder)).abstract_params()["heads"])
    assert told[1].startswith(
        "stage products: LoRA of rank 4 on 2 kernels (encoder/*/attention/query, encoder/*/attention/value): 256 "
        f"parameters of the encoder train and {count} of heads, 3 steps"
    )

    state = restored(config, whole, 5)
    before = load_pretrained(config.encoder)[1]
    own, products = own_and_products(state.params["encoder"])
    same(own, dict(trees.leaves(before)))
    assert state.teacher is not None and trees.paths(state.teacher["encoder"]) == list(products)
    student = trees.split(state.params, Setup.load(config, Path(config.encoder)).model.frozen(()))[1]
    assert largest_difference(state.teacher, student) > 1e-4
    model = MultitaskModel.from_checkpoint(whole.path, "latest")
    assert jax.tree.structure(model.params["encoder"]) == jax.tree.structure(before)
    setup = Setup.load(config, Path(config.encoder))
    unmerged = make_eval_step(setup.model, setup.layout, setup.kinds)
    for name, batch in make_plans(setup, setup.datasets("train"))[-1].batches[0].items():
        one, other = unmerged(state.params, name, batch), model._eval_step(model.params, name, batch)
        np.testing.assert_allclose(one, other, atol=1e-6)

    exported = load_pretrained(export_run(whole.path, "hf", tmp_path / "hf", "latest"))[1]
    same(exported, model.params["encoder"])
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "Of the encoder those were LoRA's products" in card and "[lora]\nrank = 4\nalpha = 8.0\n" in card
    assert largest_difference(exported, before) > 1e-3
    program = jax.export.deserialize(
        (export_run(whole.path, "stablehlo", tmp_path / "jax", "latest") / "sts.jax").read_bytes()
    )
    with np.load(tmp_path / "jax" / "params.npz") as arrays:
        own = {path: arrays[path] for path in arrays if path.startswith(("encoder/", "heads/sts/"))}
    batch = make_plans(setup, setup.datasets("train"))[-1].batches[0]["sts"]
    found = program.call(own, batch.input_ids, batch.attention_mask, batch.token_type_ids)
    np.testing.assert_allclose(found, setup.model.logits(state.params, "sts", batch), atol=1e-6)

    begun = run(
        dataclasses.replace(adapted, encoder="", init_from=str(whole.path), steps=1, lr=1e-30), tmp_path / "begun"
    )
    best = MultitaskModel.from_checkpoint(whole.path)
    first = MultitaskModel.from_checkpoint(begun.path)
    assert largest_difference(first.params, best.params) < 1e-6


@pytest.mark.slow
def test_what_is_evaluated_can_be_the_products_teacher(adapted: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(
        adapted, evaluate="teacher", proximal=ProximalConfig(early_momentum=0.5, momentum=0.9), steps=3
    )
    config = dataclasses.replace(config, affinity_every_steps=1, log_every_steps=1)
    folder = run(config, tmp_path / "run")
    state, model = restored(config, folder, 3), MultitaskModel.from_checkpoint(folder.path, "latest")
    lora = Setup.load(config, Path(config.encoder)).model
    same(model.params, jax.jit(lora.merged)(state.teacher_params()))
    assert largest_difference(model.params, jax.jit(lora.merged)(state.params)) > 1e-4
    records = {record["kind"]: record for record in read_metrics(folder.metrics)}
    assert min(abs(share) for of in records["affinity"]["effect"].values() for share in of.values()) > 0
    contents = RunContents.read_records(folder.path, "run")
    assert _facts(contents).facts["stage train"].startswith("3 steps, round_robin, LoRA of rank 4, lr 0.02: ")


@pytest.mark.slow
def test_seeds_in_one_program_are_those_alone_and_begin_with_other_products(adapted: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(adapted, seeds=(3, 7), optimizer=CHAIN, lr=0.003, eval_every_steps=6)
    folder = run(config, tmp_path / "all")
    for seed in config.seeds:
        own = RunFolder(folder.path / f"seed{seed}")
        assert_close(config, seed, own, alone(config, seed, tmp_path / f"alone{seed}"), 6)
    setup = Setup.load(config, Path(config.encoder))
    states = [
        restored(dataclasses.replace(config, seed=s, seeds=()), RunFolder(folder.path / f"seed{s}"), 6)
        for s in config.seeds
    ]
    own, products = zip(*(own_and_products(state.params["encoder"]) for state in states), strict=True)
    same(*own)
    assert setup.model.lora and largest_difference(*products) > 1e-2


@pytest.mark.slow
def test_parts_of_a_batch_give_the_same_gradient(adapted: Config) -> None:
    adapted = without_dropout(adapted)
    setup, plan = planned(adapted)
    params = setup.initial_params(load_pretrained(adapted.encoder)[1])
    found = []
    for parts in (1, 2):
        step = make_train_step(setup.model, setup.tasks, plan.tx, plan.spec(0), micro_batches=parts)
        state = first_state(setup, plan, jax.tree.map(jnp.copy, params), 0)
        grads = {
            n: step.gradients[n](state.params, None, b, state.key, state.step)[0] for n, b in plan.batches[0].items()
        }
        found.append(grads)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), *found)
    assert (
        largest_difference(found[0]["sst"]["encoder"], jax.tree.map(np.zeros_like, found[0]["sst"]["encoder"])) > 1e-4
    )


def test_stages_that_freeze_every_product_are_refused(adapted: Config) -> None:
    """The encoder has a single layer; one stage that trains a product is enough."""
    heads = StageConfig("heads", freeze=("encoder/layer_0",))
    values = StageConfig("values", freeze=("encoder/layer_0/attention/query",))
    planned(dataclasses.replace(adapted, stages=(heads, values)))
    with pytest.raises(InputError, match=r"lora: every stage freezes all that LoRA would train .*'encoder/layer_0'"):
        planned(dataclasses.replace(adapted, stages=(heads,)))
