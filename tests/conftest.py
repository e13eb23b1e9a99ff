"""A tiny random BERT in Hugging Face layout, tiny data in the course's format, and a config over both."""

import contextlib
import dataclasses
import gc
import os
import random
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

# Before JAX starts: programs this small are compiled far longer than they run.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
OLDER = metadata.version("jaxlib").startswith("0.10.")
if OLDER:  # newer ones no longer know this flag, and XLA dies of unknown flags
    FLAGS += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"

import jax
import psutil
import pytest
from jax._src.interpreters import mlir
from tokenizers import Tokenizer

from mtbert_jax.config import Config, HeadConfig, TaskConfig
from mtbert_jax.encoders.bert import BertConfig, BertEncoder
from mtbert_jax.encoders.hub import save_pretrained
from mtbert_jax.encoders.tokenizer import load_tokenizer
from mtbert_jax.machine import return_freed_memory
from mtbert_jax.programs import programs_apart
from tests.tally import pytest_terminal_summary, tally

__all__ = ["pytest_terminal_summary", "tally"]

# What tracing makes is short-lived: looking through all that a worker holds, again and again, finds nothing.
gc.set_threshold(200_000, 20, 100)
# Tracebacks that programs carry are read by nobody here, and take an eighth of a run's time.
jax.config.update("jax_include_full_tracebacks_in_locations", False)
if OLDER:  # it makes a context of MLIR for each program, and keeps that megabyte with it; newer ones share some, too
    _context = mlir.make_ir_context()
    mlir.make_ir_context = lambda: _context

GIB = 2**30
GOOD = ["good", "fine", "lovely", "bright", "warm"]
BAD = ["bad", "dull", "awful", "grey", "cold"]
THINGS = ["film", "song", "book", "meal", "trip", "game", "room", "city"]
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "the",
    "was",
    "is",
    "very",
    "not",
    ".",
    "?",
    "[",
    "]",
    "sep",
]
VOCAB = [*WORDS, *GOOD, *BAD, *THINGS]
TINY = BertConfig(
    vocab_size=len(VOCAB),
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=64,
)


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Runs of one model compile the same programs: once a session is enough."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # between the workers of one session
    jax.config.update("jax_compilation_cache_dir", str(shared / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def environment(**own: str) -> dict[str, str]:
    """Variables of a process of its own, which compiles as this one does and finds the programs that there are."""
    kept = {"JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir)}  # type: ignore[attr-defined]
    kept |= {f"JAX_PERSISTENT_CACHE_MIN_{name}": "0" for name in ("COMPILE_TIME_SECS", "ENTRY_SIZE_BYTES")}
    return {**os.environ, "XLA_FLAGS": FLAGS, **kept, **own}


@pytest.fixture
def fresh_programs() -> Iterator[None]:
    """No program is there from before; other tests have theirs again afterwards."""
    with programs_apart():
        yield


ROOMS = ("nn", "encoders", "regularizers", "optim", "tasks", "model", "parallel", "trees", "types")
FILES = ("evaluate", "objective", "state", "step")
TRACED = tuple(f"mtbert_jax.{room}." for room in (*ROOMS, *(f"training.{file}" for file in FILES)))
"""Where programs have their code from, of all that the library has."""


def is_called_by_programs(target: object) -> bool:
    """Whether compiled programs may hold what is an attribute of `target`: a module, a class, an object, or a path."""
    home = target if isinstance(target, str) else getattr(target, "__module__", None)
    home = f"{home or getattr(target, '__name__', type(target).__module__)}."
    root = home.partition(".")[0]
    return home.startswith(TRACED) if root == "mtbert_jax" else root not in sys.stdlib_module_names


@pytest.fixture
def monkeypatch() -> Iterator[pytest.MonkeyPatch]:
    """As pytest has it, but where programs call what is replaced, none is there from before, and none stays behind."""
    with contextlib.ExitStack() as stack:

        class Patch(pytest.MonkeyPatch):  # type: ignore[misc]  # final to mypy alone
            apart = False

            def setattr(self, target: object, *args: object, **options: object) -> None:
                if not Patch.apart and is_called_by_programs(target):
                    stack.enter_context(programs_apart())
                    Patch.apart = True
                super().setattr(target, *args, **options)  # type: ignore[arg-type]

        patch = Patch()
        yield patch
        patch.undo()


_most = [2.0 * GIB]  # before a worker lets go; more where it holds more without compiled programs


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """Lets go of compiled programs, which also lie in the cache on disk, before a worker holds much memory."""
    yield
    process = psutil.Process()
    if process.memory_info().rss > _most[0]:
        jax.clear_caches()
        gc.collect()
        return_freed_memory()  # glibc keeps it
        _most[0] = max(2.0 * GIB, process.memory_info().rss + 0.3 * GIB)


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder of two layers, with its vocabulary."""
    return save_encoder(tmp_path_factory.mktemp("encoder"), TINY)


@pytest.fixture(scope="session")
def small_encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one layer, for tests that compile whole training steps."""
    return save_encoder(tmp_path_factory.mktemp("encoder"), dataclasses.replace(TINY, num_hidden_layers=1))


def save_encoder(directory: Path, config: BertConfig) -> Path:
    (directory / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    params = jax.jit(BertEncoder(config).init)(jax.random.key(0), jax.numpy.zeros((1, 1), int))["params"]
    save_pretrained(directory, config, params, load_tokenizer(directory))
    return directory


def _sentence(rng: random.Random) -> tuple[str, int]:
    words = [rng.choice(rng.choice([GOOD, BAD])) for _ in range(rng.randint(1, 12))]
    good = sum(word in GOOD for word in words) / len(words)
    return f"the {rng.choice(THINGS)} was {' '.join(words)} .", min(int(good * 5), 4)


def _write(path: Path, header: list[str], rows: list[list[str]]) -> None:
    path.write_text("\n".join("\t".join(row) for row in [header, *rows]) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small tasks, under the course's file names and headers."""
    directory = tmp_path_factory.mktemp("data")
    rng = random.Random(0)
    for split, size in (("train", 37), ("dev", 21), ("test-student", 11)):
        labelled = split != "test-student"
        sst, para, sts = [], [], []
        for number in range(size):
            (first, label), (second, _) = _sentence(rng), _sentence(rng)
            same = rng.random() < 0.4
            other = first.replace("was", "is") if same else second
            start = [str(number), f"{split}{number:03}"]
            sst.append([*start, first, *([str(label)] if labelled else [])])
            para.append([*start, first, other, *([f"{float(same)}"] if labelled else [])])
            sts.append([*start, first, other, *([f"{4.5 if same else rng.uniform(0, 2):.1f}"] if labelled else [])])
        pair = ["", "id", "sentence1", "sentence2"]
        _write(directory / f"ids-sst-{split}.csv", ["", "id", "sentence", *(["sentiment"] if labelled else [])], sst)
        _write(directory / f"quora-{split}.csv", [*pair, *(["is_duplicate"] if labelled else [])], para)
        _write(directory / f"sts-{split}.csv", [*pair, *(["similarity"] if labelled else [])], sts)
    return directory


def course_tasks(head: HeadConfig) -> tuple[TaskConfig, ...]:
    """The paper's three tasks."""

    def files(name: str) -> dict[str, str]:
        return {"train": f"{name}-train.csv", "dev": f"{name}-dev.csv", "test": f"{name}-test-student.csv"}

    pair = ("sentence1", "sentence2")
    return (
        TaskConfig("sst", "classification", ("sentence",), "sentiment", num_classes=5, head=head, **files("ids-sst")),
        TaskConfig("para", "binary", pair, "is_duplicate", head=head, **files("quora")),
        TaskConfig("sts", "regression", pair, "similarity", label_range=(0.0, 5.0), head=head, **files("sts")),
    )


@pytest.fixture
def config(small_encoder_dir: Path, data_dir: Path, tmp_path: Path) -> Config:
    """A run of 6 steps over the three tiny tasks."""
    return tiny_run(small_encoder_dir, data_dir, tmp_path)


def tiny_run(encoder: Path, data: Path, folder: Path) -> Config:
    """The same, for fixtures that live longer than a test; its files lie in `folder`.

    The chain has a state but no counts: it is compiled in a fifth of the library's own chain's time, which
    `tests/training/test_fit.py` and `tests/test_study.py` train with.
    """
    return Config(
        encoder=str(encoder),
        data_dir=str(data),
        cache_dir=str(folder / "cache"),
        out=str(folder / "run"),
        tasks=course_tasks(HeadConfig()),
        max_length=48,
        lengths=(48,),
        batch_size=4,
        eval_batch_size=8,
        optimizer=("pcgrad()", "rmsprop(lr)"),
        steps=6,
        lr=1e-3,
        log_every_steps=2,
        eval_every_steps=3,
    )


def light(config: Config) -> Config:
    """One task of `config` by plain gradient descent, for what does not depend on either: least to compile."""
    return dataclasses.replace(config, tasks=config.tasks[:1], optimizer=("sgd(lr)",))


@pytest.fixture(scope="session")
def mixed_run(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path, data_dir: Path) -> Path:
    """The folder of a run whose heads differ in pooling, depth and width; the limits cut some examples off."""
    from tests.runs import checkpointed

    encoder = Path(shutil.copytree(encoder_dir, tmp_path_factory.mktemp("known") / "encoder"))
    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    tokenizer.add_special_tokens(WORDS[:5])  # as the hub's tokenizers have them: found in text, unless told otherwise
    tokenizer.save(str(encoder / "tokenizer.json"))
    config = tiny_run(encoder, data_dir, tmp_path_factory.mktemp("mixed"))
    deep = HeadConfig(pooling="mean", hidden_layers=2, hidden_size=12)
    config = replace_task(config, "sst", head=HeadConfig(pooling="cls"))
    config = replace_task(config, "para", head=HeadConfig(pooling="pair", hidden_layers=0))
    config = replace_task(config, "sts", head=deep, max_length=14)
    return checkpointed(dataclasses.replace(config, max_length=20, lengths=(20,))).path


def replace_task(config: Config, name: str, **changes: object) -> Config:
    """`config` with fields of one task changed."""
    tasks = tuple(dataclasses.replace(t, **changes) if t.name == name else t for t in config.tasks)  # type: ignore[arg-type]
    return dataclasses.replace(config, tasks=tasks)
