"""Encoders' folders as people have them: the same ids, states and activations as by `transformers`."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.data.tokens import tokenize_texts
from mtbert_jax.nn.activations import ACTIVATIONS
from tests.encoders.folders import CONFIG, FOLDERS, MARKED, SIZE, TEXTS, write
from tests.parity.test_transformers import TOLERANCE, compare, inputs

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make parity")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: make parity")
safetensors = pytest.importorskip("safetensors.torch", reason="PyTorch is not installed: make parity")


@pytest.mark.parametrize("name", FOLDERS)
def test_token_ids_agree(name: str, tmp_path: Path) -> None:
    """As the folder came, and as we write its tokenizer."""
    folder = write(tmp_path / "encoder", FOLDERS[name])
    ours = mt.load_tokenizer(folder)
    config = mt.BertConfig(**{key: value for key, value in CONFIG.items() if key != "model_type"})  # type: ignore[arg-type]
    params = mt.encoder(config).init(jax.random.key(0), jnp.zeros((1, 1), int))["params"]
    mt.save_pretrained(tmp_path / "saved", config, params, ours)
    for directory in (folder, tmp_path / "saved"):
        theirs = transformers.AutoTokenizer.from_pretrained(directory)
        for texts, split in ((TEXTS, True), (MARKED, False)):
            for first in texts:
                for parts in ((first,), (first, "film"), ("film [x]", first or "a")):
                    wanted = theirs(*parts, split_special_tokens=split)["input_ids"]
                    assert ours.encode(*parts).ids == wanted, parts
                    assert max(wanted) < SIZE + 4
    again = mt.load_tokenizer(tmp_path / "saved")
    for first in (*TEXTS, *MARKED):
        assert again.encode(first).ids == ours.encode(first).ids


def test_markers_and_the_text_sep_are_told_apart_and_cut_as_by_transformers(tmp_path: Path) -> None:
    folder = write(tmp_path, FOLDERS["markers by two files"])
    tokenizer, theirs = mt.load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    pairs = [("[E1] the film [/E1] " * 9, "the [E1] film"), ("the", "[E1]film[/E1] " * 9)]
    tokens = tokenize_texts(tokenizer, pairs, 12)
    for number, pair in enumerate(pairs):
        found = theirs(*pair, max_length=12, truncation="longest_first")["input_ids"]
        assert tokens.ids[tokens.starts[number] : tokens.starts[number + 1]].tolist() == found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of one random BERT as different programs save it."""
    place = tmp_path_factory.mktemp("models")
    sizes = {"vocab_size": 30000, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(**sizes, intermediate_size=64, initializer_range=0.3)
    torch.manual_seed(0)
    model = transformers.BertModel(config)
    model.save_pretrained(place / "plain")
    model.save_pretrained(place / "sharded", max_shard_size="200KB")
    masked = transformers.BertForMaskedLM(config)
    masked.bert.load_state_dict(model.state_dict(), strict=False)
    masked.save_pretrained(place / "masked")
    transformers.BertForPreTraining(config).save_pretrained(place / "pretraining")
    return place


def with_prefix(models: Path, folder: Path, prefix: str) -> Path:
    """The model under a prefix, beside the tensors of a head."""
    shutil.copytree(models / "plain", folder)
    tensors = safetensors.load_file(folder / "model.safetensors")
    tensors = {f"{prefix}{name}": value for name, value in tensors.items()}
    safetensors.save_file({**tensors, "classifier.weight": torch.zeros(3, 32)}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("prefix", ["module.bert.", "model.", "0.auto_model.", "encoder.", "_orig_mod.net.bert."])
def test_an_encoder_under_any_prefix_has_the_same_parameters(models: Path, tmp_path: Path, prefix: str) -> None:
    plain, found = (
        mt.load_pretrained(folder)[1] for folder in (models / "plain", with_prefix(models, tmp_path / "x", prefix))
    )
    jax.tree.map(np.testing.assert_array_equal, found, plain)


def test_shards_have_the_states_that_transformers_computes_from_them(models: Path) -> None:
    assert len([*(models / "sharded").glob("model-*.safetensors")]) > 1
    assert not (models / "sharded" / "model.safetensors").exists()
    assert max(compare(models / "sharded", *inputs(2, 5, 33))) <= TOLERANCE


def test_a_masked_language_model_has_states_and_no_pooled_output(models: Path, tmp_path: Path) -> None:
    """And what is written of it is read back by AutoModel, whose pooler is then a new one."""
    config, params = mt.load_pretrained(models / "masked")
    plain = mt.load_pretrained(models / "plain")[1]
    assert not config.has_pooler and "pooler" not in params
    jax.tree.map(np.testing.assert_array_equal, params, {name: plain[name] for name in params})
    mt.save_pretrained(tmp_path, config, params)
    ids, mask, types = inputs(1, 4, 20)
    ours = jax.jit(mt.encoder(config).apply)({"params": params}, ids, mask, types)
    assert ours.pooled is None
    arguments = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    arguments = {name: torch.tensor(value, dtype=torch.long) for name, value in arguments.items()}
    for options in ({}, {"add_pooling_layer": False}):
        model, report = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True, **options)
        assert {name.partition(".")[0] for name in report["missing_keys"]} == ({"pooler"} if not options else set())
        assert not report["unexpected_keys"]
        with torch.no_grad():
            states = model.eval()(**arguments).last_hidden_state.numpy()
        assert (np.abs(np.asarray(ours.hidden_states) - states) * mask[..., None]).max() <= TOLERANCE


def test_a_model_saved_again_by_transformers_has_the_pooler_that_it_got_there(models: Path, tmp_path: Path) -> None:
    mt.save_pretrained(tmp_path / "ours", *mt.load_pretrained(models / "masked"))
    transformers.AutoModel.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    config, params = mt.load_pretrained(tmp_path / "theirs")
    assert config.has_pooler and "pooler" in params


def test_a_pretraining_checkpoint_has_a_pooler(models: Path) -> None:
    assert mt.load_pretrained(models / "pretraining")[0].has_pooler


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_transformers(name: str) -> None:
    x = np.concatenate([np.linspace(-12, 12, 4001), [0.0, 1e-6, -1e-6, 40.0, -40.0]]).astype(np.float32)
    theirs: Any = transformers.activations.ACT2FN[name](torch.tensor(x)).numpy()
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(x)), theirs, rtol=2e-6, atol=2e-6)


def test_every_activation_of_transformers_that_is_one_of_ours_has_its_name() -> None:
    """Found by values: another name for the same function may come with a later version."""
    x = torch.linspace(-12, 12, 997)
    known = {name: np.asarray(function(jnp.asarray(x.numpy()))) for name, function in ACTIVATIONS.items()}
    for name in set(transformers.activations.ACT2FN) - set(known) - {"prelu", "xielu"}:  # those have parameters
        values = transformers.activations.ACT2FN[name](x).detach().numpy()
        assert not any(np.allclose(values, own, atol=1e-5) for own in known.values()), name


def test_the_list_of_folders_is_long_and_none_of_them_is_another_one() -> None:
    assert len({json.dumps(files, sort_keys=True) for files in FOLDERS.values()}) == len(FOLDERS) >= 12
