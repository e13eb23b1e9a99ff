"""The objective of one task: loss, smoothness and proximal term over one clean forward pass."""

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbert_jax.config import Config, ProximalConfig, SmartConfig, TaskConfig
from mtbert_jax.encoders.hub import load_pretrained
from mtbert_jax.model import EncoderWithHeads
from mtbert_jax.optim import pcgrad
from mtbert_jax.programs import made_once
from mtbert_jax.regularizers import Proximal, Regularizer, Smart
from mtbert_jax.tasks import KINDS
from mtbert_jax.tasks.losses import mean_loss
from mtbert_jax.training.objective import Objective, Place, StageSpec, Terms
from mtbert_jax.training.setup import Setup
from mtbert_jax.training.step import make_train_step
from mtbert_jax.types import Batch, FeatureBatch, Params
from tests.cases import slow_but_for
from tests.conftest import replace_task, tiny_run

KEY = jax.random.key(5)
SMART = SmartConfig(weight=0.5, preset="paper", radius=0.3, noise_std=0.1, step_size=0.2)


@made_once
def compiled(model: EncoderWithHeads, task: TaskConfig, stage: StageSpec) -> Any:
    """The objective of a task, compiled once for all tests that want it."""
    return jax.jit(Objective(model, (task,), stage))


@dataclasses.dataclass
class Bench:
    """A tiny model with the batches of its first step."""

    config: Config

    def __post_init__(self) -> None:
        self.setup = Setup.load(self.config, Path(self.config.encoder))
        self.params = self.setup.initial_params(load_pretrained(self.config.encoder)[1])
        self.batches: dict[str, Any] = self.setup.batches(
            0, self.config.resolved_stages()[0], self.setup.datasets("train")
        )[0]

    @property
    def model(self) -> EncoderWithHeads:
        return self.setup.model

    def objective(
        self,
        task: str,
        smart: SmartConfig = SMART,
        proximal: ProximalConfig | None = None,
        step: int = 0,
        teacher: Params | None = None,
        batch: Any = None,
        steps: int = 10,
        **changes: Any,
    ) -> tuple[float, Terms]:
        own: list[Regularizer] = [Smart(smart)] if smart.weight else []
        own += [Proximal(proximal)] if proximal else []
        stage = StageSpec(regularizers=tuple(own), num_steps=steps)
        spec = dataclasses.replace(self.setup.tasks[task], **changes)
        batch = self.batches[task] if batch is None else batch
        place = Place(jnp.int32(0), KEY, jnp.asarray(step))
        total, terms = compiled(self.model, spec, stage)(self.params, teacher, batch, place)
        return float(total), terms


@pytest.fixture(scope="module")
def bench(small_encoder_dir: Path, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tiny_run(small_encoder_dir, data_dir, tmp_path_factory.mktemp("bench")))


@pytest.mark.parametrize("task", slow_but_for(("sst", "sts"), ("sst", "para", "sts")))
def test_the_objective_is_the_weighted_sum_of_its_terms(bench: Bench, task: str) -> None:
    teacher = jax.tree.map(lambda leaf: leaf * 1.1, bench.params)
    total, terms = bench.objective(task, proximal=ProximalConfig(weight=2.0), teacher=teacher, loss_weight=3.0)
    smoothness, proximal = terms.penalties["smoothness"], terms.penalties["proximal"]
    assert min(float(terms.loss), float(smoothness), float(proximal)) > 0
    assert total == pytest.approx(3.0 * float(terms.loss + 0.5 * smoothness + 2.0 * proximal), rel=1e-5)


def test_the_loss_is_that_without_regularizers_under_the_same_masks(bench: Bench) -> None:
    plain, terms = bench.objective("sst", smart=SmartConfig())
    assert terms.penalties == {}
    logits = bench.model.logits(bench.params, "sst", bench.batches["sst"], KEY)
    batch = bench.batches["sst"]
    assert plain == pytest.approx(float(mean_loss(KINDS["classification"].loss(logits, batch.labels), batch.weights)))
    assert float(bench.objective("sst")[1].loss) == pytest.approx(plain, rel=1e-6)


def test_the_proximal_term_compares_with_the_teacher_under_the_same_masks(bench: Bench) -> None:
    teacher = jax.tree.map(lambda leaf: leaf * 1.1, bench.params)
    batch = bench.batches["sst"]
    ours, theirs = (bench.model.logits(params, "sst", batch, KEY) for params in (bench.params, teacher))
    expected = mean_loss(KINDS["classification"].divergence(ours, theirs), batch.weights)
    on = ProximalConfig(weight=1.0)
    terms = bench.objective("sst", SmartConfig(), on, teacher=teacher)[1]
    np.testing.assert_allclose(terms.penalties["proximal"], expected, rtol=1e-4)
    assert float(bench.objective("sst", SmartConfig(), on, teacher=bench.params)[1].penalties["proximal"]) == 0.0


def test_a_factor_scales_smart_for_one_task_and_zero_turns_it_off(bench: Bench) -> None:
    one, double = (bench.objective("sst", smart_factor=factor) for factor in (1.0, 2.0))
    smoothness = float(one[1].penalties["smoothness"])
    assert double[0] - one[0] == pytest.approx(0.5 * smoothness, rel=1e-3)
    total, terms = bench.objective("sst", smart_factor=0.0)
    assert terms.penalties == {}
    assert total == pytest.approx(float(terms.loss))


def test_the_size_of_the_noise_is_told(bench: Bench) -> None:
    """A preset that scales every token's noise has it at its radius, whatever else happens."""
    smart = SmartConfig(weight=1.0, preset="smart_pytorch", radius=0.25, noise_std=0.01)
    assert float(bench.objective("sst", smart)[1].penalties["noise"]) == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (1, 0.25), (2, 0.5), (4, 1.0), (9, 1.0)])
def test_the_weight_rises_over_its_share_of_the_steps(step: int, share: float) -> None:
    rising = Smart(SmartConfig(weight=0.8, ramp_fraction=0.4))
    assert float(rising.weight(jnp.asarray(step), 10)) == pytest.approx(0.8 * share)
    assert float(Smart(SmartConfig(weight=0.8)).weight(jnp.asarray(step), 10)) == pytest.approx(0.8)


def test_the_ramp_reaches_the_objective(bench: Bench) -> None:
    smart = dataclasses.replace(SMART, ramp_fraction=1.0)
    (start, terms), (half, _) = (bench.objective("sst", smart, step=step) for step in (0, 5))
    assert start == pytest.approx(float(terms.loss))
    assert half == pytest.approx(float(terms.loss + 0.25 * terms.penalties["smoothness"]), rel=1e-5)


@pytest.mark.parametrize(
    "preset",
    slow_but_for(["paper"], ["paper", "smart_pytorch", "ball", "mtdnn"]),
)
def test_clean_and_perturbed_side_share_dropout_masks_unless_asked(bench: Bench, preset: Any) -> None:
    """docs/numerics.md, section 2.1: with the same masks radius 0 gives R_s = 0; with others it cannot."""
    still = SmartConfig(weight=1.0, preset=preset, radius=0.0)
    assert float(bench.objective("sst", still)[1].penalties["smoothness"]) < 1e-10
    resampled = dataclasses.replace(still, resample_dropout=True)
    assert float(bench.objective("sst", resampled)[1].penalties["smoothness"]) > 1e-5


@pytest.mark.parametrize(
    ("preset", "pooling"),
    [
        ("smart_pytorch", "mean"),
        pytest.param("paper", "cls", marks=pytest.mark.slow),
        pytest.param("paper", "mean", marks=pytest.mark.slow),
        pytest.param("smart_pytorch", "cls", marks=pytest.mark.slow),
    ],
)
def test_bfloat16_products_do_not_lose_the_noise(config: Config, preset: Any, pooling: Any) -> None:
    """JAX_FACTS: noise of 1e-5 vanishes in bfloat16, and zero noise has no gradient direction."""
    head = dataclasses.replace(config.tasks[0].head or config.head, pooling=pooling)
    tasks = tuple(dataclasses.replace(task, head=head) for task in config.tasks)
    values = {}
    for dtype in ("float32", "bfloat16"):
        bench = Bench(dataclasses.replace(config, tasks=tasks, compute_dtype=dtype, encoder_dropout=0.0))
        assert bench.model.embed(bench.params, bench.batches["sst"]).dtype == jnp.float32
        climbed, random = (
            float(bench.objective("sst", SmartConfig(weight=1.0, preset=preset, steps=n))[1].penalties["smoothness"])
            for n in (1, 0)
        )
        assert min(climbed, random) > 0
        values[dtype] = climbed
        if preset == "paper":  # a zero gradient would leave the noise as it was drawn
            assert climbed != random
        else:  # noise of norm 1 is nothing that rounding could hide
            assert values["float32"] == pytest.approx(climbed, rel=0.3)


ALL = ("sst", "para", "sts")


@pytest.mark.parametrize(
    ("pooling", "smart", "names"),
    [
        pytest.param("mean", SMART, ("sts",), id="mean-smart-of-one", marks=pytest.mark.slow),
        pytest.param("cls", SmartConfig(), ALL, id="cls-plain"),
        pytest.param("mean", SMART, ALL, id="mean-smart", marks=pytest.mark.slow),
        pytest.param("cls", SMART, ALL, id="cls-smart", marks=pytest.mark.slow),
        pytest.param("mean", SmartConfig(), ALL, id="mean-plain", marks=pytest.mark.slow),
    ],
)
def test_the_compiled_program_of_all_tasks_agrees_with_each_tasks_own_objective(
    config: Config, smart: SmartConfig, pooling: Any, names: tuple[str, ...]
) -> None:
    """The program of a group, as training runs it, and the same task alone, operation by operation; dropout on."""
    for task in config.tasks:
        config = replace_task(config, task.name, head=dataclasses.replace(task.head, pooling=pooling))
    bench, stage = Bench(config), StageSpec(regularizers=(Smart(smart),) if smart.weight else (), start=1)
    train_step = make_train_step(bench.model, bench.setup.tasks, pcgrad(), stage)
    for name in names:
        batch = bench.batches[name]
        key = jax.random.fold_in(jax.random.fold_in(KEY, 3), zlib.crc32(name.encode()))

        def alone(params: Params, name: str = name, batch: Any = batch, key: Any = key) -> Any:
            tasks = (bench.setup.tasks[name],)
            return Objective(bench.model, tasks, stage)(params, None, batch, Place(jnp.array(0), key, jnp.array(3)))

        fast, terms = train_step.gradients[name](bench.params, None, batch, KEY, jnp.array(3))
        plain, expected = jax.grad(alone, has_aux=True)(bench.params)
        assert terms.loss == pytest.approx(float(expected.loss), rel=1e-5)
        for penalty, value in expected.penalties.items():
            assert float(terms.penalties[penalty]) == pytest.approx(float(value), rel=1e-4)
        for got, wanted in (("encoder", plain["encoder"]), ("heads", {name: plain["heads"][name]})):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max() + 1e-3)),
                fast[got],
                wanted,
            )


def test_fillers_have_no_part_in_either_term(bench: Bench) -> None:
    batch = bench.batches["sst"]
    weights = np.array([1, 1, 0, 0], np.float32)
    teacher = jax.tree.map(lambda leaf: leaf * 1.1, bench.params)
    others = batch.input_ids.copy()
    others[2:] = others[2:, ::-1]
    penalties = [
        bench.objective("sst", proximal=ProximalConfig(weight=1.0), teacher=teacher, batch=changed)[1].penalties
        for changed in (batch._replace(weights=weights), batch._replace(weights=weights, input_ids=others))
    ]
    for name in ("smoothness", "proximal"):
        np.testing.assert_allclose(penalties[0][name], penalties[1][name], rtol=1e-5)


def test_kept_features_give_the_loss_of_the_tokens(config: Config) -> None:
    bench = Bench(dataclasses.replace(config, encoder_dropout=0.0))
    batch: Batch = bench.batches["sst"]
    kept = FeatureBatch(bench.model.features(bench.params, "cls", batch), batch.labels, batch.weights)
    tokens, features = (bench.objective("sst", SmartConfig(), batch=one)[0] for one in (batch, kept))
    assert features == pytest.approx(tokens, rel=1e-5)
