"""Encoders in Hugging Face layout: what loads, and what is refused."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from huggingface_hub.utils import filter_repo_objects
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from mtbert_jax.encoders import hub
from mtbert_jax.encoders.bert import BertConfig
from mtbert_jax.encoders.config_json import load_encoder_config
from mtbert_jax.encoders.hub import (
    FILES,
    load_pretrained,
    locate,
    names,
    save_description,
    save_pretrained,
)
from mtbert_jax.encoders.tokenizer import load_tokenizer
from mtbert_jax.errors import InputError
from mtbert_jax.limits import MEBIBYTE
from mtbert_jax.types import Params
from tests.conftest import TINY

Tensors = dict[str, np.ndarray]
QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.fixture
def directory(encoder_dir: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(encoder_dir, tmp_path / "encoder"))


def same(a: Params, b: Params) -> bool:
    pairs = jax.tree.map(lambda x, y: x.dtype == y.dtype == np.float32 and np.array_equal(x, y), a, b)
    return all(jax.tree.leaves(pairs))


def change_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(directory: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = directory / "model.safetensors"
    save_file(change(load_file(path)), path)


def refusal(encoder: str | Path) -> str:
    with pytest.raises(InputError) as error:
        load_pretrained(encoder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_saving_and_loading_gives_every_bit_back(encoder_dir: Path, tmp_path: Path) -> None:
    config, params = load_pretrained(encoder_dir)
    assert config == TINY
    save_pretrained(tmp_path / "new" / "folder", config, params)
    again, loaded = load_pretrained(str(tmp_path / "new" / "folder"))
    assert again == config
    assert same(loaded, params)


def test_parameters_of_another_shape_than_the_configs_are_not_saved(tmp_path: Path, encoder_dir: Path) -> None:
    config, params = load_pretrained(encoder_dir)
    wider = dataclasses.replace(config, vocab_size=2 * config.vocab_size)
    with pytest.raises(
        InputError, match=r"params do not fit the config: embeddings/word/embedding is \(.*\) in params"
    ):
        save_pretrained(tmp_path / "new", wider, params)
    without = {name: leaf for name, leaf in params.items() if name != "pooler"}
    with pytest.raises(InputError, match=r"pooler/bias is no such parameter in params and \(\d+,\) by the config"):
        save_pretrained(tmp_path / "new", config, without)
    assert not (tmp_path / "new").exists()


def test_every_field_of_the_config_is_saved(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, hidden_act="relu", hidden_dropout_prob=0.3, layer_norm_eps=1e-6, pad_token_id=3)
    hub.save_description(tmp_path, config)
    assert load_encoder_config(tmp_path) == config
    described = json.loads((tmp_path / "config.json").read_text())
    assert (described["model_type"], described["architectures"]) == ("bert", ["BertModel"])


def test_names_are_those_of_hugging_faces_bert() -> None:
    table = dict(names(TINY))
    assert len(table) == 5 + 16 * 2 + 2
    assert len(set(table.values())) == len(table)
    assert table["embeddings/token_type/embedding"] == "embeddings.token_type_embeddings.weight"
    assert table["embeddings/layer_norm/scale"] == "embeddings.LayerNorm.weight"
    assert table["layer_1/attention/query/kernel"] == QUERY
    assert table["layer_0/attention_norm/bias"] == "encoder.layer.0.attention.output.LayerNorm.bias"
    assert table["layer_0/output/bias"] == "encoder.layer.0.output.dense.bias"
    assert table["pooler/kernel"] == "pooler.dense.weight"


def test_layers_from_the_tenth_on_have_their_own_names() -> None:
    theirs = [name for _, name in names(BertConfig())]
    assert len(theirs) == len(set(theirs)) == 5 + 16 * 12 + 2
    assert "encoder.layer.11.output.LayerNorm.weight" in theirs


def test_kernels_are_stored_transposed_and_embeddings_as_they_are(encoder_dir: Path) -> None:
    _, params = load_pretrained(encoder_dir)
    tensors = load_file(encoder_dir / "model.safetensors")
    assert tensors["encoder.layer.0.intermediate.dense.weight"].shape == (24, 16)
    assert np.array_equal(tensors[QUERY].T, params["layer_1"]["attention"]["query"]["kernel"])
    assert np.array_equal(tensors["embeddings.word_embeddings.weight"], params["embeddings"]["word"]["embedding"])


def test_a_saved_tokenizer_loads_again(encoder_dir: Path, tmp_path: Path) -> None:
    config, params = load_pretrained(encoder_dir)
    save_pretrained(tmp_path, config, params, load_tokenizer(encoder_dir))
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab_size() == TINY.vocab_size
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"  # which reads tokenizer.json as it stands
    assert settings["model_max_length"] == 64
    assert settings["model_input_names"] == ["input_ids", "token_type_ids", "attention_mask"]
    special = {name: token for name, token in settings.items() if name.endswith("_token")}
    assert special == {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "SEP", "CLS", "MASK")}


def test_a_tokenizer_without_a_token_for_padding_gets_a_known_one(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\nfilm\n")
    save_description(tmp_path, TINY, load_tokenizer(tmp_path))
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["pad_token"] == "[UNK]"
    assert "mask_token" not in settings


def test_weights_can_be_read_by_whoever_can_read_the_config(encoder_dir: Path, tmp_path: Path) -> None:
    save_pretrained(tmp_path, *load_pretrained(encoder_dir))
    modes = {(tmp_path / name).stat().st_mode for name in ("config.json", "model.safetensors")}
    assert len(modes) == 1


def test_the_names_of_a_whole_model_load(encoder_dir: Path, directory: Path) -> None:
    def prefixed(tensors: Tensors) -> Tensors:
        return {**{f"bert.{name}": value for name, value in tensors.items()}, "cls.predictions.bias": np.zeros(3)}

    change_tensors(directory, prefixed)
    assert same(load_pretrained(directory)[1], load_pretrained(encoder_dir)[1])


def test_tensorflows_names_of_layer_norm_load(encoder_dir: Path, directory: Path) -> None:
    def old(name: str) -> str:
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        return "bert." + name.replace("LayerNorm.bias", "LayerNorm.beta")

    change_tensors(directory, lambda tensors: {old(name): value for name, value in tensors.items()})
    assert same(load_pretrained(directory)[1], load_pretrained(encoder_dir)[1])


@pytest.mark.parametrize("dtype", [np.float16, jax.numpy.bfloat16])
def test_a_file_of_half_precision_loads_as_float32(dtype: Any, encoder_dir: Path, directory: Path) -> None:
    change_tensors(directory, lambda tensors: {name: value.astype(dtype) for name, value in tensors.items()})
    params = load_pretrained(encoder_dir)[1]
    expected = jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype).astype(np.float32), params)
    assert same(load_pretrained(directory)[1], expected)


def test_keys_of_config_json_that_concern_no_encoder_are_passed_over(directory: Path) -> None:
    change_config(directory, id2label={"0": "a"}, use_cache=True, layer_norm_eps=None, gradient_checkpointing=False)
    assert load_encoder_config(directory) == TINY


def test_a_string_that_is_neither_directory_nor_hub_name_is_refused() -> None:
    for name in ("./nowhere", "/no/such/folder", "a/b/c", "a b", "../up", "a/"):
        assert "is neither a directory nor a hub name" in refusal(name)


def test_a_missing_config_json_is_named(directory: Path) -> None:
    (directory / "config.json").unlink()
    assert (
        refusal(directory) == f"{directory} is no encoder directory: cannot read config.json: No such file or directory"
    )


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100000])
def test_a_config_json_that_is_no_json_is_named(data: bytes, directory: Path) -> None:
    (directory / "config.json").write_bytes(data)
    assert refusal(directory).startswith(f"{directory}/config.json is not JSON: ")


def test_a_config_json_that_is_no_text_is_named(directory: Path) -> None:
    (directory / "config.json").write_bytes(b"\xff")
    assert refusal(directory).startswith(f"{directory}/config.json:1: is not UTF-8 text (byte ")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[]", "None"),
        ("{}", "None"),
        ('{"model_type": "xlnet"}', "'xlnet'"),
        ('{"model_type": ["bert"]}', "a list"),
    ],
)
def test_another_type_of_model_is_refused(text: str, found: str, directory: Path) -> None:
    (directory / "config.json").write_text(text)
    assert f"config.json: model_type is {found}; known: bert" in refusal(directory)
    assert refusal(directory).endswith("--plugins FILE can add one")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "mish"}, "hidden_act is 'mish', none of gelu, gelu_new, relu, silu, tanh"),
        ({"hidden_act": 3}, "hidden_act is 3; it must be a string"),
        ({"num_attention_heads": 3}, "hidden_size 16 is no multiple of 3 heads"),
        ({"hidden_size": -16}, "hidden_size is -16; it must be a whole number from 1 to "),
        ({"hidden_size": "16"}, "hidden_size is '16'; it must be a whole number from 1 to "),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; it must be a whole number from 1 to "),
        ({"num_hidden_layers": True}, "num_hidden_layers is True; it must be a whole number from 1 to "),
        ({"num_attention_heads": 0}, "num_attention_heads is 0; it must be a whole number from 1 to "),
        ({"vocab_size": 36.0}, "vocab_size is 36.0; it must be a whole number from 1 to "),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000; it must be a whole number"),
        ({"intermediate_size": [24]}, "intermediate_size is a list; it must be a whole number from 1 to "),
        ({"num_hidden_layers": 101}, "num_hidden_layers is 101; it must be a whole number from 1 to 100"),
        ({"hidden_size": json.loads("[" * 900 + "]" * 900)}, "hidden_size is a list; it must be a whole number"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob is 1.0; it must be a number from 0 to below 1"),
        ({"hidden_dropout_prob": float("nan")}, "hidden_dropout_prob is nan; it must be a number"),
        ({"layer_norm_eps": "1e-12"}, "layer_norm_eps is '1e-12'; it must be a number"),
        ({"pad_token_id": -1}, "pad_token_id is -1; it must be a whole number from 0 to "),
        ({"position_embedding_type": "relative_key"}, "only an encoder with absolute positions can be read"),
        ({"is_decoder": True}, "only an encoder can be read, and is_decoder is set"),
    ],
)
def test_a_field_of_config_json_that_cannot_work_is_named(
    changes: dict[str, Any], message: str, directory: Path
) -> None:
    change_config(directory, **changes)
    assert refusal(directory).startswith(f"{directory}/config.json: {message}")


def test_a_pickle_is_never_opened(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    assert refusal(directory).startswith(f"{directory} has only pytorch_model.bin, a pickle, which could run code")


def test_missing_weights_are_named(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    assert refusal(directory) == f"{directory} has no model.safetensors"


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 0.1, 0.5, 0.9, 0.9999])
def test_weights_that_are_cut_off_are_named(share: float, directory: Path) -> None:
    path = directory / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert refusal(directory).startswith(f"{path} is broken or cut off: ")


@pytest.mark.parametrize("data", [b"\xff" * 64, b"\x02" + b"\0" * 7 + b"[]", b"<html>not found</html>" * 9])
def test_weights_that_are_something_else_are_named(data: bytes, directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(data)
    assert refusal(directory).startswith(f"{directory}/model.safetensors is broken or cut off: ")


def test_a_missing_tensor_is_named(directory: Path) -> None:
    change_tensors(directory, lambda tensors: {name: value for name, value in tensors.items() if name != QUERY})
    assert refusal(directory) == f"{directory}/model.safetensors: tensor {QUERY} is missing"


@pytest.mark.parametrize("shape", [(16, 8), (16,), (256, 1)])
def test_a_tensor_of_the_wrong_shape_is_named(shape: tuple[int, ...], directory: Path) -> None:
    change_tensors(directory, lambda tensors: {**tensors, QUERY: np.zeros(shape, np.float32)})
    told = f"tensor {QUERY} has the wrong shape for config.json: {shape}, not (16, 16)"
    assert refusal(directory) == f"{directory}/model.safetensors: {told}"


def test_a_tensor_that_holds_no_weights_is_refused(directory: Path) -> None:
    change_tensors(directory, lambda tensors: {**tensors, QUERY: np.zeros((16, 16), np.int64)})
    assert refusal(directory).endswith(f"model.safetensors: tensor {QUERY} is of I64, none of F32, F16, BF16, F64")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_pointer_of_git_lfs_is_called_one(name: str, directory: Path) -> None:
    (directory / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90868376\n")
    said = "is Git LFS's pointer to a file that was not fetched; run git lfs pull"
    assert refusal(directory) == f"{directory}/{name}: {said}"


@pytest.mark.parametrize("length", [2**63, 8 * MEBIBYTE + 1, 200_000])
def test_a_header_that_claims_too_much_is_not_read(length: int, directory: Path) -> None:
    """Neither more than the file has, nor more than any BERT's header needs; the file is sparse."""
    path = directory / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    if length == 8 * MEBIBYTE + 1:
        os.truncate(path, 2**40)
    assert refusal(directory) == f"{path} is broken or cut off: its header claims {length} bytes"


def test_a_tensor_is_not_read_before_its_shape_is_known_to_be_right(directory: Path) -> None:
    """One of 4 TiB would not fit into memory; the file is sparse."""
    path = directory / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    end = max(about["data_offsets"][1] for name, about in header.items() if name != "__metadata__")
    name = "embeddings.word_embeddings.weight"
    header["unused"] = header.pop(name)
    header[name] = {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [end, end + 2**42]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    os.truncate(path, 8 + len(text) + end + 2**42)
    assert f"tensor {name} has the wrong shape for config.json: (1048576, 1048576), not (" in refusal(directory)


def test_more_layers_than_the_file_holds_are_noticed_before_any_is_traced(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_config(directory, num_hidden_layers=100)
    monkeypatch.setattr(hub, "_shapes", lambda _: pytest.fail("traced"))
    assert refusal(directory).endswith("tensor encoder.layer.99.attention.self.query.weight is missing")


JSON = ["config.json", "tokenizer.json", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"]


@pytest.mark.parametrize("name", [*JSON, "sentence_bert_config.json", "modules.json", "vocab.txt"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(name: str, directory: Path) -> None:
    for unlinked in {name, "tokenizer.json" if name == "vocab.txt" else name}:
        (directory / unlinked).unlink(missing_ok=True)
    os.mkfifo(directory / name)
    with pytest.raises(InputError, match=f"{name} is no file"):
        load_encoder_config(directory)
        load_tokenizer(directory)


@pytest.mark.parametrize("name", [*JSON, "modules.json", "model.safetensors"])
def test_a_link_to_nowhere_is_not_taken_for_no_file(name: str, directory: Path) -> None:
    """As a copy of the hub's cache has them: without a file of settings the tokens would be other ones."""
    (directory / name).unlink(missing_ok=True)
    (directory / name).symlink_to("../../blobs/1f3b")
    with pytest.raises(InputError) as error:
        load_tokenizer(directory)
        load_pretrained(directory)
    assert str(error.value) == f"{directory / name} is a link to ../../blobs/1f3b, where no file lies"


def test_a_file_in_place_of_its_folder_is_told_apart(directory: Path) -> None:
    assert refusal(directory / "config.json").endswith(f"; it is a file: name its folder, {str(directory)!r}")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_a_file_that_may_not_be_read_is_not_called_broken(
    name: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != name)
    with pytest.raises(InputError) as error:
        load_tokenizer(directory)
        load_pretrained(directory)
    assert str(error.value) == f"cannot read {directory / name}: Permission denied"


def test_a_folder_that_may_not_be_entered_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    assert refusal(directory) == f"cannot read the encoder {directory}: Permission denied"


def test_a_hub_name_is_fetched_with_the_few_files_that_are_read(
    encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def download(name: str, **settings: Any) -> str:
        calls.append((name, settings))
        return str(encoder_dir)

    monkeypatch.setattr(hub.huggingface_hub, "snapshot_download", download)
    assert locate("org/bert-tiny", "v1") == encoder_dir
    assert load_pretrained("bert-tiny")[0] == TINY
    patterns = {"allow_patterns": list(FILES)}
    assert calls == [("org/bert-tiny", {"revision": "v1", **patterns}), ("bert-tiny", {"revision": None, **patterns})]
    assert not [name for name in FILES if name.endswith((".bin", ".h5", ".msgpack", "*"))]


def test_of_shards_the_hub_gives_all(encoder_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none of the weights where only the tokenizer is asked for."""
    there = [
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "model.fp16.safetensors",
        "tf_model.h5",
    ]
    there += ["added_tokens.json", "special_tokens_map.json", "sentence_bert_config.json", "onnx/model.onnx"]
    fetched = []

    def download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        fetched.append([*filter_repo_objects(there, allow_patterns=allow_patterns)])
        return str(encoder_dir)

    monkeypatch.setattr(hub.huggingface_hub, "snapshot_download", download)
    locate("org/large")
    locate("org/large", weights=False)
    assert fetched == [[*there[:2], *there[4:7]], there[4:7]]


def test_a_hub_that_does_not_answer_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise OSError("no network\nand a second line")

    monkeypatch.setattr(hub.huggingface_hub, "snapshot_download", download)
    assert refusal("org/none").endswith("the hub did not give it: no network")


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, np.float32), (np.inf, np.float16), (1e300, np.float64)])
@pytest.mark.parametrize("tensor", ["pooler.dense.weight", "embeddings.LayerNorm.bias"])
def test_a_tensor_with_values_that_are_not_finite_is_named(
    directory: Path, tensor: str, value: float, dtype: Any
) -> None:
    """Also one that float32 cannot hold: it would be an infinity."""

    def spoil(tensors: Tensors) -> Tensors:
        spoilt = tensors[tensor].astype(dtype)
        spoilt.flat[3] = spoilt.flat[5] = value
        return {**tensors, tensor: spoilt}

    change_tensors(directory, spoil)
    size = load_file(directory / "model.safetensors")[tensor].size
    found = refusal(directory)
    assert f"model.safetensors: tensor {tensor} has 2 of {size} values that are not finite" in found


def test_what_no_part_of_the_encoder_is_may_be_anything(encoder_dir: Path, directory: Path) -> None:
    change_tensors(directory, lambda tensors: {**tensors, "cls.bias": np.full(3, np.nan, np.float32)})
    assert same(load_pretrained(directory)[1], load_pretrained(encoder_dir)[1])


def test_a_run_folder_is_told_of_the_way(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    assert f"is a run folder; init_from = {str(tmp_path)!r} begins a run" in refusal(tmp_path)
    (directory / "model.safetensors").unlink()
    assert refusal(directory).endswith(
        f"has no model.safetensors; init_from = {str(tmp_path)!r} takes those of that run"
    )
    (tmp_path / "seeds" / "seed1").mkdir(parents=True)
    (tmp_path / "seeds" / "seed1" / "config.toml").touch()
    assert "is a run folder" in refusal(tmp_path / "seeds")
