"""Arrays over devices: a mesh with the axes `replica`, `data` and `fsdp`, and which part of what lies where.

Nothing is computed here. Parameters, optimizer state, teacher and task gradients are split over `fsdp` by the rules
below, batches over `data` and `fsdp` together, runs of several seeds over `replica`; jit's partitioner makes one
program of a step from that, the same for any number of devices and processes.
"""

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mtbert_jax import trees
from mtbert_jax.config import ParallelConfig
from mtbert_jax.errors import InputError, first_line

Tree = Any
REPLICA, DATA, FSDP = "replica", "data", "fsdp"
ROWS = (DATA, FSDP)
"""The axes that a batch's rows are split over: every device has rows of its own."""

RULES = (
    (re.compile(r"(^|/)embedding$"), -1),  # the vocabulary seldom divides, the hidden size does
    (re.compile(r"(^|/)(query|key|value|intermediate)/kernel$"), -1),
    (re.compile(r"(^|/)kernel$"), -2),
)
"""Which axis of a weight matrix is split over `fsdp`, by the end of its path; vectors are whole on every device.

They hold for every encoder family: a matrix of any other name is split by its rows, and all are made whole before they
are computed with."""


@dataclass(frozen=True)
class Layout:
    """Where a run's arrays lie.

    Attributes:
        mesh: The devices; None is the first one alone, without any arrangement.
        wide: Whether states and training batches carry a leading `replica` axis, one entry per seed.
    """

    mesh: Mesh | None = None
    wide: bool = False

    @classmethod
    def build(cls, config: ParallelConfig, replicas: int = 0) -> "Layout":
        """The layout of a run on the devices of all processes, for `replicas` seeds that train together, or 0.

        Raises:
            InputError: The sizes do not fit the devices, or each other.
        """
        sizes = _sizes(config, jax.device_count())
        if sizes[REPLICA] > 1 and (replicas == 0 or replicas % sizes[REPLICA]):
            raise InputError(
                f"parallel.replica = {sizes[REPLICA]}: must divide the number of seeds that train together "
                f"({replicas or 'seeds is empty'})"
            )
        used = math.prod(sizes.values())
        if used == 1:
            return cls(None, replicas > 0)
        devices = np.array(jax.devices()[:used]).reshape(tuple(sizes.values()))
        return cls(Mesh(devices, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes)), replicas > 0)

    @property
    def narrow(self) -> "Layout":
        """The same devices for arrays of one replica."""
        return replace(self, wide=False)

    @property
    def rows(self) -> int:
        """Into how many parts the rows of a batch are split."""
        return 1 if self.mesh is None else self.mesh.shape[DATA] * self.mesh.shape[FSDP]

    def fit(self, size: int, parts: int = 1) -> int:
        """`size` rows, rounded up to what divides evenly, `parts` times over."""
        return -(-size // (self.rows * parts)) * self.rows * parts

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes records."""
        return self.mesh is None or jax.process_index() == 0

    def keep_pace(self, outputs: Tree, before: Tree = ()) -> None:
        """Waits, on CPUs, for what the program `before` made, and with several processes for `outputs`, too.

        XLA takes up to 32 programs ahead, on CPUs some ten steps, which may be a minute: a signal would be noticed that
        much later, and progress shown too early. One step ahead is enough to keep the processor busy. Where several
        processes train on CPUs, XLA hangs for good once some thirty programs are under way, whether they need each
        other or not (20 went well and 40 never, jaxlib 0.10). On accelerators nothing is waited for.
        """
        if jax.default_backend() == "cpu":
            together = self.mesh is not None and jax.process_count() > 1
            jax.block_until_ready((before, outputs) if together else before)

    def over_replicas(self, fn: Callable[..., Tree], in_axes: Any, out_axes: Any) -> Callable[..., Tree]:
        """`fn` over the `replica` axis of its arguments, as by `jax.vmap`, if the layout is wide; else `fn` itself."""
        if not self.wide:
            return fn
        return jax.vmap(fn, in_axes, out_axes, spmd_axis_name=None if self.mesh is None else REPLICA)

    def spec(self, path: str, shape: tuple[int, ...], wide: bool) -> P:
        """How a leaf of a state is split; `wide`: it carries a leading `replica` axis."""
        entries: list[Any] = [None] * len(shape)
        if wide and shape:
            entries[0] = REPLICA
        if self.mesh is not None and len(shape) - bool(wide) >= 2:
            axis = next((axis for rule, axis in RULES if rule.search(path)), None)
            if axis is not None and shape[axis] % self.mesh.shape[FSDP] == 0:
                entries[axis] = FSDP
        return P(*entries)

    def shardings(self, tree: Tree) -> Tree:
        """Where each leaf of a state lies."""
        if self.mesh is None:
            return jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), tree)
        mesh = self.mesh
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: NamedSharding(mesh, self.spec(trees.path_of(path), leaf.shape, self.wide)), tree
        )

    def place(self, state: Tree) -> Tree:
        """A state, or parameters, that every process has whole, laid out over the devices.

        Fresh arrays are assigned to no device and restored ones are: JAX would compile every program for either.
        """
        if jax.process_count() == 1:
            return jax.device_put(state, self.shardings(state))
        return self.computed(lambda tree: tree, state)

    def computed(self, fn: Callable[..., Tree], *arguments: Any) -> Tree:
        """A state that `fn` makes, laid out over the devices."""
        shardings = self.shardings(jax.eval_shape(fn, *arguments))
        return jax.jit(fn, out_shardings=shardings)(*arguments)

    def described(self, tree: Tree) -> Tree:
        """Shapes of a state, with where each leaf is to lie: what a checkpoint is restored into."""
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            tree,
            self.shardings(tree),
        )

    def batch(self, part: Callable[..., Tree], *leading: int) -> Tree:
        """A batch over the devices, of which each process asks for its own part only.

        `part` makes NumPy arrays of one slice for each of the leading axes, whose sizes follow: rows, or replicas and
        rows.
        """
        if self.mesh is None:
            return part(*(slice(0, size) for size in leading))
        sharding = NamedSharding(self.mesh, P(*((REPLICA, ROWS)[-len(leading) :])))
        places = {
            device: tuple(one.indices(size)[:2] for one, size in zip(index or (), leading, strict=True))
            for device, index in sharding.addressable_devices_indices_map(leading).items()
        }
        own = {place: part(*(slice(*bounds) for bounds in place)) for place in dict.fromkeys(places.values())}

        def whole(*leaves: np.ndarray) -> jax.Array:
            by_place = dict(zip(own, leaves, strict=True))
            shards = [jax.device_put(by_place[place], device) for device, place in places.items()]
            return jax.make_array_from_single_device_arrays(leading + leaves[0].shape[len(leading) :], sharding, shards)

        return jax.tree.map(whole, *own.values())

    def spread(self, batch: Tree) -> Tree:
        """A batch of `fit` rows that every process has whole, its rows split over the devices."""
        size = len(jax.tree.leaves(batch)[0])
        return batch if self.mesh is None else self.batch(lambda rows: jax.tree.map(lambda x: x[rows], batch), size)

    def split(self, tree: Tree) -> Tree:
        """Inside jit, and inside vmap over replicas: lays parameters or gradients out by the rules."""
        if self.mesh is None:
            return tree
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: self._constrained(leaf, self.spec(trees.path_of(path), leaf.shape, False)), tree
        )

    def summed(self, grads: Tree) -> Tree:
        """Inside jit: gradients of batches whose rows are spread, summed over the devices and then split by the rules.

        In that order: asked for split gradients at once, the partitioner would rather move the activations.
        """
        return self.split(self.whole(grads))

    def whole(self, tree: Tree) -> Tree:
        """Inside jit: the same with every leaf whole on every device (of its replica)."""
        return tree if self.mesh is None else jax.tree.map(lambda leaf: self._constrained(leaf, P()), tree)

    def _constrained(self, leaf: jax.Array, spec: P) -> jax.Array:
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(self.mesh, spec))  # type: ignore[arg-type]

    def __str__(self) -> str:
        if self.mesh is None:
            return "one device"
        return " × ".join(f"{size} {name}" for name, size in self.mesh.shape.items() if size > 1)


ALONE = Layout()
"""The first device alone."""


def common_layout() -> Layout:
    """What checkpoints are opened in: one device, or all where no one of several processes has all arrays."""
    return Layout.build(ParallelConfig()) if jax.process_count() > 1 else ALONE


def join_processes(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the other processes of a run, if there are any; JAX must not have been used before.

    The coordinator is ``host:port`` of process 0, or `auto`. What is not given is taken from JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID, and with `auto` from the cluster (SLURM, Open MPI, Kubernetes, TPU pods).

    Raises:
        InputError: Something is missing or wrong, or the others cannot be reached.
    """
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise InputError("--num-processes and --process-id need --coordinator HOST:PORT (or auto)")
        return
    try:
        given = {"JAX_NUM_PROCESSES": num_processes, "JAX_PROCESS_ID": process_id}
        told = {name: os.environ.get(name) if value is None else value for name, value in given.items()}
        count, number = (None if value is None else int(value) for value in told.values())
        jax.distributed.initialize(None if coordinator == "auto" else coordinator, count, number)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"cannot join the other processes (coordinator {coordinator}): {first_line(error)}") from None


def agreed(value: int, choose: Callable[[np.ndarray], Any]) -> Any:
    """What `choose` makes of the values of all processes, each of which must come here."""
    if jax.process_count() == 1:
        return choose(np.array([value]))
    return choose(np.asarray(multihost_utils.process_allgather(np.array([value], np.int64))))


def wait_for_all(what: str) -> None:
    """Returns once every process has come here; `what` names the place."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def _sizes(config: ParallelConfig, devices: int) -> dict[str, int]:
    sizes = {REPLICA: config.replica, DATA: config.data, FSDP: config.fsdp}
    fixed = math.prod(size for size in sizes.values() if size > 0)
    given = ", ".join(f"{name} = {size}" for name, size in sizes.items())
    if -1 in sizes.values():
        if devices % fixed:
            raise InputError(f"parallel: {given} leaves no whole number for -1 on {devices} devices")
        return {name: devices // fixed if size == -1 else size for name, size in sizes.items()}
    if fixed > devices or (jax.process_count() > 1 and fixed != devices):
        raise InputError(f"parallel: {given} asks for {fixed} devices, but there are {devices}")
    return sizes
