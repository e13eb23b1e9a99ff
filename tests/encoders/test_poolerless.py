"""Runs over an encoder without a pooler, as masked-LM training leaves it."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import mtbert_jax as mt
from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, save_config
from mtbert_jax.encoders.hub import load_matching_config
from mtbert_jax.errors import InputError
from mtbert_jax.export.write import export_run
from mtbert_jax.training.setup import Setup
from tests.encoders.test_family import with_encoder


@pytest.fixture
def masked(small_encoder_dir: Path, tmp_path: Path) -> Path:
    """A checkpoint of masked-LM training: a prefix, a head for words, no pooler."""
    place = Path(shutil.copytree(small_encoder_dir, tmp_path / "masked"))
    tensors = load_file(place / "model.safetensors")
    encoder = {f"bert.{name}": value for name, value in tensors.items() if "pooler" not in name}
    save_file({**encoder, "cls.predictions.bias": np.zeros(36, np.float32)}, place / "model.safetensors")
    return place


@pytest.mark.slow
def test_a_run_is_trained_resumed_scored_and_exported(config: Config, masked: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(
        with_encoder(config, masked, "mean"),
        freeze=("encoder/embeddings",),
        optimizer=("pcgrad()", "adam(lr)", "layerwise_decay(0.9)"),
        steps=4,
        save_every_steps=2,
    )
    save_config(config, tmp_path / "run.toml")
    assert main(["train", str(tmp_path / "run.toml")]) == 0
    run = Path(config.out)
    whole = mt.MultitaskModel.from_checkpoint(run, "latest")
    assert json.loads((run / "encoder" / "config.json").read_text())["has_pooler"] is False
    assert sorted(whole.params["encoder"]) == ["embeddings", "layer_0"]
    before = mt.load_pretrained(masked)[1]
    kernels = (tree["layer_0"]["output"]["kernel"] for tree in (before, whole.params["encoder"]))
    assert np.abs(np.subtract(*kernels)).max() > 1e-4

    shutil.rmtree(run / "checkpoints" / "4")
    assert main(["train", str(tmp_path / "run.toml"), "--resume"]) == 0
    again = mt.MultitaskModel.from_checkpoint(run, "latest")
    assert again.step == whole.step == 4
    texts = ["the film was good", "a dull song"]
    assert again.predict("sst", texts) == whole.predict("sst", texts)

    exported = mt.load_pretrained(export_run(run, "hf", tmp_path / "hf", "latest"))[1]
    jax.tree.map(np.testing.assert_array_equal, exported, again.params["encoder"])
    assert "pooler.dense.weight" not in load_file(tmp_path / "hf" / "model.safetensors")
    export_run(run, "stablehlo", tmp_path / "jax", "latest")
    with np.load(tmp_path / "jax" / "params.npz") as arrays:
        assert not [name for name in arrays if name.startswith("encoder/pooler")]
    with pytest.raises(InputError, match='^pooling = "cls" reads the output of a pooler, and this encoder has none'):
        again.encode(texts, "cls")


def test_an_export_is_an_encoder_again(config: Config, masked: Path, tmp_path: Path) -> None:
    """With the tokenizer and the parameters that the run ended with."""
    from tests.runs import checkpointed

    run = checkpointed(with_encoder(config, masked, "mean"))
    out = export_run(run.path, "hf", tmp_path / "hf")
    setup = Setup.load(with_encoder(config, out, "mean"), out)
    assert setup.tokenizer.to_str() == mt.MultitaskModel.from_checkpoint(run.path).setup.tokenizer.to_str()
    assert setup.remarks == ()
    assert not load_matching_config(out).has_pooler


def test_a_head_that_reads_the_pooler_is_refused_before_training(
    config: Config, masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_encoder(config, masked, "cls")
    save_config(config, tmp_path / "run.toml")
    for flags in ([], ["--dry-run"]):
        assert main(["train", str(tmp_path / "run.toml"), *flags]) == 2
        err = capsys.readouterr().err
        assert err.startswith(
            'mtbert: task sst: head.pooling = "cls" reads the output of a pooler, and this encoder has'
        )
        assert 'pooling = "mean"' in err
    assert not Path(config.out).exists()


def test_a_run_folder_as_encoder_points_to_init_from(
    config: Config, masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.runs import checkpointed

    run = checkpointed(with_encoder(config, masked, "mean"))
    save_config(dataclasses.replace(config, encoder=str(run.path), out=str(tmp_path / "b")), tmp_path / "b.toml")
    assert main(["train", str(tmp_path / "b.toml")]) == 2
    assert f"is a run folder; init_from = '{run.path}'" in capsys.readouterr().err
