"""docs/news.md, followed with a tiny encoder: its data, its config, and its training in Python."""

import contextlib
import dataclasses
import io
import json
from pathlib import Path

import pytest

from mtbert_jax.cli.main import main
from tests.conftest import TINY, save_encoder
from tests.docs.test_pages import DOCS, blocks

PAGE = DOCS / "news.md"


@pytest.mark.slow
def test_the_page_trains_three_kinds_on_the_data_that_it_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = tmp_path / "weights" / "minilm"
    encoder.mkdir(parents=True)
    save_encoder(encoder, dataclasses.replace(TINY, num_hidden_layers=1))
    monkeypatch.chdir(tmp_path)
    (config,) = blocks(PAGE, "toml")
    quick = config.replace("steps = 20\n", "steps = 1\n", 1).replace("steps = 40\n", "steps = 2\n")
    quick = quick.replace("eval_every_steps = 20", "eval_every_steps = 1")
    (tmp_path / "news.toml").write_text(quick)
    names: dict[str, object] = {"__name__": "a_page"}
    for code in blocks(PAGE, "python"):
        exec(compile(code, PAGE.name, "exec"), names)
    rows = [json.loads(line) for line in (tmp_path / "news" / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 400
    assert all(len(row["words"].split()) == len(row["tags"].split()) for row in rows)
    assert set(names["run"].scores) == {"text", "names", "topic", "tone", "average", "plain_average"}  # type: ignore[attr-defined]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["check-data", "news.toml"]) == 0
        assert main(["evaluate", "runs/news"]) == 0
    for text in ("B-PER: 400", "perplexity", "topic"):
        assert text in printed.getvalue()
