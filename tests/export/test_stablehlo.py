"""An export for plain JAX: what its own loader says, with nothing of this library at hand, and its programs alone."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import mtbert_jax as mt
from mtbert_jax.config import Config
from mtbert_jax.export.loader import LOADER
from mtbert_jax.export.stablehlo import program
from mtbert_jax.export.write import export_run
from mtbert_jax.types import Batch
from tests.cases import slow_but_for
from tests.runs import checkpointed

ABSENT = (
    "mtbert_jax",
    "flax",
    "optax",
    "orbax",
    "torch",
    "transformers",
    "safetensors",
    "jaxtyping",
    "huggingface_hub",
)
ALONE = f"""
import runpy, sys
for name in {ABSENT}:
    sys.modules[name] = None  # as if it were not installed
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
TRICKY = ["the film [SEP] was good", "", "not " * 60, "a GREY\ufeff caf\u00e9 ?", "[CLS] the [PAD] ]", " "]


@pytest.fixture(scope="module")
def model(mixed_run: Path) -> mt.MultitaskModel:
    return mt.MultitaskModel.from_checkpoint(mixed_run)


@pytest.fixture(scope="module")
def exported(mixed_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_run(mixed_run, "stablehlo", tmp_path_factory.mktemp("stablehlo") / "out")


def load(folder: Path, task: str, texts: list[tuple[str, ...]], place: Path) -> list[dict[str, object]]:
    """What ``load.py`` prints, run elsewhere, where only JAX, NumPy and tokenizers can be imported."""
    lines = "".join("\t".join(text) + "\n" for text in texts)
    command = [sys.executable, "-I", "-X", "utf8", "-c", ALONE, str(folder / "load.py"), task]
    done = subprocess.run(command, input=lines.encode(), capture_output=True, cwd=place, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def test_the_files_are_these(exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == [
        "README.md", "load.py", "para.jax", "params.npz", "sst.jax", "sts.jax", "tasks.json", "tokenizer.json"
    ]  # fmt: skip


def test_the_loader_is_an_example_of_thirty_lines() -> None:
    assert len(LOADER.splitlines()) <= 30
    assert max(map(len, LOADER.splitlines())) <= 120


def test_what_the_loader_may_not_have_is_really_gone(tmp_path: Path) -> None:
    (tmp_path / "load.py").write_text("import mtbert_jax")
    command = [sys.executable, "-I", "-c", ALONE, str(tmp_path / "load.py")]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 1
    assert b"import of mtbert_jax halted" in done.stderr


@pytest.mark.parametrize("task", slow_but_for(("para",), ("sst", "para", "sts")))
def test_the_loader_repeats_the_runs_own_dev_predictions(
    exported: Path, mixed_run: Path, model: mt.MultitaskModel, tmp_path: Path, task: str
) -> None:
    examples = mt.read_task(model.setup.tasks[task], "dev", model.setup.config.data_dir)
    with np.load(mixed_run / "predictions" / "dev-logits.npz") as file:
        wanted = file[task]
    rows = load(exported, task, [example.texts for example in examples], tmp_path)
    np.testing.assert_allclose([row["logits"] for row in rows], wanted, rtol=0, atol=1e-5)
    assert np.std(wanted[:, 0]) > 1e-3
    labels = [prediction.label for prediction in model.describe(task, wanted)]
    assert [row["label"] for row in rows] == pytest.approx(labels, abs=1e-5)


def test_the_loader_reads_awkward_text_as_we_do(exported: Path, model: mt.MultitaskModel, tmp_path: Path) -> None:
    pairs = [(a, b) for a in TRICKY for b in TRICKY[:3]]
    rows = load(exported, "sts", pairs, tmp_path)  # type: ignore[arg-type]
    found = [row["label"] for row in rows]
    wanted = [prediction.label for prediction in model.predict("sts", pairs)]  # type: ignore[arg-type]
    assert found == pytest.approx(wanted, abs=1e-5)
    assert len({round(float(label), 4) for label in wanted}) > 9


@pytest.mark.parametrize("task", slow_but_for(("para",), ("sst", "para", "sts")))
def test_one_program_takes_any_batch_and_length(exported: Path, model: mt.MultitaskModel, task: str) -> None:
    called = export.deserialize((exported / f"{task}.jax").read_bytes())
    assert called.platforms == ("cpu", "cuda")
    with np.load(exported / "params.npz") as file:
        params = {name: file[name] for name in file if name.startswith(("encoder/", f"heads/{task}/"))}
    rng = np.random.default_rng(0)
    logits = jax.jit(model.setup.model.logits, static_argnums=1)
    for rows, length in ((1, 3), (5, 23), (2, 64)):
        ends = rng.integers(3, length + 1, rows)[:, None]
        mask = (np.arange(length) < ends).astype(np.int32)
        types = ((np.arange(length) >= ends // 2) * mask).astype(np.int32)
        ids = (rng.integers(0, model.setup.encoder_config.vocab_size, (rows, length)) * mask).astype(np.int32)
        unused = jnp.zeros(rows)
        wanted = logits(model.params, task, Batch(ids, mask, types, unused, unused))  # type: ignore[arg-type]
        found = called.call(params, ids, mask, types)
        assert found.shape == (rows, model.setup.model.heads[task].num_outputs)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_a_program_refuses_more_tokens_than_there_are_positions(exported: Path) -> None:
    called = export.deserialize((exported / "sst.jax").read_bytes())
    with np.load(exported / "params.npz") as file:
        params = {name: file[name] for name in file if name.startswith(("encoder/", "heads/sst/"))}
    with pytest.raises(ValueError, match="shapes"):
        called.call(params, *[np.ones((1, 65), np.int32)] * 3)


def test_parameters_are_stored_once(exported: Path, model: mt.MultitaskModel) -> None:
    with np.load(exported / "params.npz") as file:
        stored = {name: file[name].shape for name in file}
    assert len(stored) == len(jax.tree.leaves(model.params))
    assert stored["heads/para/output/kernel"] == (64, 1)
    assert max((exported / f"{task}.jax").stat().st_size for task in model.setup.tasks) < 200_000


@pytest.mark.parametrize("changes", [{"kernel": "cudnn"}, {"remat": True}])
def test_what_training_computed_with_does_not_show(model: mt.MultitaskModel, changes: dict[str, object]) -> None:
    """CuDNN's attention could not be exported for a CPU at all."""
    other = dataclasses.replace(model.setup.model, encoder=model.setup.model.encoder.clone(**changes))
    programs = [program(one, model.params, "sst", 64).mlir_module() for one in (model.setup.model, other)]
    assert programs[0] == programs[1]
    assert "custom_call @__cudnn" not in programs[1]


def test_products_keep_their_type(config: Config, tmp_path: Path) -> None:
    run = checkpointed(dataclasses.replace(config, compute_dtype="bfloat16", tasks=config.tasks[:1]))
    out, texts = export_run(run.path, "stablehlo"), ["the film was good", "a bad song"]
    rows = load(out, "sst", [(text,) for text in texts], tmp_path)
    model = mt.MultitaskModel.from_checkpoint(run.path)
    assert "bf16" in program(model.setup.model, model.params, "sst", 64).mlir_module()
    assert "Matrix products are in\nbfloat16." in (out / "README.md").read_text()
    shares = jax.nn.softmax(jnp.array([row["logits"] for row in rows]))
    wanted = [list(prediction.probabilities.values()) for prediction in model.predict("sst", texts)]
    np.testing.assert_allclose(shares, wanted, atol=5e-3)
