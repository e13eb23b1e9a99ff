"""An export for `transformers`, as far as it shows without that: files, tensors, card."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import mtbert_jax as mt
from mtbert_jax.config import Config, HeadConfig
from mtbert_jax.encoders.tokenizer import load_tokenizer
from mtbert_jax.export import card
from mtbert_jax.export.description import describe_export
from mtbert_jax.export.write import export_run
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.setup import Setup
from tests.conftest import course_tasks, replace_task
from tests.runs import checkpointed, lively_params


@pytest.fixture(scope="module")
def exported(mixed_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_run(mixed_run, "hf", tmp_path_factory.mktemp("hf") / "out")


@pytest.fixture(scope="module")
def model(mixed_run: Path) -> mt.MultitaskModel:
    return mt.MultitaskModel.from_checkpoint(mixed_run)


def same(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_files_are_these(exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == [
        "README.md", "config.json", "heads.safetensors", "model.safetensors", "tasks.json", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert len({path.stat().st_mode for path in exported.iterdir()}) == 1


def test_the_encoder_and_its_tokenizer_load_as_any_other(exported: Path, model: mt.MultitaskModel) -> None:
    config, params = mt.load_pretrained(exported)
    assert config == model.setup.encoder_config
    same(params, model.params["encoder"])
    text = "the film [SEP] was GOOD ."
    assert load_tokenizer(exported).encode(text).ids == model.setup.tokenizer.encode(text).ids


def test_heads_have_torchs_names_and_layout(exported: Path, model: mt.MultitaskModel) -> None:
    tensors = load_file(exported / "heads.safetensors")
    assert {name: value.shape for name, value in tensors.items()} == {
        "sst.hidden_0.weight": (16, 16),
        "sst.hidden_0.bias": (16,),
        "sst.output.weight": (5, 16),
        "sst.output.bias": (5,),
        "para.output.weight": (1, 64),
        "para.output.bias": (1,),
        "sts.hidden_0.weight": (12, 16),
        "sts.hidden_0.bias": (12,),
        "sts.hidden_1.weight": (12, 12),
        "sts.hidden_1.bias": (12,),
        "sts.output.weight": (1, 12),
        "sts.output.bias": (1,),
    }
    same(tensors["sts.hidden_1.weight"].T, model.params["heads"]["sts"]["hidden_1"]["kernel"])


def test_every_task_is_described_in_full(exported: Path, mixed_run: Path) -> None:
    about = json.loads((exported / "tasks.json").read_text())
    dev = json.loads((mixed_run / "results.json").read_text())["dev"]
    tasks = about.pop("tasks")
    assert sorted(path.name for path in exported.iterdir()) == about.pop("files")
    assert about == {
        "written_by": f"mtbert_jax {mt.__version__}",
        "format": "hf",
        "run": "run",
        "step": 2,
        "parameters": "student",
        "compute_dtype": "float32",
    }
    assert tasks["sts"] == {
        "kind": "regression",
        "text": ["sentence1", "sentence2"],
        "max_length": 14,
        "classes": [],
        "decision": "value",
        "label_range": [0.0, 5.0],
        "both_orders": False,
        "outputs": 1,
        "pooling": "mean",
        "inputs": [[0, 1]],
        "hidden_layers": 2,
        "hidden_size": 12,
        "activation": "relu",
        "dropout": 0.2,
        "dev": dev["sts"],
    }
    assert [tasks[name]["classes"] for name in ("sst", "para")] == [[0, 1, 2, 3, 4], [0, 1]]
    assert [tasks[name]["hidden_size"] for name in ("sst", "para")] == [16, 16]


def test_scores_are_told_only_of_the_checkpoint_that_they_are_of(mixed_run: Path, model: mt.MultitaskModel) -> None:
    other = dataclasses.replace(model, step=1)
    tasks = describe_export(other, RunFolder(mixed_run), "hf")["tasks"]
    assert [task["dev"] for task in tasks.values()] == [None, None, None]
    page = card.model_card(other, describe_export(other, RunFolder(mixed_run), "hf"))
    assert "This checkpoint has no scores" in page
    assert page.count("| not known |") == 3


@pytest.mark.parametrize("results", ['{"step": 2, "dev": 3}', '{"step": 2, "dev": {"sst": 1}}', "{", '{"step": 2}'])
def test_results_that_make_no_sense_are_no_scores(model: mt.MultitaskModel, tmp_path: Path, results: str) -> None:
    (tmp_path / "results.json").write_text(results)
    tasks = describe_export(model, RunFolder(tmp_path), "hf")["tasks"]
    assert [task["dev"] for task in tasks.values()] == [None, None, None]


def test_an_undefined_score_is_null(model: mt.MultitaskModel, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"step": 2, "dev": {"sts": {"pearson": NaN, "spearman": 0.5}}}')
    about = describe_export(model, RunFolder(tmp_path), "hf")
    assert about["tasks"]["sts"]["dev"] == {"pearson": None, "spearman": 0.5}
    assert "| spearman 0.500 |" in card.model_card(model, about)


def test_the_card_tells_tasks_scores_and_recipe(exported: Path, mixed_run: Path) -> None:
    page = (exported / "README.md").read_text()
    matter = page.split("---\n")[1]
    assert "library_name: transformers\n" in matter
    assert "base_model" not in matter  # it was a directory
    dev = json.loads((mixed_run / "results.json").read_text())["dev"]
    scores = f"accuracy {dev['para']['accuracy']:.3f}, f1 {dev['para']['f1']:.3f}"
    assert f"| para | binary | `sentence1` and `sentence2` | 0 to 1 | pair | {scores} |" in page
    assert 'optimizer = ["pcgrad()"' in page
    assert "steps = 6\n" in page
    assert "epochs" not in page


@pytest.mark.parametrize("form", ["hf", "stablehlo"])
def test_no_place_on_this_machine_is_told(mixed_run: Path, tmp_path: Path, form: Any) -> None:
    out = export_run(mixed_run, form, tmp_path / "out")
    config = mt.load_config(mixed_run / "config.toml")
    places = [config.encoder, config.data_dir, str(mixed_run.parent), str(Path(mt.__file__).parent), str(tmp_path)]
    for path in out.iterdir():
        if path.suffix not in (".safetensors", ".npz"):
            data = path.read_bytes()
            assert [place for place in places if place.encode() in data] == [], path.name


@pytest.mark.parametrize(("cached", "line"), [("a path", 'base_model: "org/bert"\n'), (None, ""), (object(), "")])
def test_a_base_encoder_is_linked_where_it_is_sure_to_be_the_hubs(
    model: mt.MultitaskModel, mixed_run: Path, monkeypatch: pytest.MonkeyPatch, cached: Any, line: str
) -> None:
    """A relative path that is not there any more looks like a name of the hub, too."""
    monkeypatch.setattr(card.huggingface_hub, "try_to_load_from_cache", lambda *_, **__: cached)
    config = dataclasses.replace(model.setup.config, encoder="org/bert")
    hub = dataclasses.replace(model, setup=model.setup.with_config(config))
    page = card.model_card(hub, describe_export(hub, RunFolder(mixed_run), "hf"))
    assert f"pipeline_tag: feature-extraction\n{line}tags:\n" in page
    assert f"from `{'org/bert' if line else 'bert'}` on sst" in page


def test_names_of_classes_and_columns_cannot_break_the_table(model: mt.MultitaskModel, mixed_run: Path) -> None:
    config = replace_task(
        model.setup.config, "sst", num_classes=0, classes=("a|b", "c`d", "e\nf", "g", "h"), text=("x|y",)
    )
    odd = dataclasses.replace(model, setup=model.setup.with_config(config))
    page = card.model_card(odd, describe_export(odd, RunFolder(mixed_run), "hf"))
    assert "| sst | classification | `x\\|y` | `a\\|b`, `c'd`, `e f`, `g`, `h` | cls |" in page


def test_the_teacher_is_exported_where_it_is_what_was_evaluated(config: Config, tmp_path: Path) -> None:
    run = checkpointed(dataclasses.replace(config, evaluate="teacher"))
    out = export_run(run.path, "hf")
    assert out == run.path / "export" / "hf"
    teacher = lively_params(Setup.load(config, Path(config.encoder)))["encoder"]
    same(mt.load_pretrained(out)[1], teacher)  # the student's are larger
    page = (out / "README.md").read_text()
    assert "The parameters are the teacher's" in page
    assert json.loads((out / "tasks.json").read_text())["parameters"] == "teacher"


def test_the_code_has_the_poolings_that_the_heads_have() -> None:
    def code(*poolings: Any) -> str:
        tasks = {
            str(number): {"pooling": task.head.pooling, "both_orders": False}
            for number, pooling in enumerate(poolings)
            for task in course_tasks(HeadConfig(pooling=pooling))[:1]
            if task.head
        }
        return card.code(tasks, token_types=True)

    assert "mean(" not in code("cls", "cls")
    assert "if task" not in code("mean", "mean")
    assert code("cls", "pair", "mean").count("if task") == 3
    for poolings in (["cls"], ["mean"], ["pair"], ["cls", "mean", "pair"]):
        compile(code(*poolings), "card", "exec")


def test_the_example_reads_as_many_texts_as_its_task(model: mt.MultitaskModel, mixed_run: Path) -> None:
    page = card.model_card(model, describe_export(model, RunFolder(mixed_run), "hf"))
    assert 'print(logits("sst", ["A warm, funny, engaging film."]))\n```' in page
    config = dataclasses.replace(model.setup.config, tasks=model.setup.config.tasks[1:])
    pairs = dataclasses.replace(model, setup=model.setup.with_config(config))
    page = card.model_card(pairs, describe_export(pairs, RunFolder(mixed_run), "hf"))
    example = 'print(logits("para", ["How do I learn to swim?"], ["What is the best way to learn swimming?"]))'
    assert f"{example}\n```" in page
