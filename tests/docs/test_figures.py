"""Figures on the pages are those of the result files, and the commands on them can be given."""

import json
import re
import shlex
import statistics
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mtbert_jax.cli import arguments, parsing
from mtbert_jax.optim.registry import AGGREGATORS
from tests.docs.test_pages import DOCS, NAMES, PAGES, blocks

ROOT = DOCS.parent
RESULTS = ROOT / "benchmarks" / "results"
METHODS = {
    "round robin, PCGrad": "pcgrad",
    "round robin, SMART + PCGrad": "smart_pcgrad",
    "sequential, neither": "sequential",
    "scoring dev": "evaluate",
    "plain sum": "plain",
    "PCGrad": "pcgrad",
    "SMART + PCGrad": "smart_pcgrad",
}
KINDS = {
    "evaluate": arguments.Evaluate,
    "predict": arguments.Predict,
    "submission": arguments.Submission,
    "report": arguments.Report,
    "export": arguments.Export,
}
ON_CONFIGS = {"train": arguments.Train, "check-data": arguments.CheckData, "augment": arguments.Augment}


def document(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def results(name: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["method"], row["side"]): row for row in document(name)["rows"]}


def table(page: Path, head: str) -> list[list[str]]:
    lines = page.read_text(encoding="utf-8").partition(f"| {head} |")[2].splitlines()[2:]
    rows = [line for line in lines[: lines.index("")] if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_what_lora_costs() -> None:
    measured, rows = results("lora.json"), table(DOCS / "performance.md", "one step, 64 tokens, 5 rounds in turn")
    assert len(rows) == 2
    for (_, *cells), method in zip(rows, ("plain", "lora"), strict=True):
        row = measured[method, "jax"]
        state, memory = row["optimizer_state_bytes"] / 1e6, row["peak_memory_bytes"] / 1e9
        numbers = [f"{row['trained_parameters']:,}", f"{state:.1f} MB", f"{row['median_processor_seconds']:.2f}"]
        assert cells == [*numbers, f"{memory:.2f} GB"]
    ratio = measured["lora", "jax"]["over_plain"]["median"]
    assert f"median of paired ratios: {ratio:.2f}".replace("0.", ".") in (DOCS / "performance.md").read_text("utf-8")


def test_examples_a_second() -> None:
    page = DOCS / "performance.md"
    measured, rows = results("epoch.json"), table(page, "examples a second, real files")
    assert len(rows) == 4
    for name, *cells in rows:
        sides = ("jax", "peer", "tuned", "tuned, our batches")
        rates = [measured[METHODS[name], side]["examples_per_second"] for side in sides]
        assert cells == [f"{rate:.0f}" for rate in rates], name
    said = re.search(r"So ([\d.]+), ([\d.]+), ([\d.]+) and ([\d.]+) times", page.read_text(encoding="utf-8"))
    assert said
    ratios = [measured[METHODS[name], "peer"]["ours_over_this"]["median"] for name, *_ in rows]
    assert list(said.groups()) == [f"{ratio:.1f}" for ratio in ratios]


def test_readmes_figures() -> None:
    """README's figures are those of the pages' sources."""
    said = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    (ball,) = [row for row in table(DOCS / "study.md", "dev, seeds 0 and 1") if row[0].startswith("SMART in a ball")]
    gains = [number.removeprefix("+") for number in re.findall(r"[-+][.\d]+", ball[5])]
    assert f"SMART in a ball gains {gains[0]} and {gains[1]} of the average" in said
    costs = {row["config"]: row["time_over_against"]["median"] for row in document("cost.json")["rows"]}
    assert f"takes {costs['minilm_smart_ball_pcgrad']:.1f} times as long" in said
    epoch = results("epoch_bfloat16.json")
    rates = [epoch[method, "jax bfloat16"]["examples_per_second"] for method in ("pcgrad", "smart_pcgrad")]
    assert f"{rates[0]:.0f} examples a second with PCGrad and {rates[1]:.0f} with SMART besides" in said
    packages, loop, ours = (
        [f"{epoch[method, side]['ours_bfloat16_over_this']['median']:.1f}" for method in ("pcgrad", "smart_pcgrad")]
        for side in ("peer autocast", "tuned autocast", "tuned autocast, our batches")
    )
    assert f"{packages[0]} and {packages[1]} times as many as the packages of PyTorch do under autocast" in said
    assert f"{loop[0]} and {loop[1]} times as many as a PyTorch loop by hand under autocast" in said
    assert f"{ours[0]} and {ours[1]} times as many if that loop has our batches" in said


def test_readmes_scores() -> None:
    """They are the study's, with intervals and times of the records."""
    paper, small, base, second = table(ROOT / "README.md", "scores on dev, the course's files (CS224N)")
    study = {row[0].partition(":")[0]: row[1:5] for row in table(DOCS / "study.md", "dev set")}
    assert [paper[1:5], small[1:5], base[1:5]] == [
        study["the paper"],
        study["`minilm_best.toml`"],
        study["`mpnet_best.toml`"],
    ]
    assert second[1:5] == study["`mpnet_best.toml`, seed 1"]
    (best,), record = document("best/table.json")["rows"], document("mpnet/best_seed1.json")
    intervals = (best["average"]["interval"], record["interval_of_average"])
    assert [small[5], second[5]] == [" to ".join(single(end) for end in interval) for interval in intervals]
    minutes = [f"{document(f'mpnet/{name}.json')['seconds'] / 60:.0f}" for name in ("best", "best_seed1")]
    assert [base[6], second[6]] == minutes
    page = " ".join((DOCS / "study.md").read_text("utf-8").split())
    assert f"the second {small[6].replace(',', ' and')} on a busy one" in page


def test_examples_a_second_in_bfloat16() -> None:
    page = DOCS / "performance.md"
    measured, rows = results("epoch_bfloat16.json"), table(page, "examples a second, real files, bfloat16")
    others = ("peer autocast", "tuned autocast", "tuned autocast, our batches")
    assert len(rows) == 3
    for name, *cells in rows:
        sides = ("jax bfloat16", "jax", *others)
        assert cells == [f"{measured[METHODS[name], side]['examples_per_second']:.0f}" for side in sides], name
    page_text = " ".join(page.read_text(encoding="utf-8").split())
    times = [
        [f"{measured[METHODS[name], side]['ours_bfloat16_over_this']['median']:.1f}" for name, *_ in rows]
        for side in others
    ]
    packages, loop, ours = (f"{one}, {two} and {three}" for one, two, three in times)
    assert f"{packages} times as many as the packages, {loop} times as many as the loop, and {ours} times" in page_text
    memory = [
        f"{measured['smart_pcgrad', side]['peak_memory_bytes'] / 1e9:.1f}" for side in ("jax bfloat16", *others[:2])
    ]
    assert f"{memory[0]} GB, the packages' {memory[1]}, the loop's {memory[2]}" in page_text


def test_start_up() -> None:
    found = {(row["checkout"], row["cache"]): f"{row['median']:.1f}" for row in document("startup.json")["rows"]}
    page = " ".join((DOCS / "performance.md").read_text(encoding="utf-8").split())
    assert f"first step {found['this', 'empty']} s after the command the first time" in page
    assert f"after {found['this', 'filled']} s with programs and tokens kept" in page
    assert f"took {found['trial', 'empty']} s in place of {found['this', 'empty']}" in page
    smart = document("startup.json")["programs_of_smart"]
    shapes, seconds = smart["compiled_shapes"], smart["compile_seconds"]
    assert f"the {shapes} shapes of `{smart['config']}` in bfloat16 took {seconds:.0f} s in all" in page
    first = smart["first_step_of_three_tasks_of_32_tokens_seconds"]
    others = [value for name, value in first.items() if name != "as it is"]
    assert len(others) == 6
    assert min(first["as it is"]) - min(others) <= 1


def test_memory_at_the_papers_size() -> None:
    page = " ".join((DOCS / "performance.md").read_text(encoding="utf-8").split())
    rows = document("mpnet/memory.json")["rows"]
    by_kind = {kind: [row for row in rows if row["freed_memory"] == kind] for kind in ("given back at once", "kept")}
    less, more = (max(row["peak_memory_bytes"] for row in own) / 1e9 for own in by_kind.values())
    slow, fast = (statistics.mean(row["median_seconds_of_steps_9_to_16"] for row in own) for own in by_kind.values())
    assert f"peaked at {less:.1f} GB in sixteen steps and an evaluation, and at {more:.1f} GB where" in page
    assert f"a step took {slow:.1f} s, and {fast:.1f} s with it kept" in page


def test_three_epochs_in_bfloat16() -> None:
    page = " ".join((DOCS / "performance.md").read_text(encoding="utf-8").split())
    found = document("bfloat16_seeds.json")
    averages = [row["dev"]["average"] for row in found["rows"]]
    in_bfloat16 = short({"mean": statistics.mean(averages), "sd": statistics.stdev(averages)})
    assert f"had {in_bfloat16} with it (seeds 0, 1, 2, " in page
    assert [row["seed"] for row in found["rows"]] == [0, 1, 2]
    (in_float32,) = [row for row in table(DOCS / "study.md", "dev set") if row[0].startswith("`minilm_pcgrad.toml`")]
    assert f"and {in_float32[4]} in float32 over the same seeds" in page


def test_where_a_steps_time_goes() -> None:
    profiles = document("hotspots.json")["rows"]
    rows = table(DOCS / "performance.md", "share of the processor's time")
    assert {name for name, *_ in rows} == {name for own in profiles for name in own["percent"]}
    assert [(own["method"], own["side"]) for own in profiles] == [
        (method, side) for method in ("pcgrad", "smart_pcgrad") for side in ("jax", "jax bfloat16")
    ]
    for name, *cells in rows:
        assert cells == [f"{own['percent'][name]:.0f} %" for own in profiles], name


def test_seconds_of_a_step() -> None:
    measured, rows = results("step.json"), table(DOCS / "performance.md", "one step, 64 tokens, nothing padded")
    assert len(rows) == 3
    for name, ours, *others in rows:
        row = measured[METHODS[name], "jax"]
        assert ours == f"{row['median_seconds']:.2f} s, {row['peak_memory_bytes'] / 1e9:.1f} GB"
        for cell, side in zip(others, ("peer", "tuned"), strict=True):
            row = measured[METHODS[name], side]
            times, memory = re.findall(r"[\d.]+", cell)
            assert times == f"{row['over_jax']['median']:.1f}"
            assert memory == f"{row['peak_memory_bytes'] / 1e9:.1f}"


def test_seconds_of_a_step_in_bfloat16() -> None:
    measured = results("step_bfloat16.json")
    rows = table(DOCS / "performance.md", "one step in bfloat16, 64 tokens")
    assert [name for name, *_ in rows] == ["PCGrad", "SMART + PCGrad"]
    for name, *cells in rows:
        own, others = (
            [measured[METHODS[name], side] for side in sides]
            for sides in (("jax", "jax bfloat16"), ("tuned", "tuned autocast", "peer"))
        )
        times = [f"{row['median_seconds']:.2f} s, {row['peak_memory_bytes'] / 1e9:.1f} GB" for row in own]
        over = [
            f"{row['over_jax_bfloat16']['median']:.2f} ×, {row['peak_memory_bytes'] / 1e9:.1f} GB" for row in others
        ]
        assert cells == times + over, name


AT_EQUAL_WORK = {
    "64 tokens, two cores": "step_bfloat16_mean.json",
    "64 tokens, one core": "step_one_core.json",
    "32 tokens, two cores": "step_32.json",
    "32 tokens, one core": "step_one_core_32.json",
}


def test_seconds_of_a_step_at_equal_work() -> None:
    said, rows = [], table(DOCS / "performance.md", "one step at equal work")
    in_bfloat16, in_float32 = [], [row["over_jax"]["median"] for row in of_torch("step_bfloat16.json")]
    for where, file in AT_EQUAL_WORK.items():
        settings, cores = document(file)["settings"], document(file)["machine"]["cores"]
        assert (settings["pooling"], f"{settings['length']} tokens") == ("mean", where.partition(",")[0])
        assert where.endswith({1: "one core", 2: "two cores"}[cores])
        for name, method in (("PCGrad", "pcgrad"), ("SMART + PCGrad", "smart_pcgrad")):
            row = {side: results(file)[method, side] for side in ("jax bfloat16", "tuned", "tuned autocast")}
            ratios = [
                row["jax bfloat16"]["over_jax"]["median"],
                row["tuned"]["over_jax"]["median"],
                row["tuned autocast"]["over_jax_bfloat16"]["median"],
            ]
            seconds = f"{row['jax bfloat16']['median_seconds']:.2f} s"
            said.append([f"{name}, {where}", seconds, *(f"{ratio:.2f}".removeprefix("0") for ratio in ratios)])
            in_float32.append(ratios[1])
            in_bfloat16.append(ratios[2])
    assert rows == said
    page = " ".join((DOCS / "performance.md").read_text("utf-8").split())
    assert "ours in bfloat16 is ahead of the loop under autocast everywhere" in page
    assert min(in_bfloat16) > 1
    two, one = (
        next(row for row in own["rows"] if row["side"] == "tuned autocast")["over_jax_bfloat16"]["median"]
        for own in document("step_32_before.json")["cores"].values()
    )
    assert f"gave {two:.2f} on two cores and {one:.2f} on one".replace(" 0.", " .") in page
    float32 = f"{min(in_float32):.1f} to {max(in_float32):.1f} times as long"
    assert f"the loop in float32 took {float32}" in page
    peers = [row["over_jax"]["median"] for row in of_torch("step_bfloat16.json", "peer")]
    assert f"and the packages {min(peers):.1f} to {max(peers):.1f}" in page
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"took {float32} as ours in float32" in readme
    bfloat16 = " to ".join(f"{ratio:.1f}".removeprefix("0") for ratio in (min(in_bfloat16), max(in_bfloat16)))
    assert f"and {bfloat16} times in bfloat16 at equal work" in readme


def of_torch(file: str, side: str = "tuned") -> list[dict[str, Any]]:
    """What one of PyTorch's sides took for each method."""
    return [row for (_, own), row in results(file).items() if own == side]


def test_seconds_of_a_step_of_mpnets_size() -> None:
    rows = table(DOCS / "performance.md", "one step, MPNet's size, 32 tokens")
    for (name, ours, rate, loop), (dtype, method) in zip(
        rows,
        [(dtype, method) for dtype in ("bfloat16", "float32") for method in ("pcgrad", "smart_ball_pcgrad")],
        strict=True,
    ):
        assert name.endswith(dtype)
        measured = results(f"mpnet/step_{dtype}.json")
        jax, torch = ("jax", "tuned") if dtype == "float32" else ("jax bfloat16", "tuned autocast")
        own, other = measured[method, jax], measured[method, torch]
        assert ours == f"{own['median_seconds']:.2f} s, {own['peak_memory_bytes'] / 1e9:.1f} GB"
        assert rate == f"{48 / own['median_seconds']:.1f}"
        over = other[f"over_{jax.replace(' ', '_')}"]["median"]
        assert re.findall(r"[\d.]+", loop) == [f"{over:.2f}", f"{other['peak_memory_bytes'] / 1e9:.1f}"]
    ratios = [float(re.findall(r"[\d.]+", loop)[0]) for *_, loop in rows]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"at bert-base's size {min(ratios):.1f} to {max(ratios):.1f} times" in readme


def test_seconds_of_a_step_with_an_aggregator() -> None:
    page = " ".join((DOCS / "concepts" / "aggregators.md").read_text(encoding="utf-8").split())
    rows = document("aggregators.json")["rows"]
    plain = rows[0]["update_seconds_of_sum"]
    step = rows[0]["gradients_seconds"] + plain
    assert f"`sum_tasks()` takes {step:.2f} s, {plain:.2f} s of it for the update" in page
    assert len(rows) == 4
    for row in rows:
        before, after = f"with `{row['call']}`", f"{row['ratio_to_sum']:.3f}"
        assert f"{before} {after}" in page or f"{before} it takes {after} times as long" in page
    ratios = [row["ratio_to_sum"] for row in document("aggregators_minilm.json")["rows"]]
    assert len(ratios) == len(AGGREGATORS) - 1  # all but the sum
    assert f"lie between {min(ratios):.3f} and {max(ratios):.3f} (" in page


def test_other_figures() -> None:
    surgery = document("surgery.json")["share_of_step"]
    assert f"itself adds to a sum is {surgery:.1%}".replace("%", " %") in (DOCS / "performance.md").read_text("utf-8")
    peaks = [f"{row['peak_memory_bytes'] / 1e9:.1f}" for row in results("step_bert_base_smart.json").values()]
    said = f"SMART + PCGrad peaks at {peaks[0]} GB, the packages at {peaks[1]}"
    assert said in (DOCS / "performance.md").read_text("utf-8")
    smart = results("smart_ratio.json")["smart_pcgrad", "jax"]["over_plain"]["median"]
    assert f"takes {smart:.1f} times as long" in (DOCS / "concepts" / "smart.md").read_text(encoding="utf-8")
    rows = document("study/table.json")["differences"]
    gains = {(row["config"], row["against"]): row["average"]["mean"] for row in rows}
    for page, row in {
        "smart": "smart_ball_pcgrad",
        "bregman": "smart_pcgrad_bregman",
        "stages": "pcgrad_one_stage",
    }.items():
        gain = single(abs(gains[f"minilm_{row}", "minilm_pcgrad"]))
        assert f" {gain} " in (DOCS / "concepts" / f"{page}.md").read_text(encoding="utf-8"), (page, gain)


def single(score: float) -> str:
    """A score of one run as the pages write it."""
    return f"{score:.3f}".removeprefix("0")


def short(value: dict[str, Any]) -> str:
    """A score over seeds as the pages write it."""
    mean = single(value["mean"])
    return mean if value["sd"] is None else f"{mean} ± {single(value['sd'])}"


def over(numbers: list[float]) -> str:
    return short({"mean": statistics.mean(numbers), "sd": statistics.stdev(numbers)})


def test_the_studys_table() -> None:
    """Scores and gains of both seeds, from three tables; the interval from one of them, of the seeds that it has."""
    first, later, again = (document(f"study/{name}.json") for name in ("table", "seed1", "sequential"))
    runs = {row["config"]: list(row["runs"]) for row in first["rows"]}
    for row in later["rows"]:
        runs[row["config"]] += row["runs"]
    trained_again = {row["config"]: row["runs"] for row in again["rows"]}
    alone = [row["config"] for row in first["rows"] if len(row["runs"]) == 1 and row["config"] not in trained_again]
    runs |= trained_again
    differences = [*first["differences"], *again["differences"]]
    intervals = {(row["config"], row["against"]): row["average"]["interval"] for row in differences}
    bases = {"tuned": "minilm_tuned", "round robin": "minilm_round_robin", "PCGrad": "minilm_pcgrad"}
    metrics = {"sst": "accuracy", "para": "accuracy", "sts": "pearson"}
    said = table(DOCS / "study.md", "dev, seeds 0 and 1")
    assert len(said) == len(runs) == 13
    for (_, *scores, gains, interval), (config, own) in zip(said, runs.items(), strict=True):
        assert [run["seed"] for run in own] == [0, 1], config
        assert scores[:-1] == [over([run["dev"][name][metric] for run in own]) for name, metric in metrics.items()]
        assert scores[-1] == over([run["dev"]["average"] for run in own]), config
        if not gains:
            continue
        numbers, _, base = gains.partition(" on ")
        beside = zip(own, runs[bases[base]], strict=True)
        found = [float(number) for number in re.findall(r"[-+][.\d]+", numbers)]
        assert found == pytest.approx([a["dev"]["average"] - b["dev"]["average"] for a, b in beside], abs=5.01e-4)
        if bases[base] in trained_again and config not in trained_again:
            assert interval == "", config  # the predictions of the one were gone when the other was trained again
            continue
        assert interval.endswith("(seed 0)") == (config in alone), config
        found = [float(number) for number in re.findall(r"[-+][.\d]+", interval)]
        assert found == pytest.approx(intervals[config, bases[base]], abs=5.01e-4), config


def test_what_a_method_costs() -> None:
    rows = {row["config"]: row for row in document("cost.json")["rows"]}
    configs = ("baseline", "round_robin", "smart", "smart_pcgrad", "smart_ball_pcgrad", "smart_pcgrad_bregman")
    said = table(DOCS / "study.md", "| examples a second | time beside PCGrad's | peak memory")
    for (_, *cells), config in zip(said, configs, strict=True):
        row = rows[f"minilm_{config}"]
        ratio, memory = row["time_over_against"]["median"], row["peak_memory_bytes"] / 1e9
        assert cells == [f"{row['examples_per_second']:.0f}", f"{ratio:.2f}", f"{memory:.1f} GB"], config


def test_the_best_recipe() -> None:
    (row,) = document("best/table.json")["rows"]
    scores = [short(row["tasks"][name]) for name in ("sst", "para", "sts")]
    scores += [short(row["average"]), short(row["plain_average"])]
    (said,) = [line for line in table(DOCS / "study.md", "dev set") if "minilm_best" in line[0]]
    assert said[1:] == scores


def of_mpnet(dev: dict[str, Any]) -> list[str]:
    main = (dev["sst"]["accuracy"], dev["para"]["accuracy"], dev["sts"]["pearson"])
    return [single(score) for score in (*main, dev["average"], dev["plain_average"])]


def test_the_best_of_mpnet() -> None:
    found, second = document("mpnet/best.json"), document("mpnet/best_seed1.json")
    said, other = [line for line in table(DOCS / "study.md", "dev set") if "mpnet_best" in line[0]]
    assert said[1:] == of_mpnet(found["dev"])
    assert other[1:] == of_mpnet(second["dev"])
    page = " ".join((DOCS / "study.md").read_text("utf-8").split())
    epochs = [of_mpnet(epoch["scores"])[3] for epoch in found["epochs"]]
    assert f"{found['seconds'] / 60:.0f} minutes on one core" in page
    assert f"{epochs[0]}, {epochs[1]} and {epochs[2]} after each epoch" in page
    assert f"the third epoch, with that, peaked at {found['peak_memory_bytes']['third epoch'] / 1e9:.1f} GB" in page
    one, two, three = [of_mpnet(epoch["scores"])[3] for epoch in second["epochs"]]
    cost = f"{second['seconds'] / 60:.0f} minutes on two cores beside other work"
    peak = f"{second['peak_memory_bytes'] / 1e9:.1f} GB at the peak"
    assert f"The fifth took {cost} and {peak}, {one}, {two} and {three} after each epoch" in page
    assert max(one, two, three) == other[4]
    for row in (said, other):
        scores = f"SST {row[1]}, paraphrase {row[2]}, STS r {row[3]}, average {row[4]}"
        assert scores in (ROOT / "configs" / "mpnet_best.toml").read_text("utf-8")


def test_cfimdb_with_mpnet() -> None:
    found = document("mpnet/cfimdb.json")
    one, two, three = scores = [single(epoch["cfimdb"]["accuracy"]) for epoch in found["epochs"]]
    best = max(epoch["cfimdb"]["accuracy"] for epoch in found["epochs"])
    page = " ".join((DOCS / "study.md").read_text("utf-8").split())
    right, peak = round(best * found["dev_examples"]), found["peak_memory_bytes"] / 1e9
    said = f"which is {right} of {found['dev_examples']} reviews, and {peak:.1f} GB at the peak"
    assert f"The second had {one}, {two} and {three} on dev after its three epochs, {said}" in page
    longer = single(found["reviews_of_512_tokens"]["cfimdb"]["accuracy"])
    assert f"scored on 512, the same checkpoint has {longer}, too" in page
    config = (ROOT / "configs" / "mpnet_cfimdb.toml").read_text("utf-8")
    assert f"a dev accuracy of {max(scores)} (seed 0; {one}, {two} and {three} after each epoch)" in config


def test_cfimdb_as_a_fourth_task() -> None:
    found = document("four_tasks.json")
    page = " ".join((DOCS / "study.md").read_text("utf-8").split())
    dev, last = found["dev"], found["epochs"][-1]
    sst, para, sts = (dev["sst"]["accuracy"], dev["para"]["accuracy"], dev["sts"]["pearson"])
    reviews = dev["cfimdb"]["accuracy"]
    assert f"CFIMDB has {single(reviews)}, which is {round(reviews * 245)} of 245 reviews, beside .939 alone" in page
    average = single((sst + para + (sts + 1) / 2) / 3)
    others = f"SST {single(sst)}, paraphrase {single(para)}, STS r {single(sts)}"
    assert f"{others}, average {average}, beside" in page
    seeds = [row["dev"]["average"] for row in document("bfloat16_seeds.json")["rows"]]
    without = short({"mean": statistics.mean(seeds), "sd": statistics.stdev(seeds)})
    assert f"beside {without} without it over three seeds, the first of which has {single(seeds[0])}" in page
    assert last["step"] == 1623
    assert last["scores"] == dev | {name: last["scores"][name] for name in ("average", "plain_average")}
    assert f"{found['peak_memory_bytes'] / 1e9:.1f} GB at the peak (`benchmarks/results/four_tasks.json`)" in page
    config = (ROOT / "configs" / "minilm_four_tasks.toml").read_text("utf-8")
    assert f"(seed 0): {others}, CFIMDB {single(reviews)}, which has .939 alone" in config


def test_a_last_stage_of_mpnet() -> None:
    found, before = document("mpnet/last_stage.json"), document("mpnet/best_seed1.json")["dev"]
    page = " ".join((DOCS / "study.md").read_text("utf-8").split())
    after = {row["task"]: single(row["dev"]["accuracy"]) for row in found["rows"]}
    start = {task: single(before[task]["accuracy"]) for task in after}
    assert f"paraphrase has {after['para']} then in place of {start['para']}" in page
    assert f"SST {after['sst']} in place of {start['sst']}" in page
    assert f"they have {single(found['ensemble']['para'])} and {single(found['ensemble']['sst'])}" in page


def test_epochs_of_mpnet_with_smart() -> None:
    found, without = document("mpnet/ball.json"), document("mpnet/best_seed1.json")
    page = " ".join((DOCS / "study.md").read_text("utf-8").split())
    assert len(found["epochs"]) == 2
    config = (ROOT / "configs" / "mpnet_best.toml").read_text("utf-8")
    averages = []
    for ours, theirs, end in zip(found["epochs"], without["epochs"], (" without it", ". That is"), strict=False):
        assert ours["step"] == theirs["step"]
        sst, para, sts, average = of_mpnet(ours["scores"])[:4]
        beside = of_mpnet(theirs["scores"])[:4]
        assert f"has SST {sst}, paraphrase {para}, STS r {sts}, average {average}, beside" in page
        assert "beside {}, {}, {} and {}".format(*beside) + end in page
        averages.append((average, beside[3]))
    (one, less_one), (two, less_two) = averages
    assert f"{one} and {two} after two epochs, beside {less_one} and {less_two}." in config
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    assert f"two epochs with it gave {two} beside {less_two} without (one seed)" in readme
    gained = found["gains_on_best_seed1"]["average"]
    signed = [f"{value:+.3f}".replace("0.", ".").replace("-", "−") for value in (gained["gain"], *gained["interval"])]
    assert "That is {} of the average, with an interval of {} to {} over dev examples".format(*signed) in page
    losses = [rows[-1] for rows in found["train_losses"].values()]
    assert [row["step"] for row in losses] == [500, 500]
    slower, faster = (f"{row['loss']['sst']:.2f}" for row in losses)
    assert f"the loss of SST at step 500 was {slower} beside {faster}" in page
    assert f"peaked at {found['peak_memory_bytes'] / 1e9:.1f} GB" in page
    first, second = (single(found[name]["average"]) for name in ("ensemble", "ensemble_with_the_second_epoch"))
    assert f"has an average of {first}, the highest of four ensembles" in page
    assert f"with its second epoch it has {second}" in page


def test_how_far_it_got() -> None:
    page = (DOCS / "study.md").read_text("utf-8")
    trials, best, second = document("recipe.json"), document("mpnet/best.json"), document("mpnet/best_seed1.json")
    scores = {row[0].partition(":")[0]: row for row in table(DOCS / "study.md", "dev set")}
    ensemble, seeds = document("mpnet/ball.json")["ensemble"], document("bfloat16_seeds.json")
    steps = [short(trials[name]["dev"]["average"]) for name in ("base", "ema_3")]
    steps += [scores["`minilm_best.toml`"][4], single(document("mpnet/one_epoch.json")["dev"]["average"])]
    steps += [single(found["average"]) for found in (best["dev"], second["dev"], ensemble)]
    assert [cell for _, cell in table(DOCS / "study.md", "step | dev average")] == steps
    said = " ".join(page[page.index("## How far it got") : page.index("## The rows of the study")].split())
    small, base = float(steps[2].partition(" ")[0]), float(steps[5])
    assert f"MiniLM is {single(0.775 - small)} below its aim" in said
    assert f"{single(0.785 - base)} below its own with its better seed" in said
    assert float(steps[6]) > 0.785
    each = over([row["dev"]["average"] for row in seeds["rows"]])
    assert f"in bfloat16 give {single(seeds['ensemble']['average'])}, where each seed alone has {each}" in said
    cfimdb = max(epoch["cfimdb"]["accuracy"] for epoch in document("mpnet/cfimdb.json")["epochs"])
    assert f"CFIMDB has {single(cfimdb)} where .96" in said
    assert round(0.96 * 245 + 0.5) - round(cfimdb * 245) == 1
    para = [scores[name][2].partition(" ")[0] for name in ("`minilm_best.toml`", "`mpnet_best.toml`", "the paper")]
    assert f"paraphrase, {para[0]} and {para[1]} beside the paper's {para[2]}" in said
    larger = [single(found["dev"]["sst"]["accuracy"]) for found in (best, second)]
    small_one = scores["`minilm_best.toml`"][1].partition(" ")[0]
    assert f"SST's accuracy is {small_one} with it, and {larger[0]} and {larger[1]} with the larger one" in said


def test_an_epoch_of_mpnet_without_surgery() -> None:
    (ours,), theirs = document("mpnet/sum.json")["epochs"], document("mpnet/best_seed1.json")["epochs"][0]
    assert ours["step"] == theirs["step"]
    page = " ".join((DOCS / "study.md").read_text("utf-8").split())
    (sst, para, sts, average), beside = of_mpnet(ours["scores"])[:4], of_mpnet(theirs["scores"])[:4]
    said = f"It has SST {sst}, paraphrase {para}, STS r {sts}, average {average}, beside"
    assert f"{said} {', '.join(beside[:3])} and {beside[3]} with PCGrad" in page
    config = (ROOT / "configs" / "mpnet_best.toml").read_text("utf-8")
    assert f"(seed 1): {average} after one epoch, beside {beside[3]}." in config


def test_a_soup_of_mpnet() -> None:
    page = " ".join((DOCS / "study.md").read_text("utf-8").split())
    rows = document("mpnet/soup.json")["rows"]
    of_epochs, with_smart = (single(row["dev"]["average"]) for row in rows)
    best = single(document("mpnet/best_seed1.json")["dev"]["average"])
    assert f"the second and the third epoch have {of_epochs}, the second epoch without SMART and that with it" in page
    assert f"have {with_smart}, beside {best} for the better of each two alone" in page
    assert f"less than the {single(rows[1]['mean_of_logits']['average'])} that the mean of the logits" in page


def test_an_epoch_of_mpnet() -> None:
    found = document("mpnet/one_epoch.json")
    (said,) = [line for line in table(DOCS / "study.md", "dev set") if "mpnet_pcgrad" in line[0]]
    assert said[1:] == of_mpnet(found["dev"])
    page = " ".join((DOCS / "study.md").read_text("utf-8").split())
    cost = f"{found['seconds'] / 60:.0f} minutes beside other work, {found['cpu_seconds'] / 60:.0f} minutes of CPU time"
    assert f"{cost}, {found['peak_memory_bytes'] / 1e9:.1f} GB at the peak" in page


def test_the_trials_of_the_recipe() -> None:
    records = document("recipe.json")
    trials = tomllib.loads((ROOT / "benchmarks" / "recipe.toml").read_text(encoding="utf-8"))["trials"]
    assert list(trials) == list(records)
    rows = table(DOCS / "study.md", "trial | on | what and why | SST | paraphrase | STS r | average")
    assert [row[0].strip("`") for row in rows] == list(records)
    for (name, on, why, *scores), record in zip(rows, records.values(), strict=True):
        assert (on.strip("`"), why) == (record.get("on", ""), record["why"])
        assert scores == [short(record["dev"][of]) for of in ("sst", "para", "sts", "average")], name


def test_the_aggregators_that_were_trained() -> None:
    records = document("aggregators_trained.json")
    trials = tomllib.loads((ROOT / "benchmarks" / "aggregators_trained.toml").read_text(encoding="utf-8"))["trials"]
    assert list(records) == [name for name in trials if name in records]
    head = "trial | SST | paraphrase | STS r | average | weights at the end: SST, paraphrase, STS"
    shown = {name.strip("`"): cells for name, *cells in table(DOCS / "concepts" / "aggregators.md", head)}
    assert list(shown) == list(records)
    for name, one in records.items():
        scores = [short(one["dev"][of]) for of in ("sst", "para", "sts", "average")]
        weights = [f"{one['weights'][0][of]:.2f}".removeprefix("0") for of in ("sst", "para", "sts")]
        assert shown[name] == [*scores, ", ".join(weights)], name
    page = " ".join((DOCS / "concepts" / "aggregators.md").read_text(encoding="utf-8").split())
    two_seeds = {name: one["averages"] for name, one in records.items() if len(one["seeds"]) == 2}
    sums, dwa, gradnorm = ([f"{value:.3f}"[1:] for value in two_seeds[n]] for n in ("sum_tasks", "dwa", "gradnorm"))
    assert f"Its own two seeds are {sums[0]} and {sums[1]}" in page
    assert f"with seed 0, {dwa[0]}, and was below the sum with seed 1, at {dwa[1]}" in page
    assert max(dwa[0], sums[0]) == dwa[0] and dwa[1] < sums[1]
    assert f"below the sum with both seeds ({gradnorm[0]} and {gradnorm[1]})" in page
    assert gradnorm[0] < sums[0] and gradnorm[1] < sums[1]
    others = [one["dev"]["average"]["mean"] for name, one in records.items() if name != "gradnorm"]
    assert f"lie between {min(others):.3f} and {max(others):.3f}, random".replace("0.", ".") in page
    assert max(others) - min(others) < 0.006
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"nor does any of {len(records) - 1} [aggregators]" in readme
    weights = {task: [f"{one[task]:.2f}" for one in records["gradnorm"]["weights"]] for task in ("sts", "para", "sst")}
    said = [" and ".join(value.removeprefix("0") for value in weights[task]) for task in ("sts", "para", "sst")]
    assert f"weighed by {said[0]} beside {said[1]} for paraphrase and {said[2]} for SST" in page


def test_the_learning_curve() -> None:
    rows = document("learning_curve.json")["rows"]
    assert [row["part"] for row in rows] == [0.25, 0.5, 1]
    first, second, third = (short(row) for row in rows)
    said = " ".join((DOCS / "study.md").read_text(encoding="utf-8").split())
    assert f"reaches {first}, {second} and {third} (seed 0" in said


def test_both_orders_of_a_pair() -> None:
    para, sts = document("both_orders.json")["rows"]
    said = " ".join((DOCS / "concepts" / "batching.md").read_text(encoding="utf-8").split())

    def told(row: dict[str, Any]) -> tuple[str, str]:
        first, other, both = (f"{row[way]:.4f}".lstrip("0") for way in ("first", "other", "both"))
        low, high = (f"{end:.3f}".replace("0.", ".").replace("-", "−") for end in row["interval"])
        return f"{first} and {other} became {both}", f"{low} to {high}"

    assert (
        said.count(
            "on 2,222 dev pairs of paraphrase {} (95 % interval of the gain over the first order {};".format(
                *told(para)
            )
        )
        == 1
    )
    assert said.count("on 863 of STS r {} ({}).".format(*told(sts))) == 1
    assert f"{para['other_prediction']:.1%}".replace("%", " %") + " of the pairs" in said
    assert [row["examples"] for row in (para, sts)] == [2222, 863]


def test_bert_bases_rows_in_short() -> None:
    rows = document("bert_base.json")["rows"]
    configs = {path.stem for path in (ROOT / "configs" / "study").glob("*.toml") if "minilm" not in path.stem}
    assert {row["config"] for row in rows} == configs
    assert not any(row["exit_status"] or row["left_out"] for row in rows)
    assert {round(row["peak_memory_bytes"] / 1e9) for row in rows} == {6, 7, 8, 9}


def test_result_files_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"`((?:benchmarks|configs|examples)/[\w./]+)`", page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{page.name}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_can_be_given(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for line in "\n".join(blocks(page, "sh")).splitlines():
        for part in line.split(" | "):
            command, _, rest = part.removeprefix(".venv/bin/").removeprefix("mtbert ").partition(" ")
            if not re.match(r"(\.venv/bin/)?mtbert ", part):
                continue
            args = shlex.split(rest)
            if command == "ablate":
                given, configs, _ = parsing.parse_ablate(args)
                assert len(configs) == len(given.configs) > 0
            elif command in ON_CONFIGS:
                # A page's own config is one that it shows: any other stands in for it.
                shown = args[0] == "CONFIG.toml" or "/" not in args[0]
                config, kind = ROOT / ("configs/demo.toml" if shown else args[0]), ON_CONFIGS[command]
                assert isinstance(parsing.parse_train(config, args[1:], command, kind), kind)
            else:
                assert isinstance(parsing.parse(KINDS[command], args, command), KINDS[command])
