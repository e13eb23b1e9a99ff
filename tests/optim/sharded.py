"""Run in a process of its own, with eight simulated devices: every aggregator's update of gradients that are split.

python -m tests.optim.sharded OUT.npz
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.optim.rules import LOSSES, NAMES, made


def main(out: str) -> None:
    """Writes what each gives, on one device and on eight."""
    jax.config.update("jax_num_cpu_devices", 8)
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))
    grads = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(3, 16, 5)), jnp.float32)}

    def updates(grads: Any) -> Any:
        made_of = {name: made(name, 3) for name in NAMES}
        of = {n: tx.update(grads, tx.init(None), None, losses=jnp.asarray(LOSSES[:3])) for n, tx in made_of.items()}  # type: ignore[arg-type]
        return {name: found["w"] for name, (found, _) in of.items()}

    split = {"w": jax.device_put(grads["w"], NamedSharding(mesh, P(None, "fsdp", None)))}
    one, eight = (jax.jit(updates)(given) for given in (grads, split))
    assert {len(leaf.sharding.device_set) for leaf in eight.values()} == {8}
    np.savez(
        out, **{f"one_{name}": leaf for name, leaf in one.items()}, **{f"eight_{n}": leaf for n, leaf in eight.items()}
    )


if __name__ == "__main__":
    main(sys.argv[1])
