"""What every family does alike, and what each has of its own; against `transformers` in tests/parity."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.config import Config
from mtbert_jax.encoders.config_json import load_encoder_config
from mtbert_jax.encoders.electra import ElectraConfig
from mtbert_jax.encoders.family import FAMILIES, family_of
from mtbert_jax.encoders.mpnet import MPNetConfig, MPNetEncoder, buckets
from mtbert_jax.encoders.roberta import RobertaEncoder
from mtbert_jax.errors import InputError
from mtbert_jax.export.write import export_run
from mtbert_jax.nn import dropout
from mtbert_jax.nn.attention import choose_kernel
from mtbert_jax.optim import layerwise_decay
from mtbert_jax.types import EncoderOutput, Params
from tests.cases import slow_but_for
from tests.encoders.test_family import IDS, MASK, TYPES, with_encoder
from tests.encoders.tiny import SIZES, TOKENIZERS, save_encoder

DEPTH = 2
POOLERLESS = ("distilbert", "electra", "modernbert", "deberta-v2")
SOME = ("bert", "mpnet", "deberta-v2")
"""No biases of positions, one for all layers, one of each layer's own."""
OUTSIDE = ("pooler", "relative_attention_bias", "final_norm")


def make(name: str, **sizes: Any) -> tuple[Any, Params]:
    """A config of small sizes, and parameters of unit size, biases and scales too."""
    config = FAMILIES[name].config(**{**SIZES, "num_hidden_layers": DEPTH, **sizes})
    shapes = jax.eval_shape(mt.encoder(config).init, jax.random.key(1), IDS)["params"]
    leaves, structure = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    return config, jax.tree.unflatten(structure, [jnp.asarray(0.5 * rng.normal(size=x.shape), "f4") for x in leaves])


@functools.partial(jax.jit, static_argnames=("config", "dtype", "remat", "cls_only", "noisy"))
def run(
    params: Params, config: Any, dtype: Any = jnp.float32, remat: bool = False, cls_only: bool = False, noisy: int = 0
) -> EncoderOutput:
    rngs = {"dropout": jax.random.key(noisy)}
    encoder = mt.encoder(config, dtype, remat)
    options = {"deterministic": not noisy, "cls_only": cls_only, "rngs": rngs}
    return encoder.apply({"params": params}, IDS, MASK, TYPES, **options)  # type: ignore[return-value]


@pytest.mark.parametrize("name", slow_but_for(SOME, FAMILIES))
def test_the_two_halves_are_the_whole_and_padding_changes_nothing(name: str) -> None:
    config, params = make(name)
    encoder, whole = mt.encoder(config), run(params, config)
    embeddings = encoder.apply({"params": params}, IDS, MASK, TYPES, method="embed")
    assert jnp.shape(embeddings) == (2, 6, config.hidden_size)
    halves: Any = encoder.apply({"params": params}, embeddings, MASK, method="encode")
    np.testing.assert_allclose(halves.hidden_states, whole.hidden_states, atol=1e-5)
    assert (whole.pooled is None) == (name in POOLERLESS)
    longer: Any = encoder.apply({"params": params}, *(jnp.pad(x, ((0, 0), (0, 3))) for x in (IDS, MASK, TYPES)))
    kept = MASK[..., None]
    np.testing.assert_allclose(longer.hidden_states[:, :6] * kept, whole.hidden_states * kept, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in POOLERLESS])
def test_the_first_token_alone_has_the_same_pooled(name: str) -> None:
    config, params = make(name)
    alone = run(params, config, cls_only=True)
    assert alone.hidden_states.shape[1] == 1
    np.testing.assert_allclose(alone.pooled, run(params, config).pooled, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_other_types_and_rematerialised_layers_agree(name: str) -> None:
    """Also of what dropout draws; every parameter that is used has a gradient."""
    config, params = make(name)
    whole = run(params, config)
    np.testing.assert_allclose(run(params, config, jnp.bfloat16).hidden_states, whole.hidden_states, atol=0.2)

    def loss(params: Params, remat: bool) -> jax.Array:
        return jnp.sum(run(params, config, remat=remat, noisy=1).hidden_states ** 3)

    plain, again = (jax.grad(loss)(params, remat) for remat in (False, True))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-2), plain, again)
    silent = [path for path, leaf in jax.tree_util.tree_leaves_with_path(plain) if not jnp.any(leaf)]
    assert not [path for path in silent if "pooler" not in str(path) and "'key'" not in str(path)]


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_decay_by_their_depth(name: str) -> None:
    tx, (_, params) = layerwise_decay(0.5), make(name)
    ones = jax.tree.map(jnp.ones_like, {"encoder": params, "heads": {"sst": params}})
    factors = {
        top: float(jax.tree.leaves(leaves)[0].ravel()[0])
        for top, leaves in tx.update(ones, tx.init(ones))[0]["encoder"].items()
    }
    layers = 1 if name == "albert" else DEPTH
    expected = {"embeddings": 0.5 ** (layers + 1)} | {f"layer_{n}": 0.5 ** (layers - n) for n in range(layers)}
    assert factors == expected | {top: 1.0 for top in params if top in OUTSIDE}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES if name in TOKENIZERS and name != "bert"])
def test_a_run_over_it_is_trained_on_kept_features_then_whole(name: str, config: Config, tmp_path: Path) -> None:
    config = with_encoder(config, save_encoder(name, tmp_path / "encoder"), "mean")
    stages = (
        mt.StageConfig(name="heads", freeze=("encoder",), cache_features=True, steps=1),
        mt.StageConfig(name="all", freeze=("encoder/embeddings",), smart=mt.SmartConfig(weight=1.0), steps=1),
    )
    found = mt.train(dataclasses.replace(config, tasks=config.tasks[:2], stages=stages), out=tmp_path / "run")
    assert isinstance(found, mt.Run)
    assert 0 <= found.scores["average"] <= 1
    last = mt.MultitaskModel.from_checkpoint(tmp_path / "run", "latest")
    before, after = mt.load_pretrained(config.encoder)[1], last.params["encoder"]
    jax.tree.map(np.testing.assert_array_equal, before["embeddings"], after["embeddings"])
    assert jnp.any(before["layer_0"]["output"]["kernel"] != after["layer_0"]["output"]["kernel"])
    exported = mt.load_pretrained(export_run(tmp_path / "run", "hf", tmp_path / "hf", "latest"))
    assert exported[0] == mt.load_pretrained(config.encoder)[0]
    jax.tree.map(np.testing.assert_array_equal, exported[1], after)


def test_alberts_layer_is_at_every_depth() -> None:
    """BERT's layers, each with its parameters, are the same from the embeddings on."""
    config, params = make("albert", hidden_act="gelu_new")
    embeddings = mt.encoder(config).apply({"params": params}, IDS, MASK, TYPES, method="embed")
    bert, theirs = make("bert", hidden_act="gelu_new")
    layers = {f"layer_{number}": params["layer_0"] for number in range(DEPTH)}
    theirs = {**theirs, **layers, "pooler": params["pooler"]}
    output: Any = mt.encoder(bert).apply({"params": theirs}, embeddings, MASK, method="encode")
    np.testing.assert_allclose(output.pooled, run(params, config).pooled, atol=1e-5)


@pytest.mark.parametrize("remat", [False, True])
def test_alberts_dropout_differs_by_depth(remat: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config, params = make("albert", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    keys, keep_mask = [], dropout.keep_mask

    def keep(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
        jax.debug.callback(lambda data: keys.append(data.tobytes()), jax.random.key_data(key))
        return keep_mask(key, rate, shape)

    monkeypatch.setattr(dropout, "keep_mask", keep)
    encoder, rngs = mt.encoder(config, remat=remat), {"dropout": jax.random.key(0)}
    encoder.apply({"params": params}, IDS, MASK, TYPES, deterministic=False, rngs=rngs)
    jax.effects_barrier()
    assert len(set(keys)) == len(keys) == 1 + 3 * DEPTH


def test_albert_projects_always_and_electra_only_to_another_width() -> None:
    widths = [
        (FAMILIES[name].config(**SIZES, embedding_size=width), width)
        for name in ("albert", "electra")
        for width in (8, 16)
    ]
    found = [
        jax.eval_shape(mt.encoder(config).init, jax.random.key(0), IDS)["params"]["embeddings"] for config, _ in widths
    ]
    assert ["project" in tree for tree in found] == [True, True, True, False]
    assert [tree["word"]["embedding"].shape[1] for tree in found] == [width for _, width in widths]
    assert ElectraConfig().embedding_size == 128


def test_mpnets_buckets_are_its_scale() -> None:
    """METHODS: |n| < 8 exactly, else min(15, 8 + ⌊8 ln(|n| / 8) / ln 16⌋), and 16 more where the key comes later."""
    far = np.arange(1, 600)
    exact = 8 + np.floor(8 * np.log(far / 8) / np.log(16) + 1e-9).astype(int)
    expected = np.where(far < 8, far, np.minimum(15, exact))
    np.testing.assert_array_equal(buckets(far), expected)
    np.testing.assert_array_equal(buckets(-far), expected + 16)
    assert buckets(np.array(0)) == 0


def test_mpnets_bias_is_added_to_the_scores() -> None:
    """One that hides everything but the next key makes each query read that key alone."""
    config, params = make("mpnet", num_hidden_layers=1)
    table = jnp.full((32, 2), -1e9).at[17].set(0.0)
    hidden: Any = mt.encoder(config).apply(
        {"params": {**params, "relative_attention_bias": {"embedding": table}}}, IDS, jnp.ones_like(MASK)
    )
    changed = IDS.at[:, 0].set(99)  # seen by no query but, as its residual, by its own
    other: Any = mt.encoder(config).apply(
        {"params": {**params, "relative_attention_bias": {"embedding": table}}}, changed, jnp.ones_like(MASK)
    )
    np.testing.assert_allclose(hidden.hidden_states[:, 1:5], other.hidden_states[:, 1:5], atol=1e-5)
    assert jnp.abs(hidden.hidden_states[:, 0] - other.hidden_states[:, 0]).max() > 1e-2


def test_mpnet_without_its_bias_is_roberta() -> None:
    config, params = make("mpnet")
    params["relative_attention_bias"] = jax.tree.map(jnp.zeros_like, params["relative_attention_bias"])
    plain = {name: leaf for name, leaf in params.items() if name != "relative_attention_bias"}
    roberta = RobertaEncoder(dataclasses.replace(config)).apply({"params": plain}, IDS, MASK, TYPES)
    np.testing.assert_allclose(roberta.pooled, run(params, config).pooled, atol=1e-6)  # type: ignore[union-attr]


def test_cudnn_is_refused_to_mpnet_with_its_reason() -> None:
    given = (64, 0.0, "bfloat16", MPNetEncoder.unfused)
    assert choose_kernel("auto", *given).reason == f"cuDNN's cannot be had: {MPNetEncoder.unfused}"
    with pytest.raises(InputError, match='^attention = "cudnn": it takes no bias on the scores of attention'):
        choose_kernel("cudnn", *given)
    config = MPNetConfig(**SIZES)
    params = mt.encoder(config).init(jax.random.key(0), IDS)
    one, other = (mt.encoder(config, kernel=kernel).apply(params, IDS, MASK).pooled for kernel in ("xla", "cudnn"))  # type: ignore[arg-type, union-attr]
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("albert", {"num_hidden_groups": 2}, "only one layer at every depth is computed, and {'num_hidden_groups': 2"),
        ("albert", {"inner_group_num": 3}, "only one layer at every depth is computed, and {'num_hidden_groups': 1"),
        ("mpnet", {"relative_attention_num_buckets": 64}, "only relative_attention_num_buckets = 32 and pad_token_id"),
        ("mpnet", {"pad_token_id": 0}, "only relative_attention_num_buckets = 32 and pad_token_id = 1 are computed"),
        ("roberta", {"position_embedding_type": "relative_key"}, "only an encoder with absolute positions can be read"),
        ("camembert", {"is_decoder": True}, "only an encoder can be read, and is_decoder is set"),
        ("electra", {"embedding_size": 0}, "embedding_size is 0; it must be a whole number from 1 to"),
        ("distilbert", {"layer_norm_eps": 1e-5}, "only layer_norm_eps = 1e-12 is computed"),
        ("bert", {"type_vocab_size": 0}, "type_vocab_size is 0; it must be a whole number from 1 on"),
        ("roberta", {"type_vocab_size": 0}, "type_vocab_size is 0; it must be a whole number from 1 on"),
    ],
)  # fmt: skip
def test_what_is_not_computed_is_refused(name: str, values: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name, **values}))
    with pytest.raises(InputError) as error:
        load_encoder_config(tmp_path)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["distilbert", "mpnet"])
def test_token_types_in_the_config_of_a_family_that_has_none_are_passed_over(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name, "type_vocab_size": 2}))
    assert load_encoder_config(tmp_path) == FAMILIES[name].config()


def test_an_unknown_family_is_told_of_all_that_are_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "xlm-robert"}')
    with pytest.raises(InputError) as error:
        load_encoder_config(tmp_path)
    assert ", ".join(FAMILIES) in str(error.value)
    assert "did you mean 'xlm-roberta'?" in str(error.value)


def test_positions_up_to_paddings_are_none_of_a_tokens() -> None:
    lengths = {name: family.max_length(family.config(**SIZES)) for name, family in FAMILIES.items()}
    short = {name for name, length in lengths.items() if length == SIZES["max_position_embeddings"] - 2}
    assert short == {"roberta", "xlm-roberta", "camembert", "mpnet"}
    assert set(lengths.values()) == {64, 66}
    assert {name for name, family in FAMILIES.items() if family.token_types(family.config())} == {
        "bert", "electra", "albert"
    }  # fmt: skip
    assert family_of(MPNetConfig()).name == "mpnet"


@pytest.mark.parametrize("name", slow_but_for(SOME, FAMILIES))
def test_an_encoder_can_be_traced_for_inputs_of_any_length(name: str) -> None:
    """As an export for plain JAX traces it."""
    config, params = make(name)
    symbols = jax.export.symbolic_shape("batch, length", constraints=["length >= 2"])
    tokens = jax.ShapeDtypeStruct(symbols, jnp.int32)
    shapes = jax.eval_shape(lambda params: params, params)
    encode = jax.jit(lambda params, *inputs: mt.encoder(config).apply({"params": params}, *inputs).hidden_states)  # type: ignore[union-attr]
    found = jax.export.export(encode)(shapes, tokens, tokens, tokens)
    np.testing.assert_allclose(found.call(params, IDS, MASK, TYPES), run(params, config).hidden_states, atol=1e-5)
