"""Where arrays lie, in this process: a mesh of one device takes the same paths as one of many."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from mtbert_jax.config import Config, ParallelConfig
from mtbert_jax.encoders.hub import load_pretrained
from mtbert_jax.errors import InputError
from mtbert_jax.optim import pcgrad
from mtbert_jax.parallel import ALONE, Layout, agreed, join_processes
from mtbert_jax.training.active import ActiveRun, stage_step
from mtbert_jax.training.evaluate import evaluate_all, make_eval_step
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.plan import make_plans
from mtbert_jax.training.seeds import SeedRuns, state_of, together
from mtbert_jax.training.setup import Setup
from mtbert_jax.training.state import TrainState


def mesh() -> Mesh:
    devices = np.array(jax.devices()[:1]).reshape(1, 1, 1)
    return Mesh(devices, ("replica", "data", "fsdp"), axis_types=(AxisType.Auto,) * 3)


def one_step(config: Config, layout: Layout) -> tuple[Any, Any]:
    """Parameters after a step, and the scores on dev."""
    setup = Setup.load(config, Path(config.encoder), layout.narrow)
    (plan,) = make_plans(setup, setup.datasets("train"))
    run = ActiveRun(setup, RunFolder(Path()), [plan], {}, {}, None, None, batches=plan.batches)  # type: ignore[arg-type]
    params = setup.initial_params(load_pretrained(config.encoder)[1])
    plan = plan._replace(tx=optax.chain(pcgrad(), optax.sgd(0.01)))
    first = TrainState.create(params, plan.tx, jax.random.key(0))
    if layout.wide:
        runs = SeedRuns([run, run], layout)
        state, _ = runs.make_step(plan)(together([first, first], layout), runs.gather(0))
        own = state_of(state, 1, layout)
    else:
        own, _ = stage_step(setup, plan, 0)(layout.place(first), run.gather(0))
    return own.params, evaluate_all(
        setup, make_eval_step(setup.model, setup.layout), own.params, setup.datasets("dev")
    )[0]


@pytest.mark.slow
@pytest.mark.parametrize(("wide", "micro_batches"), [(False, 1), (True, 2)])
def test_a_mesh_of_one_device_computes_what_the_device_does(config: Config, wide: bool, micro_batches: int) -> None:
    config = dataclasses.replace(config, tasks=config.tasks[1:], micro_batches=micro_batches)
    expected, expected_scores = one_step(config, ALONE)
    found, scores = one_step(config, Layout(mesh(), wide))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), expected, found)
    assert scores["average"] == pytest.approx(expected_scores["average"], abs=1e-4)


def test_matrices_are_split_and_vectors_are_not() -> None:
    layout = Layout(mesh())
    assert layout.spec("encoder/embeddings/word/embedding", (100, 16), False) == P(None, "fsdp")
    assert layout.spec("opt/0/mu/encoder/layer_0/attention/query/kernel", (16, 16), False) == P(None, "fsdp")
    assert layout.spec("encoder/layer_0/output/kernel", (24, 16), False) == P("fsdp", None)
    assert layout.spec("encoder/layer_0/output/bias", (16,), False) == P(None)
    assert layout.spec("encoder/layer_0/output/kernel", (3, 24, 16), True) == P("replica", "fsdp", None)
    assert layout.spec("opt/0/count", (3,), True) == P("replica")
    assert layout.spec("step", (), True) == P()


def test_every_device_asks_for_its_own_rows() -> None:
    asked = []

    def part(rows: slice) -> dict[str, np.ndarray]:
        asked.append((rows.start, rows.stop))
        return {"x": np.arange(8.0)[rows]}

    batch = Layout(mesh()).batch(part, 8)
    assert asked == [(0, 8)]
    assert isinstance(batch["x"], jax.Array)
    assert batch["x"].tolist() == list(range(8))
    assert Layout(mesh()).spread({"x": jnp.arange(4)})["x"].shape == (4,)
    assert (ALONE.fit(13), ALONE.fit(13, 4)) == (13, 16)
    assert (str(ALONE), ALONE.leads, agreed(3, np.max)) == ("one device", True, 3)


@pytest.mark.parametrize(
    ("sizes", "replicas", "message"),
    [
        ({"data": 3, "fsdp": 2}, 0, "asks for 6 devices, but there are 1"),
        ({"data": -1, "fsdp": 2}, 0, "leaves no whole number for -1 on 1 devices"),
    ],
)
def test_a_mesh_must_fit_the_devices(sizes: dict[str, int], replicas: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Layout.build(ParallelConfig(**sizes), replicas)


@pytest.mark.parametrize(("replicas", "reason"), [(0, "seeds is empty"), (3, "(3)")])
def test_replicas_must_divide_the_seeds(monkeypatch: pytest.MonkeyPatch, replicas: int, reason: str) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    with pytest.raises(InputError, match="must divide the number of seeds") as error:
        Layout.build(ParallelConfig(replica=2), replicas)
    assert reason in str(error.value)


def test_processes_join_as_flags_or_the_environment_say(monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[tuple[Any, ...]] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given: joined.append(given))
    join_processes(None, None, None)
    assert joined == []
    join_processes("host:1", 4, 2)
    join_processes("auto", None, None)
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "other:2")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "3")
    monkeypatch.setenv("JAX_PROCESS_ID", "1")
    join_processes(None, None, None)
    assert joined == [("host:1", 4, 2), (None, None, None), ("other:2", 3, 1)]
    monkeypatch.setenv("JAX_PROCESS_ID", "first")
    with pytest.raises(InputError, match="cannot join the other processes \\(coordinator other:2\\)"):
        join_processes(None, None, None)


def test_what_fails_to_join_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("deadline exceeded\nand more")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(InputError, match="host:1\\): deadline exceeded$"):
        join_processes("host:1", 2, 0)


def test_a_cpu_is_one_step_ahead_of_what_is_asked_of_it_and_no_more() -> None:
    class Later:
        def block_until_ready(self) -> None:
            raise AssertionError("what has just been asked for was waited for")

    long = jax.jit(lambda x: jax.lax.fori_loop(0, 40, lambda _, y: jnp.tanh(y @ y), x))
    first = long(jnp.full((500, 500), 1e-3))
    ALONE.keep_pace(Later(), before=[first])
    assert first.is_ready()
