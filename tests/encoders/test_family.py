"""Families: what one must state, and what a run does over one without token types or without a pooler."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import mtbert_jax as mt
from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, HeadConfig, save_config
from mtbert_jax.data.batches import make_batch
from mtbert_jax.data.tokens import tokenize_texts
from mtbert_jax.encoders.bert import BertFamily
from mtbert_jax.encoders.config_json import load_encoder_config
from mtbert_jax.encoders.family import FAMILIES, family_of
from mtbert_jax.encoders.hub import names
from mtbert_jax.errors import InputError
from mtbert_jax.export.write import export_run
from mtbert_jax.nn.heads import pool
from mtbert_jax.training.setup import Setup
from tests.conftest import replace_task
from tests.encoders.tiny import SIZES

MASK = jnp.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
IDS = jnp.array([[0, 5, 9, 2, 11, 2], [0, 7, 2, 0, 0, 0]])  # padded with zeros, which are no padding here
TYPES = jnp.array([[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]])


def with_encoder(config: Config, encoder: Path, pooling: Any) -> Config:
    """The same run of two steps over another encoder, every head with that pooling; sentiment has but one text."""
    for task in config.tasks:
        own = pooling if len(task.text) == 2 or pooling != "pair" else "mean"
        config = replace_task(config, task.name, head=HeadConfig(pooling=own))
    return dataclasses.replace(config, encoder=str(encoder), steps=2, eval_every_steps=2, log_every_steps=1)


@pytest.mark.slow
def test_a_family_without_token_types_is_trained_scored_and_exported(
    config: Config, roberta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_encoder(config, roberta, "pair")
    config = dataclasses.replace(replace_task(config, "sst", head=HeadConfig()), optimizer=("pcgrad()", "adam(lr)"))
    save_config(config, tmp_path / "run.toml")
    assert main(["train", str(tmp_path / "run.toml")]) == 0
    model = mt.MultitaskModel.from_checkpoint(config.out)
    trees = mt.load_pretrained(roberta)[1], model.params["encoder"]
    before, after = (np.asarray(tree["layer_0"]["output"]["kernel"]) for tree in trees)
    assert np.abs(before - after).max() > 1e-4
    assert json.loads((Path(config.out) / "results.json").read_text())["step"] == 2
    assert len({p.label for p in model.predict("sts", [("a film", "a song"), ("the film was dull", "a film")])}) == 2

    card = (export_run(Path(config.out), "hf") / "README.md").read_text()
    assert "\n- roberta\n" in card
    assert "RoBERTa (1 layers, hidden size 16," in card
    assert "one input, `<s> a </s> </s> b </s>`, with" in card
    assert 'a "</s>" in a text' in card
    assert 'second = tokens["attention_mask"], tokens.pop("token_type_ids")' in card  # RobertaModel would look it up
    settings = json.loads((Path(config.out) / "export" / "hf" / "tokenizer_config.json").read_text())
    assert settings["model_input_names"] == ["input_ids", "attention_mask"]
    assert settings["model_max_length"] == 64
    assert {settings[f"{role}_token"] for role in ("cls", "sep", "pad", "mask", "unk")} == {
        "<s>", "</s>", "<pad>", "<mask>", "<unk>"
    }  # fmt: skip


def test_an_export_for_plain_jax_pads_as_the_family_does(config: Config, roberta: Path, tmp_path: Path) -> None:
    """The loader pads with token 0, which is ``<s>`` here."""
    from tests.runs import checkpointed

    config = with_encoder(config, roberta, "pair")
    run = checkpointed(dataclasses.replace(config, tasks=config.tasks[2:]))
    out = export_run(run.path, "stablehlo")
    assert "any length up\nto 64 will do" in (out / "README.md").read_text()
    texts = [("a film", "the song </s> was bad"), ("the film was good and the book was not", "a")]
    lines = "".join("\t".join(text) + "\n" for text in texts)
    command = [sys.executable, str(out / "load.py"), "sts"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=300, check=True)
    found = [json.loads(line)["label"] for line in done.stdout.splitlines()]
    wanted = [p.label for p in mt.MultitaskModel.from_checkpoint(run.path).predict("sts", texts)]  # type: ignore[arg-type]
    assert found == pytest.approx(wanted, abs=1e-5)


def test_padding_and_positions_are_the_familys(roberta: Path) -> None:
    """Token n has position n + 2, padding has id 1 and position 1, whatever stands there (RobertaEmbeddings)."""
    config, params = mt.load_pretrained(roberta)
    assert family_of(config).max_length(config) == 64
    found = mt.encoder(config).apply({"params": params}, IDS, MASK, TYPES, method="embed")
    tables = {name: np.asarray(leaf["embedding"]) for name, leaf in params["embeddings"].items() if "embedding" in leaf}
    ids = np.array([[0, 5, 9, 2, 11, 2], [0, 7, 2, 1, 1, 1]])
    positions = np.array([[2, 3, 4, 5, 6, 7], [2, 3, 4, 1, 1, 1]])
    x = (tables["word"][ids] + tables["position"][positions] + tables["token_type"][0]).astype(np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + config.layer_norm_eps)
    np.testing.assert_allclose(found, x, atol=1e-5)


def test_pair_pooling_tells_texts_apart_without_token_types(roberta: Path) -> None:
    """By the segments of the family's template: the second one begins with the second text."""
    tokenizer = mt.load_tokenizer(roberta)
    tokens = tokenize_texts(tokenizer, [("the film", "a dull song"), ("a", "a")], 48)
    pieces = [tokenizer.id_to_token(int(token)) for token in tokens.ids[: tokens.starts[1]]]
    first = tokens.first[0]
    assert pieces[0] == "<s>" and pieces[first - 2 : first] == ["</s>", "</s>"] and pieces[first] == "a"
    batch = make_batch(tokens, np.zeros(2, np.float32), np.arange(2), 20, 2)
    config, params = mt.load_pretrained(roberta)
    output = jax.jit(mt.encoder(config).apply)({"params": params}, *batch[:3])
    states = np.asarray(output.hidden_states, np.float64)
    u, v = states[0, :first].mean(0), states[0, first : tokens.starts[1]].mean(0)
    wanted = np.concatenate([u, v, np.abs(u - v), u * v])
    np.testing.assert_allclose(pool(output, batch, "pair")[0], wanted, atol=1e-5)
    blind = jax.jit(mt.encoder(config).apply)({"params": params}, *batch[:2])
    np.testing.assert_array_equal(output.hidden_states, blind.hidden_states)


def test_limits_are_those_of_the_family(config: Config, roberta: Path) -> None:
    config = with_encoder(config, roberta, "mean")
    assert Setup.load(dataclasses.replace(config, max_length=64), roberta).positions == 64
    with pytest.raises(InputError, match=r"^max_length = 65, but the encoder has 64 positions$"):
        Setup.load(dataclasses.replace(config, max_length=65), roberta)
    with pytest.raises(InputError, match=r"^task para: max_length = 3, but task para has 4 special tokens$"):
        Setup.load(replace_task(config, "para", max_length=3), roberta)
    assert Setup.load(replace_task(config, "sst", max_length=3), roberta).tasks["sst"].max_length == 3


def test_an_encoder_without_a_pooler_has_no_pooled(distilbert: Path) -> None:
    config, params = mt.load_pretrained(distilbert)
    assert sorted(params) == ["embeddings", "layer_0"]
    assert sorted(params["embeddings"]) == ["layer_norm", "position", "word"]
    output = mt.encoder(config).apply({"params": params}, IDS, MASK, TYPES)
    assert output.pooled is None
    assert output.hidden_states.shape == (2, 6, 16)
    described = json.loads((distilbert / "config.json").read_text())
    assert (described["dim"], described["n_layers"], described["hidden_dim"]) == (16, 1, 24)
    assert "hidden_size" not in described
    assert "transformer.layer.0.attention.q_lin.weight" in load_file(distilbert / "model.safetensors")


def test_a_head_on_a_pooler_that_is_not_there_is_refused_before_training(config: Config, distilbert: Path) -> None:
    refused = 'pooling = "cls" reads the output of a pooler, and this encoder has none; pooling = "mean" reads all'
    with pytest.raises(InputError, match=f"^task sst: head.{refused}"):
        Setup.load(with_encoder(config, distilbert, "cls"), distilbert)
    setup = Setup.load(with_encoder(config, distilbert, "mean"), distilbert)
    model = mt.MultitaskModel(setup, setup.initial_params(mt.load_pretrained(distilbert)[1]), 0)
    assert model.encode(["the film"]).shape == (1, 16)
    with pytest.raises(InputError, match=f"^{refused}"):
        model.encode(["the film"], "cls")


def test_fields_are_checked_under_the_names_that_the_file_has(distilbert: Path) -> None:
    values = json.loads((distilbert / "config.json").read_text())
    for key, value, message in (
        ("dim", "16", "config.json: dim is '16'; it must be a whole number from 1 to 100000"),
        ("n_layers", 101, "config.json: n_layers is 101; it must be a whole number from 1 to 100"),
        ("activation", "mish", "config.json: hidden_act is 'mish', none of gelu"),
    ):
        (distilbert / "config.json").write_text(json.dumps({**values, key: value}))
        with pytest.raises(InputError) as error:
            load_encoder_config(distilbert)
        assert message in str(error.value)


def test_of_two_names_of_a_size_in_distilberts_config_berts_counts(distilbert: Path) -> None:
    """As in `transformers`; with another number of heads the weights still have the right shapes."""
    values = json.loads((distilbert / "config.json").read_text())
    for extra, heads in (({}, 2), ({"num_attention_heads": 4}, 4)):
        (distilbert / "config.json").write_text(json.dumps({**values, **extra}))
        assert load_encoder_config(distilbert).num_attention_heads == heads


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_has_a_name_of_its_own_and_lies_in_a_layer_or_before_them(name: str) -> None:
    """Layer-wise decay and what a config freezes go by these paths."""
    config = FAMILIES[name].config(**{**SIZES, "num_hidden_layers": 11})
    table = dict(names(config))
    assert len(set(table.values())) == len(table)
    tops = {path.partition("/")[0] for path in table}
    layers = {f"layer_{number}" for number in range(1 if name == "albert" else 11)}
    assert tops - {"pooler", "relative_attention_bias", "final_norm"} == {"embeddings", *layers}


class Config1(mt.BertConfig):
    """A config of its own, as a family needs it."""


@dataclasses.dataclass(frozen=True)
class Listed(mt.BertConfig):
    widths: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("bert", {}, "a family of that name exists"),
        ("new", {"config": mt.BertConfig}, "BertConfig is the config of 'bert'; subclass it"),
        ("new", {"config": Listed}, "Listed.widths is no int, float, str or bool"),
        ("new", {"config": type("Bare", (), {})}, "Bare, its config, is no dataclass"),
        ("new", {"config": 5}, "config = 5: must be a frozen dataclass"),
        ("new", {"encoder": None}, "encoder = None: must be a class that extends mt.Encoder"),
        ("new", {"tokenizer": "WordPiece"}, "tokenizer = 'WordPiece': must be an mt.TokenizerRules"),
        ("new", {"tensors": ()}, "tensors = a list: must be a dict of names by path"),
        ("new", {"tensors": {"block_{}/query": "q.{}"}}, "tensors: 'block_{}/query' must begin with layer_{}/"),
    ],
)
def test_a_family_that_cannot_work_is_not_registered(name: str, changes: dict[str, Any], message: str) -> None:
    known = dict(FAMILIES)
    with pytest.raises(InputError, match=f"^encoder family '{name}' cannot be registered: ") as error:
        mt.register_family(name)(type("Other", (BertFamily,), {"config": Config1, **changes}))
    assert message in str(error.value)
    assert known == FAMILIES


@pytest.mark.parametrize("what", [5, type("Bare", (), {}), BertFamily()])
def test_what_is_no_family_is_not_registered(what: Any) -> None:
    with pytest.raises(InputError, match="'new' cannot be registered: it must be a class that extends mt.Family$"):
        mt.register_family("new")(what)
    assert "new" not in FAMILIES


def test_a_family_must_state_everything() -> None:
    class Bare(mt.Family):
        title = "Bare"

    with pytest.raises(InputError, match="the class lacks architecture, prefix, config, encoder, tensors, tokenizer$"):
        mt.register_family("bare")(Bare)


def test_a_config_of_no_family_is_refused() -> None:
    with pytest.raises(InputError, match="HeadConfig is the config of no encoder family that is registered"):
        mt.encoder(HeadConfig())  # type: ignore[arg-type]


def test_a_bert_with_one_token_type_takes_pairs(config: Config, small_encoder_dir: Path) -> None:
    """As any encoder that tells texts apart by nothing but its separators."""
    one = mt.BertConfig(**{**SIZES, "type_vocab_size": 1})
    params = mt.encoder(one).init(jax.random.key(0), IDS)["params"]
    apart, together = (mt.encoder(one).apply({"params": params}, IDS, MASK, types).pooled for types in (TYPES, None))
    np.testing.assert_array_equal(apart, together)


@pytest.mark.parametrize(
    ("ids", "others", "message"),
    [
        ((3,), {}, r"input_ids of shape \(3,\): give \[batch seq\], texts of 1 to 64 tokens"),
        ((1, 65), {}, r"input_ids of shape \(1, 65\): give"),
        ((1, 0), {}, r"input_ids of shape \(1, 0\): give"),
        ((2, 3), {"attention_mask": (2, 1)}, r"attention_mask of shape \(2, 1\): must be that of input_ids, \(2, 3\)"),
        ((2, 3), {"token_type_ids": (3,)}, r"token_type_ids of shape \(3,\): must be that of input_ids"),
    ],
)
def test_arrays_that_an_encoder_would_clamp_or_broadcast_are_refused(ids: Any, others: Any, message: str) -> None:
    module = mt.encoder(mt.BertConfig(max_position_embeddings=64, num_hidden_layers=1))
    arrays = {name: np.zeros(shape, int) for name, shape in others.items()}
    with pytest.raises(InputError, match=message):
        module.apply({"params": {}}, np.zeros(ids, int), **arrays)


@pytest.mark.parametrize(
    ("ids", "types", "message"),
    [
        ([[1, 320]], None, r"^input_ids from 1 to 320: the encoder has the numbers from 0 to 319"),
        ([[-1, 2]], None, r"^input_ids from -1 to 2: "),
        ([[1.0, 2.0]], None, r"^input_ids of type float32: must be whole numbers"),
        ([[1, 2]], [[0, 2]], r"^token_type_ids from 0 to 2: the encoder has the numbers from 0 to 1"),
    ],
)
def test_ids_that_an_encoder_has_no_row_for_are_refused(ids: Any, types: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mt.encoder(mt.BertConfig(**SIZES)).apply({"params": {}}, ids, token_type_ids=types)
