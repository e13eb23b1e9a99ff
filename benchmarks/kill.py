"""Trains a config once undisturbed and once killed by SIGKILL again and again, and says what differs: nothing should.

    python benchmarks/kill.py configs/demo.toml --kills 20 --out kill.json -- --epochs 2 --log-every-steps 1

What follows ``--`` goes to every start, as `mtbert train` takes it. With a record after every step a kill can be aimed
at any step, and every step's losses are compared. The same harness runs in the slow tests with a tiny model.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from workers import machine

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.reliability.kills import survive
from tests.reliability.subprocesses import ForkServer


def main() -> int:
    """Runs it; returns 1 if something differs."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        usage="%(prog)s CONFIG [options] [-- OVERRIDES]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--place", type=Path, help="folder of both runs; a temporary one if left out")
    parser.add_argument("--out", type=Path)
    words = sys.argv[1:]
    own = words.index("--") if "--" in words else len(words)
    given, overrides = parser.parse_args(words[:own]), words[own + 1 :]
    with tempfile.TemporaryDirectory() as temporary:
        place = (given.place or Path(temporary)).absolute()
        place.mkdir(parents=True, exist_ok=True)
        with ForkServer(place / "programs") as server:
            outcome = survive(server, given.config.absolute(), place, given.kills, given.seed, *overrides)
    found = {"machine": machine(), "config": given.config.name, "overrides": overrides, **vars(outcome)}
    text = json.dumps(found, indent=2)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")
    return 1 if outcome.differences else 0


if __name__ == "__main__":
    sys.exit(main())
