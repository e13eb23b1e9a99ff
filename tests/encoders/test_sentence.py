"""Folders of sentence-transformers as encoders."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import mtbert_jax as mt
from mtbert_jax.encoders import hub
from mtbert_jax.encoders.hub import locate
from mtbert_jax.encoders.sentence import left_out
from mtbert_jax.errors import InputError

MODELS = "sentence_transformers.models."


def folder(place: Path, encoder: Path, *modules: str, part: str = "0_Transformer") -> Path:
    """A folder with these modules behind the transformer."""
    shutil.copytree(encoder, place / part)
    kinds = [("Transformer", part), *((kind, f"{n}_{kind}") for n, kind in enumerate(modules, start=1))]
    written = [{"idx": n, "name": str(n), "path": path, "type": MODELS + kind} for n, (kind, path) in enumerate(kinds)]
    (place / "modules.json").write_text(json.dumps(written))
    return place


@pytest.mark.parametrize("part", ["0_Transformer", ""])
def test_the_transformer_is_taken_and_what_is_left_out_is_said(part: str, encoder_dir: Path, tmp_path: Path) -> None:
    place = folder(tmp_path / "st", encoder_dir, "Pooling", "Normalize", part=part)
    config, _ = mt.load_pretrained(place)
    assert config == mt.load_pretrained(encoder_dir)[0]
    assert mt.load_tokenizer(place).encode("the film").tokens == ["[CLS]", "the", "film", "[SEP]"]
    (line,) = left_out(locate(place))
    assert line == (
        f"{place} is a folder of sentence-transformers: its transformer is taken, and Pooling, Normalize left out"
    )
    assert list(left_out(encoder_dir)) == []


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ({"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": "query"}, "'query: '"),
        ({"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": None}, None),
        ({"prompts": {"query": ""}, "default_prompt_name": "query"}, None),
        ({"prompts": {}, "default_prompt_name": "query"}, None),
        ({"similarity_fn_name": "cosine"}, None),
    ],
)
def test_a_default_prompt_is_told(written: dict[str, Any], told: str | None, encoder_dir: Path, tmp_path: Path) -> None:
    """Only one that sentence-transformers puts before texts by itself."""
    place = folder(tmp_path / "st", encoder_dir)
    (place / "config_sentence_transformers.json").write_text(json.dumps(written))
    lines = [line for line in left_out(locate(place)) if "prompt" in line]
    assert len(lines) == (told is not None)
    assert all(f"has a default prompt, {told}, which is left out" in line for line in lines)


def test_a_file_of_prompts_that_is_none_is_named(encoder_dir: Path, tmp_path: Path) -> None:
    place = folder(tmp_path / "st", encoder_dir)
    (place / "config_sentence_transformers.json").write_text("[]")
    with pytest.raises(InputError, match=f"^{place}/config_sentence_transformers.json holds a list; it must be a tab"):
        list(left_out(locate(place)))


@pytest.mark.parametrize(("part", "hint"), [("0_Transformer", "0_Transformer' takes the transformer alone"), ("", "")])
@pytest.mark.parametrize("kind", ["Dense", "LSTM", "WeightedLayerPooling"])
def test_modules_that_compute_more_are_refused(
    kind: str, part: str, hint: str, encoder_dir: Path, tmp_path: Path
) -> None:
    place = folder(tmp_path / "st", encoder_dir, "Pooling", kind, part=part)
    with pytest.raises(InputError, match=f"^{place}: the module '{kind}' behind the transformer cannot be") as error:
        mt.load_pretrained(place)
    assert hint in str(error.value)
    if part:
        mt.load_pretrained(place / part)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([{"type": MODELS + "StaticEmbedding", "path": ""}], "the first module is 'StaticEmbedding', not a Trans"),
        ([{"type": "custom_st.Transformer", "path": ""}], "the first module is 'custom_st.Transformer', not a Transf"),
        ([{"type": MODELS + "Transformer", "path": "../other"}], "a module is a table; it must have a type, and a fol"),
        ([{"type": MODELS + "Transformer", "path": ".."}], "a module is a table; it must have a type, and a folder"),
        ([{"type": MODELS + "Transformer"}], "a module is a table; it must have a type, and a folder beside this file"),
        ({"0": "Transformer"}, "modules.json holds a table; it must be a list of modules"),
        ("{", "modules.json is not JSON: "),
    ],
)  # fmt: skip
def test_modules_that_are_not_what_sentence_transformers_writes_are_refused(
    modules: Any, message: str, tmp_path: Path
) -> None:
    text = modules if isinstance(modules, str) else json.dumps(modules)
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(InputError) as error:
        mt.load_tokenizer(tmp_path)
    assert message in str(error.value)


def test_of_a_hub_name_the_transformers_folder_is_fetched_next(
    encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, calls = folder(tmp_path / "st", encoder_dir, "Pooling"), []

    def download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        calls.append(allow_patterns)
        return str(place)

    monkeypatch.setattr(hub.huggingface_hub, "snapshot_download", download)
    assert locate("org/st") == place / "0_Transformer"
    assert calls == [list(hub.FILES), [f"0_Transformer/{name}" for name in hub.FILES]]
