"""ModernBERT and DeBERTa-v2: what sets them apart from BERT, and runs over them."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

import mtbert_jax as mt
from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, SmartConfig, StageConfig, save_config
from mtbert_jax.encoders.config_json import load_encoder_config
from mtbert_jax.encoders.deberta_v2 import Attention, DebertaV2Config, position_rows
from mtbert_jax.encoders.family import FAMILIES, family_of
from mtbert_jax.encoders.hub import names
from mtbert_jax.encoders.modernbert import ModernBertConfig, rotate, rotation_tables
from mtbert_jax.errors import InputError
from mtbert_jax.export.stablehlo import program
from mtbert_jax.training.setup import Setup
from tests.cases import slow_but_for
from tests.encoders.modern import OWN, SIZES, save_modern
from tests.encoders.test_family import with_encoder

NAMES = ["modernbert", "deberta-v2"]
BOTH = pytest.mark.parametrize("name", NAMES)
ONE_QUICK = pytest.mark.parametrize("name", slow_but_for(NAMES[:1], NAMES))
IDS = jnp.array([[1, 5, 9, 2, 11, 7, 3, 8, 4, 6], [1, 7, 2, 0, 0, 0, 0, 0, 0, 0]])
MASK = jnp.array([[1] * 10, [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]])


def build(name: str, **changes: Any) -> tuple[Any, Any]:
    """Config and parameters of a tiny encoder, whose weights are large enough to tell its parts apart."""
    config = FAMILIES[name].config(**{**SIZES, **OWN[name], "initializer_range": 0.3, **changes})
    return config, mt.encoder(config).init(jax.random.key(0), IDS)["params"]


@functools.partial(jax.jit, static_argnames=("config", "dtype", "remat"))
def states(
    config: Any, params: Any, ids: Any = IDS, mask: Any = MASK, dtype: Any = jnp.float32, remat: bool = False
) -> jax.Array:
    return mt.encoder(config, dtype, remat).apply({"params": params}, ids, mask).hidden_states


@pytest.mark.slow
@BOTH
def test_a_run_is_trained_scored_and_exported(name: str, config: Config, tmp_path: Path) -> None:
    """With all that looks into an encoder: SMART, surgery, decay by depth, bfloat16, frozen parts, remat."""
    folder = save_modern(name, tmp_path / "encoder")
    config = dataclasses.replace(
        with_encoder(dataclasses.replace(config, tasks=config.tasks[1:]), folder, "pair"),
        optimizer=("pcgrad()", "adam(lr)", "layerwise_decay(0.9)"),
        compute_dtype="bfloat16",
        remat=True,
        smart=SmartConfig(weight=1.0),
        steps=None,
        stages=(
            StageConfig("heads", steps=1, freeze=("encoder",), cache_features=True, smart=SmartConfig(weight=0.0)),
            StageConfig("all", steps=2, freeze=("encoder/embeddings",)),
        ),
    )
    save_config(config, tmp_path / "run.toml")
    assert main(["train", str(tmp_path / "run.toml")]) == 0
    assert main(["evaluate", config.out]) == 0
    lines = [json.loads(line) for line in (Path(config.out) / "metrics.jsonl").read_text().splitlines()]
    assert min(min(line["smoothness"].values()) for line in lines if "smoothness" in line) > 0
    before, after = mt.load_pretrained(folder)[1], mt.MultitaskModel.from_checkpoint(config.out, "latest")
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, after.params["encoder"])
    assert max(jax.tree.leaves(moved["embeddings"])) == 0
    assert min(jax.tree.leaves(moved["layer_1"]["attention"])) > 1e-4
    assert name == "deberta-v2" or moved["final_norm"]["scale"] > 1e-4
    assert main(["export", config.out, "--format", "hf", "--checkpoint", "latest"]) == 0
    exported, params = mt.load_pretrained(Path(config.out) / "export" / "hf")
    assert exported == after.setup.encoder_config
    jax.tree.map(np.testing.assert_array_equal, params, after.params["encoder"])
    settings = json.loads((Path(config.out) / "export" / "hf" / "tokenizer_config.json").read_text())
    assert settings["model_input_names"] == ["input_ids", "attention_mask"]


@ONE_QUICK
def test_a_program_for_plain_jax_takes_any_length(name: str, config: Config, tmp_path: Path) -> None:
    folder = save_modern(name, tmp_path / "encoder")
    setup = Setup.load(with_encoder(config, folder, "mean"), folder)
    params = setup.initial_params(mt.load_pretrained(folder)[1])
    exported = program(setup.model, params, "sst", setup.positions)
    own = flatten_dict({"encoder": params["encoder"], "heads": {"sst": params["heads"]["sst"]}}, sep="/")
    for length in (5, 10):
        batch = mt.Batch(*(x[:, :length] for x in (IDS, MASK, 0 * IDS)), labels=jnp.zeros(2), weights=jnp.ones(2))
        found = exported.call(own, *batch[:3])
        np.testing.assert_allclose(found, setup.model.logits(params, "sst", batch), atol=1e-5)


@ONE_QUICK
def test_padding_has_no_part(name: str) -> None:
    """Neither its ids nor its number, nor, where SMART enters, its embeddings."""
    config, params = build(name, conv_kernel_size=3) if name == "deberta-v2" else build(name)
    found = states(config, params)
    other = states(config, params, jnp.where(MASK > 0, IDS, 17))
    np.testing.assert_array_equal(found[1, :3], other[1, :3])
    np.testing.assert_allclose(states(config, params, IDS[1:, :3], MASK[1:, :3])[0], found[1, :3], atol=2e-5)
    variables, encoder = {"params": params}, mt.encoder(config)
    embeddings = encoder.apply(variables, IDS, MASK, 0 * IDS, method="embed")
    noise = jax.random.normal(jax.random.key(1), embeddings.shape) * (1 - MASK[..., None])
    entered = encoder.apply(variables, embeddings + noise, MASK, method="encode").hidden_states
    np.testing.assert_allclose(entered * MASK[..., None], found * MASK[..., None], atol=2e-5)


@pytest.mark.slow
@BOTH
def test_layers_kept_short_and_half_precision_give_the_same(name: str) -> None:
    """Values and gradients."""
    config, params = build(name, initializer_range=0.1)

    def loss(params: Any, **options: Any) -> jax.Array:
        return jnp.sum(jnp.sin(states(config, params, **options)) * MASK[..., None])

    whole, short, half = (
        jax.value_and_grad(loss)(params, **options) for options in ({}, {"remat": True}, {"dtype": jnp.bfloat16})
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), whole, short)
    assert 0 < optax.global_norm(jax.tree.map(jnp.subtract, whole[1], half[1])) < 0.03 * optax.global_norm(whole[1])


@BOTH
def test_every_parameter_has_a_name_and_a_depth(name: str) -> None:
    config, params = build(name, num_hidden_layers=3, **({"layer_types": ""} if name == "modernbert" else {}))
    table = dict(names(config))
    assert len(set(table.values())) == len(table)
    after = {"final_norm"} if name == "modernbert" else set()
    assert set(params) == {"embeddings", "layer_0", "layer_1", "layer_2", *after}
    tx = mt.layerwise_decay(0.5)
    ones = {"encoder": jax.tree.map(jnp.ones_like, params)}
    scaled = tx.update(ones, tx.init(ones))[0]["encoder"]
    rates = {part: {float(x.max()) for x in jax.tree.leaves(scaled[part])} for part in scaled}
    assert rates["embeddings"] == {0.5**4}
    assert [rates[f"layer_{number}"] for number in range(3)] == [{0.5**3}, {0.5**2}, {0.5}]
    assert rates.get("final_norm", {1.0}) == {1.0}


@BOTH
def test_one_rate_is_that_of_all_dropout(name: str) -> None:
    config, params = build(name)
    assert config.attention_probs_dropout_prob == (0.1 if name == "deberta-v2" else 0.0)

    def noisy(config: Any) -> jax.Array:
        rngs = {"dropout": jax.random.key(0)}
        return mt.encoder(config).apply({"params": params}, IDS, MASK, deterministic=False, rngs=rngs).hidden_states

    none, much = (family_of(config).with_dropout(config, rate) for rate in (0.0, 0.4))
    np.testing.assert_array_equal(noisy(none), states.__wrapped__(config, params))  # not compiled either: to the bit
    assert np.abs(noisy(much) - states(config, params)).max() > 0.1
    rates = {value for field, value in dataclasses.asdict(much).items() if "dropout" in field}
    assert rates == {0.4}


@BOTH
def test_cudnns_kernel_is_refused(name: str, config: Config, tmp_path: Path) -> None:
    folder = save_modern(name, tmp_path / "encoder")
    config = with_encoder(config, folder, "mean")
    kernel, reason = Setup.load(config, folder).attention
    assert kernel == "xla"
    assert reason.startswith("cuDNN's cannot be had: it has no ")
    with pytest.raises(InputError, match='^attention = "cudnn": it has no (windows|products)'):
        Setup.load(dataclasses.replace(config, attention="cudnn"), folder)


def test_local_layers_see_half_a_window_either_side() -> None:
    config, params = build("modernbert", local_attention=4, num_hidden_layers=1, layer_types="sliding_attention")
    ids = jnp.arange(12)[None]
    found, other = (states(config, params, x, jnp.ones_like(x)) for x in (ids, ids.at[0, 5].set(20)))
    changed = np.flatnonzero(np.abs(found - other)[0].max(-1) > 1e-6)
    assert changed.tolist() == [3, 4, 5, 6, 7]


def test_rotations_tell_distances_alone() -> None:
    """Products of rotated vectors, against the formula in complex numbers (arXiv:2104.09864, equation 12)."""
    tables = rotation_tables(9, 6, 50)
    query, key = jax.random.normal(jax.random.key(0), (2, 6))
    over = [rotate(jnp.broadcast_to(x, (1, 9, 1, 6)), tables)[0, :, 0] for x in (query, key)]
    found = over[0] @ over[1].T
    pairs = [np.asarray(x[:3] + 1j * x[3:]) for x in (query, key)]
    turns = np.exp(1j * np.subtract.outer(np.arange(9), np.arange(9))[..., None] / 50 ** (np.arange(3) / 3))
    np.testing.assert_allclose(found, (pairs[0] * pairs[1].conj() * turns).sum(-1).real, atol=1e-5)


def test_products_with_relative_positions_are_those_of_the_formula() -> None:
    """Token i with the row of the offset from i to j, by a gather (arXiv:2006.03654, equation 4)."""
    tokens, rows = jax.random.normal(jax.random.key(0), (3, 5, 2, 4)), jax.random.normal(jax.random.key(1), (10, 2, 4))
    config = DebertaV2Config(hidden_size=8, num_attention_heads=2)
    found = Attention(config).positional(tokens, rows)  # row m is of offset m - 4, from i to j = i + m - 4
    places = np.arange(5)
    wanted = jnp.einsum("bihd,ijhd->bhij", tokens, rows[places - places[:, None] + 4])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_far_offsets_share_rows() -> None:
    """With 8 rows a side: offsets below 4 have one each; from there to 15, logarithmic ones; beyond, the last."""
    config = DebertaV2Config(max_position_embeddings=20, max_relative_positions=16, position_buckets=8)
    rows = position_rows(config)
    assert rows[20:].tolist() == [8, 9, 10, 11, 12, 13, 13, 14, 14, 14, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15]
    assert rows[:20].tolist() == [0] * 5 + [16 - row for row in rows[35:20:-1]]
    plain = position_rows(DebertaV2Config(max_position_embeddings=5, max_relative_positions=3))
    assert plain.tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 5, 5, 5]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, ("full_attention|sliding_attention", 160_000, 10_000)),
        ({"global_attn_every_n_layers": 1, "global_rope_theta": 9.0}, ("full_attention|full_attention", 9, 10_000)),
        ({"local_rope_theta": 8, "layer_types": ["full_attention"] * 2}, ("full_attention|full_attention", 160_000, 8)),
        (
            {"rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 7.0}}},
            ("full_attention|sliding_attention", 160_000, 7),
        ),
    ],
)
def test_modernberts_files_are_read_in_every_form(
    values: dict[str, Any], wanted: tuple[Any, ...], tmp_path: Path
) -> None:
    described = {"model_type": "modernbert", "num_hidden_layers": 2, "norm_eps": 1e-6, **values}
    (tmp_path / "config.json").write_text(json.dumps(described))
    config = load_encoder_config(tmp_path)
    assert (config.layer_types, config.global_rope_theta, config.local_rope_theta) == wanted
    assert config.layer_norm_eps == 1e-6


def test_modernberts_files_are_written_in_both_forms() -> None:
    to_json = family_of(ModernBertConfig()).to_json
    written = to_json(ModernBertConfig(num_hidden_layers=5))
    assert written["global_attn_every_n_layers"] == 3
    assert [kind[:4] for kind in written["layer_types"]] == ["full", "slid", "slid", "full", "slid"]
    assert "global_attn_every_n_layers" not in to_json(ModernBertConfig(layer_types="sliding_attention|full_attention"))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("modernbert", {"layer_types": "full_attention"}, "layer_types is 'full_attention'; it must be a list of"),
        ("modernbert", {"layer_types": [["x"]]}, "it must be a list of 'full_attention' and 'sliding_attention'"),
        ("modernbert", {"layer_types": ["full_attention"] * 3}, "layer_types has 3 entries for 2 layers"),
        ("modernbert", {"global_attn_every_n_layers": 0}, "global_attn_every_n_layers is 0; it must be a whole number"),
        ("modernbert", {"global_rope_theta": None}, "global_rope_theta is None; it must be a whole number"),
        ("modernbert", {"local_rope_theta": float("inf")}, "local_rope_theta is inf; it must be a whole number"),
        (
            "modernbert",
            {"local_rope_theta": 1e9},
            "local_rope_theta is 1000000000; it must be a whole number from 1 to",
        ),
        ("modernbert", {"rope_scaling": {"type": "yarn"}}, "only rotations of rope_type 'default', without scaling"),
        ("modernbert", {"rope_parameters": [1]}, "only rotations of rope_type 'default', without scaling"),
        (
            "modernbert",
            {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}}},
            "only rotations of rope_type 'default', without scaling",
        ),
        ("modernbert", {"hidden_size": 6, "num_attention_heads": 2}, "a head's width is 3; rotations need an even one"),
        ("deberta-v2", {"pos_att_type": ["c2p", "p2p"]}, "only c2p and p2c can be taken"),
        ("deberta-v2", {"pos_att_type": 3}, "pos_att_type is 3; only c2p and p2c can be taken"),
        ("deberta-v2", {"embedding_size": 8}, "embedding_size is 8; only 16 can be taken here"),
        ("deberta-v2", {"conv_groups": 2}, "conv_groups is 2; only 1 can be taken here"),
        ("deberta-v2", {"conv_kernel_size": 4}, "conv_kernel_size is 4; it must be odd"),
        ("deberta-v2", {"conv_act": "mish"}, "conv_act is 'mish', none of gelu"),
        ("deberta-v2", {"position_buckets": 1}, "position_buckets is 1; it must be above 1, and half of it below"),
        ("deberta-v2", {"position_buckets": 256}, "half of it below the largest distance, 63"),
        ("deberta-v2", {"position_buckets": "8"}, "position_buckets is '8'; it must be a whole number"),
    ],
)
def test_what_is_not_computed_is_refused(name: str, values: dict[str, Any], message: str, tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name, **sizes, **values}))
    with pytest.raises(InputError) as error:
        load_encoder_config(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'config.json'}: ")
    assert message in str(error.value)
