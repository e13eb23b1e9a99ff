"""Tables on a terminal of any width."""

from rich.console import Console

from mtbert_jax.terminal import Grid

CELLS = [
    ["task", "split", "rows", "bad", "lines"],
    ["sst", "train", "8544", "0", "2 = 1, 7 = 4"],
    ["sst", "dev", *"00", ""],
]


def lines(width: int, cells: list[list[str]] = CELLS) -> list[str]:
    """A table as a console of that width shows it."""
    console = Console(width=width)
    with console.capture() as captured:
        console.print(Grid(cells, "rows", "what it means", 2))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_wide_terminal_shows_a_table() -> None:
    assert lines(80)[0].strip() == "rows"
    assert "│ sst  │ train │ 8544 │   0 │ 2 = 1, 7 = 4 │" in lines(80)


def test_a_narrow_terminal_shows_a_paragraph_for_each_row_without_what_is_nothing() -> None:
    told = lines(40)
    assert told[:4] == ["rows:", "  sst train: rows 8544, lines 2 = 1, 7 =", "  4", "  sst dev: none"]
    assert told[4:] == ["what it means", ""]
    assert max(map(len, told)) <= 40


def test_a_table_of_few_columns_stays_one_as_long_as_no_word_is_cut() -> None:
    few = [[*row[:2], row[-1]] for row in CELLS]
    assert any("│" in line for line in lines(26, few))
    assert max(map(len, lines(26, few))) <= 26
    told = lines(20, [["task", "metric", "value"], ["q", "accuracy", "0.5000"], ["average", "", "0.5000"]])
    assert told[1:5] == ["  q accuracy: value", "  0.5000", "  average: value", "  0.5000"]
