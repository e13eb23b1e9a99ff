"""The tensors of an encoder's directory: shards, prefixes, poolers, and what is said where there are none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import mtbert_jax as mt
from mtbert_jax.errors import InputError
from mtbert_jax.nn.activations import ACTIVATIONS
from tests.conftest import TINY

Tensors = dict[str, np.ndarray]
WORDS, QUERY = "embeddings.word_embeddings.weight", "encoder.layer.1.attention.self.query.weight"


@pytest.fixture
def directory(encoder_dir: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(encoder_dir, tmp_path / "encoder"))


def change(directory: Path, change: Callable[[Tensors], Tensors]) -> Path:
    path = directory / "model.safetensors"
    save_file(change(load_file(path)), path)
    return directory


def prefixed(directory: Path, prefix: str) -> Path:
    extra = {"classifier.weight": np.zeros((2, 16), np.float32)}
    return change(directory, lambda tensors: {**{prefix + name: value for name, value in tensors.items()}, **extra})


def without_pooler(directory: Path) -> Path:
    return change(directory, lambda tensors: {name: x for name, x in tensors.items() if "pooler" not in name})


def sharded(directory: Path, shards: int = 3) -> Path:
    """The same weights in several files and an index of them."""
    path = directory / "model.safetensors"
    tensors, names = load_file(path), [f"model-{n + 1:05}-of-{shards:05}.safetensors" for n in range(shards)]
    index = {tensor: names[n % shards] for n, tensor in enumerate(tensors)}
    for name in names:
        save_file({tensor: tensors[tensor] for tensor in index if index[tensor] == name}, directory / name)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    path.unlink()
    return directory


def refusal(directory: Path) -> str:
    with pytest.raises(InputError) as error:
        mt.load_pretrained(directory)
    return str(error.value)


def same(one: Path, other: Path) -> None:
    (config, params), (other_config, other_params) = mt.load_pretrained(one), mt.load_pretrained(other)
    assert config == other_config
    jax.tree.map(np.testing.assert_array_equal, params, other_params)


@pytest.mark.parametrize("prefix", ["bert.", "module.bert.", "model.", "0.auto_model.", "encoder.", "a.b.bert."])
def test_the_prefix_is_found_by_what_the_file_holds(prefix: str, directory: Path, encoder_dir: Path) -> None:
    same(prefixed(directory, prefix), encoder_dir)


def test_names_of_layer_norm_are_modern_under_a_prefix_too(directory: Path, encoder_dir: Path) -> None:
    def old(name: str) -> str:
        return "module.bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("Norm.bias", "Norm.beta")

    same(change(directory, lambda tensors: {old(name): x for name, x in tensors.items()}), encoder_dir)


@pytest.mark.parametrize("own", ["", "bert."])
def test_of_two_encoders_the_one_with_the_usual_prefix_is_taken(own: str, directory: Path, encoder_dir: Path) -> None:
    def two(tensors: Tensors) -> Tensors:
        return {
            **{f"teacher.{name}": x + 1 for name, x in tensors.items()},
            **{own + name: x for name, x in tensors.items()},
        }

    same(change(directory, two), encoder_dir)


def test_of_two_encoders_with_other_prefixes_none_is_taken(directory: Path) -> None:
    def two(tensors: Tensors) -> Tensors:
        return {f"{who}.{name}": x for who in ("query", "passage") for name, x in tensors.items()}

    change(directory, two)
    assert refusal(directory).endswith(
        "model.safetensors: holds several encoders, under query., passage.; one is needed"
    )


def test_a_tensor_that_is_missing_under_a_prefix_is_named_as_it_would_be_there(directory: Path) -> None:
    prefixed(directory, "module.")
    change(directory, lambda tensors: {name: x for name, x in tensors.items() if name != f"module.{WORDS}"})
    assert refusal(directory) == f"{directory}/model.safetensors: tensor module.{WORDS} is missing"
    change(directory, lambda tensors: {**tensors, f"other.{WORDS}": np.zeros((2, 2), np.float32)})
    assert refusal(directory).endswith(f"tensor module.{WORDS} is missing; the file has other.{WORDS}")


def test_a_file_of_something_else_is_named_by_what_it_holds(directory: Path) -> None:
    change(directory, lambda _: {"transformer.h.0.attn.c_attn.weight": np.zeros(3, np.float32)})
    assert refusal(directory) == (
        f"{directory}/model.safetensors: holds no encoder of the family bert: looked for {QUERY}, found "
        "transformer.h.0.attn.c_attn.weight"
    )


@pytest.mark.parametrize(
    ("layers", "extra", "first"),
    [
        (1, "embeddings.position_ids", "encoder.layer.1.attention.output.LayerNorm.bias"),
        (2, "encoder.layer.0.adapter.down.weight", "encoder.layer.0.adapter.down.weight"),
        (2, "embeddings.position_ids", None),
        (2, "cls.predictions.bias", None),
    ],
)
def test_tensors_of_the_encoder_that_nothing_reads_are_told(
    layers: int, extra: str, first: str | None, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A config of fewer layers takes the first ones, as in `transformers`, and adapters are none of the encoder's."""
    change(directory, lambda tensors: {**tensors, extra: np.zeros(1, np.float32)})
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers}))
    assert mt.load_pretrained(directory)[0].num_hidden_layers == layers
    assert [record.getMessage().partition("such as ")[2].partition(":")[0] for record in caplog.records] == (
        [first] if first else []
    )


def test_a_tensor_under_both_of_its_names_is_refused(directory: Path) -> None:
    """Which of them would be read depends on the order in the file."""
    change(directory, lambda tensors: {**tensors, "embeddings.LayerNorm.gamma": np.ones(16, np.float32)})
    assert "embeddings.LayerNorm.gamma and embeddings.LayerNorm.weight are two names of one" in refusal(directory)


def test_a_tensor_under_a_longer_name_is_shown(directory: Path) -> None:
    change(directory, lambda tensors: {n.replace("query.", "query.base_layer."): x for n, x in tensors.items()})
    assert refusal(directory).endswith("found encoder.layer.1.attention.self.query.base_layer.bias")


def test_shards_are_one_model(directory: Path, encoder_dir: Path) -> None:
    same(sharded(directory), encoder_dir)
    same(sharded(prefixed(Path(shutil.copytree(encoder_dir, directory.parent / "b")), "bert."), 2), encoder_dir)


def test_a_whole_file_counts_before_an_index(directory: Path, encoder_dir: Path) -> None:
    sharded(directory)
    shutil.copy(encoder_dir / "model.safetensors", directory)
    for shard in directory.glob("model-*"):
        shard.unlink()
    same(directory, encoder_dir)


def test_a_missing_or_broken_shard_is_named(directory: Path) -> None:
    index = sharded(directory) / "model.safetensors.index.json"
    second = directory / "model-00002-of-00003.safetensors"
    data = second.read_bytes()
    second.write_bytes(data[: len(data) // 2])
    assert refusal(directory).startswith(f"{second} is broken or cut off: ")
    second.write_bytes((2**40).to_bytes(8, "little") + data[8:])
    assert refusal(directory) == f"{second} is broken or cut off: its header claims {2**40} bytes"
    second.unlink()
    assert refusal(directory) == f"{index} lists the file {second.name}, which is missing"


def test_shards_are_checked_as_one_file_is(directory: Path) -> None:
    index = sharded(directory) / "model.safetensors.index.json"
    listed = json.loads(index.read_text())["weight_map"]
    path = directory / listed[QUERY]
    tensors = load_file(path)
    save_file({**tensors, QUERY: np.zeros((16, 8), np.float32)}, path)
    assert refusal(directory) == f"{path}: tensor {QUERY} has the wrong shape for config.json: (16, 8), not (16, 16)"
    save_file({**tensors, QUERY: np.zeros((16, 16), np.int8)}, path)
    assert refusal(directory) == f"{path}: tensor {QUERY} is of I8, none of F32, F16, BF16, F64"
    save_file({name: x for name, x in tensors.items() if name != QUERY}, path)
    assert refusal(directory) == f"{index} says that {path.name} holds the tensor {QUERY}, which it does not"
    save_file(tensors, path)
    index.write_text(json.dumps({"weight_map": {name: file for name, file in listed.items() if name != WORDS}}))
    assert refusal(directory) == f"{index}: tensor {WORDS} is missing"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{", " is not JSON: "),
        ("[]", ": weight_map is None; it must name the file of each tensor"),
        ('{"weight_map": {}}', ": weight_map is a table; it must name the file of each tensor"),
        ('{"weight_map": {"a": 3}}', ": the file of a is 3; it must be a *.safetensors beside it"),
        ('{"weight_map": {"a": "../x.safetensors"}}', ": the file of a is '../x.safetensors'; it must be a *.saf"),
        ('{"weight_map": {"a": "pytorch_model.bin"}}', ": the file of a is 'pytorch_model.bin'; it must be a *.saf"),
    ],
)
def test_an_index_that_is_none_is_refused(written: str, message: str, directory: Path) -> None:
    index = sharded(directory) / "model.safetensors.index.json"
    index.write_text(written)
    assert refusal(directory).startswith(f"{index}{message}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pytorch_model-00001-of-00002.bin", "only pytorch_model-00001-of-00002.bin, a pickle, which could run code"),
        ("model-00001-of-00002.safetensors", "no model.safetensors, but model-00001-of-00002.safetensors, one of sev"),
        ("pytorch_model.bin.index.json", "only pytorch_model.bin.index.json, a pickle, which could run code"),
        ("tf_model.h5", "only tf_model.h5, which is not read; load it with transformers and call save_pretrained"),
        (
            "encoder.safetensors",
            "no model.safetensors, but encoder.safetensors, which must be called model.safetensors",
        ),
        (
            "adapter_model.safetensors",
            "no model.safetensors, but adapter_model.safetensors, an adapter alone; merge it",
        ),
    ],
)
def test_what_lies_there_in_place_of_weights_is_named(name: str, message: str, directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / name)
    assert refusal(directory).startswith(f"{directory} has {message}")


def test_the_hubs_copy_without_safetensors_says_that_pickles_are_not_fetched(tmp_path: Path, encoder_dir: Path) -> None:
    copy = tmp_path / "models--org--x" / "snapshots" / "0123"
    copy.mkdir(parents=True)
    shutil.copy(encoder_dir / "config.json", copy)
    assert "has no model.safetensors; a pickle on the hub is never fetched: load the model with" in refusal(copy)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("checkpoint-500/config.json", "; its folder checkpoint-500 can be taken"),
        ("bert_config.json", "; it holds a checkpoint of TensorFlow, bert_config.json: convert it with transformers"),
        ("adapter_config.json", "; it holds an adapter alone: merge it into its base model"),
    ],
)
def test_what_lies_there_in_place_of_a_config_is_named(name: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    assert refusal(tmp_path).endswith(f"cannot read config.json: No such file or directory{hint}")


def test_a_config_without_model_type_is_told_what_to_write(directory: Path) -> None:
    (directory / "config.json").write_text('{"architectures": ["BertModel"]}')
    found = refusal(directory)
    assert "model_type is None; known: bert, " in found
    assert "; if it is one of them, write so there;" in found


def test_weights_without_a_pooler_have_states_and_no_pooled_output(directory: Path, encoder_dir: Path) -> None:
    plain = mt.load_pretrained(encoder_dir)[1]
    config, params = mt.load_pretrained(without_pooler(directory))
    assert not config.has_pooler
    jax.tree.map(np.testing.assert_array_equal, params, {name: plain[name] for name in plain if name != "pooler"})
    ids = jax.numpy.array([[2, 5, 9, 3]])
    ours, whole = (mt.encoder(c).apply({"params": p}, ids) for c, p in ((config, params), (TINY, plain)))
    assert ours.pooled is None
    np.testing.assert_array_equal(ours.hidden_states, whole.hidden_states)


def test_half_a_pooler_is_none(directory: Path) -> None:
    change(directory, lambda tensors: {name: x for name, x in tensors.items() if name != "pooler.dense.bias"})
    assert refusal(directory) == f"{directory}/model.safetensors: tensor pooler.dense.bias is missing"


def test_the_config_says_that_there_is_no_pooler_and_weights_say_it_first(directory: Path, encoder_dir: Path) -> None:
    config, params = mt.load_pretrained(without_pooler(directory))
    saved = directory.parent / "saved"
    mt.save_pretrained(saved, config, params)
    assert json.loads((saved / "config.json").read_text())["has_pooler"] is False
    assert "has_pooler" not in json.loads((encoder_dir / "config.json").read_text())
    same(saved, directory)
    shutil.copy(encoder_dir / "model.safetensors", saved)  # as after training with transformers, which adds one
    assert mt.load_pretrained(saved)[0].has_pooler


@pytest.mark.parametrize(
    ("synonym", "name"),
    [("gelu_python", "gelu"), ("gelu_fast", "gelu_new"), ("gelu_pytorch_tanh", "gelu_new"), ("swish", "silu")],
)
def test_synonyms_of_activations_are_read(synonym: str, name: str, directory: Path) -> None:
    described: dict[str, Any] = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**described, "hidden_act": synonym}))
    assert mt.load_pretrained(directory)[0].hidden_act == synonym
    assert ACTIVATIONS[synonym] is ACTIVATIONS[name]


@pytest.mark.parametrize("name", ["gelu_10", "quick_gelu", "linear"])
def test_activations_that_are_other_functions_are_refused_by_name(name: str, directory: Path) -> None:
    described = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**described, "hidden_act": name}))
    assert f"hidden_act is '{name}', none of gelu, gelu_new, relu, silu, tanh" in refusal(directory)
