"""Data files that training must bear."""

from pathlib import Path


def equal_labels(folder: Path) -> Path:
    """An STS file whose labels are all the same: no correlation with them has a value."""
    rows = "".join(f"{n}\tid{n}\tthe film was good\tthe song was {'bad' * (n % 2)}\t2.5\n" for n in range(6))
    (folder / "equal.tsv").write_text(f"\tid\tsentence1\tsentence2\tsimilarity\n{rows}")
    return folder / "equal.tsv"
