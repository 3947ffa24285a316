"""The numbers in the chapters' prose are the records': each is computed here again and looked for in the page."""

import functools
import math
import re

import nbformat
import numpy as np
import pytest
from conftest import ROOT
from torch import nn
from torchvision import models

import d2l_utils as d2l
from d2l_utils.anatomy import part_table
from d2l_utils.book import records

CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
UNITS = r"%|points|times|ms|GFLOP/s|pictures|images|megabytes|MB"
RESULT = re.compile(rf"(?<![\w.-])\d[\d,]*(?:\.\d+)? (?:(?:to|and|or) \d[\d.,]* )?(?:{UNITS})(?!\w)"   # 8.6 %, 1 to 2 %
                    r"|(?<![\w.-])\d+\.\d+(?![\w.]*\d)")                                             # 13.5
SETTINGS = {"0.003", "0.01", "0.03", "0.1", "0.3", "0.5", "0.75", "0.9", "1.0", "3.2", "0.25"} # rates etc.
PICTURES = re.compile(r"[\d,]+ (?:pictures|images)")                     # how many there are
QUOTED = {                             # of a paper, a meter, a benchmark: no record of ours has these
    "03_residual_block": ["section 3.3", "in 4.1", "25.03, 24.52 and 24.19 %"],
    "06_gradients": ["section 4.1"], "08_inside": ["is 0.06"],
    "09_super_resolution": ["CC BY 2.0), *astro", "CC BY 2.0) and *camera"],
    "10_pretrained": ["4 to 5 points", "CC BY 2.0", "CC BY 4.0", "torchvision 0.13", "1.3 million", "section 4.1",
                      "to 80.4 %"],
    "11_thousand_layers": ["7.93 % of the test pictures wrong against 6.61", "4.92 % against 5.46",
                           "from 6.61 to 6.37 %", "from 5.93 to 5.46 %", "from 7.61 to 4.92 %",
                           "to 4.91 %", "leaves 90 %"],
    "A_fair_race": ["section 4.1", "section 4.2", "(27.94 % plain, 27.88 % residual", "28.54 against 25.03 %"],
    "B_speed": ["100 % busy", "rate 0.05", "to 92 %", "gets 92 %", "reached 92 %"]}


def prose(path):
    """The page's sentences in one line, without code, formulas, addresses, exercises and what follows them."""
    cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
    text = "\n".join(cells).split("\n## Exercises")[0]
    text = re.sub(r"`[^`]*`|\$[^$]*\$|\]\([^)]*\)|^ {4}.*$", "", text, flags=re.M)
    return re.sub(r"\s+", " ", text.replace("\N{NO-BREAK SPACE}", " "))


def per_cent(values, digits=1):
    """(lowest, highest) in per cent."""
    return [round(100 * value, digits) for value in (min(values), max(values))]


@functools.cache
def record(name):
    return d2l.recorded(name)


# What each page says, and what its record has: the sentence's words with {} for its numbers, and the numbers.

def chapter_01():
    witness = d2l.by_seed(d2l.main_precision(record("degradation")), "train_error", depth=56, shortcut="A", epoch=4)[4]
    near, *strays = sorted(witness)[:3], *sorted(witness)[3:]
    last = record("degradation_rate").query("epoch == 10 and depth == 56 and lr == 0.1 and shortcut == 'none'")
    as_is, clipped = (last[last.recipe == recipe].train_error for recipe in ("standard", "clipped"))
    race = record("degradation_rate").query("recipe == 'standard' and lr == 0.03 and epoch == 10")
    mean = race.groupby(["shortcut", "depth"]).train_error.mean()
    return [
        ("Three of the five residual-56 runs end at {:.1f} to {:.1f} %", per_cent(near)),
        ("and they end at {:.1f} and {:.1f} %", [100 * stray for stray in strays]),
        ("Their mean, {:.1f} %,", [100 * witness.mean()]),
        ("{:.1f} to {:.1f} % as is", per_cent(as_is)),
        ("{:.1f} to {:.1f} % clipped", per_cent(clipped)),
        ("anything from {:.0f} to {:.0f} %", consistent_with(2, 5)),
        ("for five against five, once in {:d} times", [math.comb(10, 5) // 2]),
        ("plain-56 gets nearly {} times as many", words(mean["none", 56] / mean["none", 20], 3.5, 4, "four")),
        ("some {} points more", words(100 * (mean["none", 56] - mean["none", 20]), 15.5, 16.5, "sixteen")),
        ("residual-32 makes about a {} fewer training errors",
         words(1 - mean["A", 32] / mean["A", 20], 0.28, 0.39, "third")),
    ]


def consistent_with(k, n):
    """The chances that make k of n, or fewer, or more, likelier than 2.5 % each: (lowest, highest), in per cent."""
    p = np.linspace(0, 1, 10_001)
    chance = [math.comb(n, i) * p ** i * (1 - p) ** (n - i) for i in range(n + 1)]
    both = p[(sum(chance[k:]) >= 0.025) & (sum(chance[:k + 1]) >= 0.025)]
    return per_cent(both, 0)


def words(value, low, high, word):
    """[word] if it is a fair word for the value."""
    return [word if low <= value < high else f"({value:.3g} is no {word})"]


def chapter_02():
    last = record("identity").query("step == 200")
    best = last.groupby(["depth", "start", "t", "lr"]).missed_choosing.mean().unstack().idxmin(axis=1).rename("lr")
    missed = last.merge(best.reset_index()).set_index(["depth", "t", "seed", "start"]).missed.unstack()
    ratio = missed.clip(lower=1e-6)
    times = (ratio.he / ratio.residual).groupby(["depth", "t"]).mean()
    points = 100 * (missed.he - missed.residual).groupby(["depth", "t"]).mean()
    plain = 100 * missed.he.groupby(["depth", "t"]).mean()
    factor = (ratio.delta / ratio.residual).loc[20].groupby("t").mean()[[0.25, 0.5, 0.75, 1]]
    share = d2l.by_seed(record("branch_share"), "share", "block", shortcut="A", norm=True).mean()
    return [
        ("from {:.1f} to {:.2f} within stage 1, and to {:.2f} in the last block", share[[1, 9, 27]]),
        ("It hardly moves, from {:.1f} % to {:.1f} %.", plain[20][[0, 1]]),
        ("the edge of twenty layers collapses, from {:,.0f} to {:.1f}.", times[20][[0, 1]]),
        ("In points it goes from {:.1f} to {:.1f}", points[20][[0, 1]]),
        ("have a multiple of {:,.0f} there, though their edge is {:.1f} points", [times[4, 0], points[4, 0]]),
        ("anywhere from {:.0f} to {:.0f} %", per_cent(missed.full[20], 0)),
        ("by a factor of {:.0f} to {:.0f} on average", [factor.min(), factor.max()]),
        ("thousands at the identity and of {:.1f} far from it, or {:.1f} points and {:.1f}.",
         [times[20, 1], *points[20][[0, 1]]])]


def chapter_04():
    """Of a 224x224 picture, as the chapter's `anatomy` counts it."""
    totals = []
    for net in (d2l.resnet34(), d2l.resnet50()):
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        head = nn.Sequential(net.avgpool, nn.Flatten(), net.fc)
        parts = {"stem": stem, **{str(i): stage for i, stage in enumerate(net.stages)}, "head": head}
        totals.append(part_table(parts, 3, 224, 224)[["parameters", "multiply_adds", "MiB"]].sum())
    more = totals[1] / totals[0]
    return [("Fifty costs {:.0f} % more parameters than thirty-four and {:.0f} % more multiply-adds",
             100 * (more[["parameters", "multiply_adds"]] - 1)),
            ("but {:.1f} times the memory", [more.MiB])]


def chapter_05():
    flattery = []
    grid = record("schedules").query("recipe == 'standard'")
    ends = d2l.by_seed(grid, "test_error", ["schedule", "lr"], epoch=8)
    for seed in ends.index:
        flattery.append(ends.drop(index=seed)[ends.loc[seed].idxmin()].mean() - ends.loc[seed].min())
    full = record("fashion_mnist").query("recipe == 'book' and shortcut == 'A'")
    right = 1 - full[full.epoch == full.epoch.max()].test_error.mean()
    ends = record("fashion_mnist").query("epoch == 14")
    test, val = (d2l.by_seed(ends[ends.recipe == "book"], f"{pile}_error", "shortcut") for pile in ("test", "val"))
    arms = ends[(ends["shortcut"] == "A") & (ends.seed < 3)]
    arms, shirts = (d2l.by_seed(arms, column, "recipe") for column in ("test_error", "test_error shirt"))
    change = arms.sub(arms["14x14 not augmented"], axis=0).mean()
    return [
        ("and by little: {:.1f} and {:.1f} points on average",
         [100 * (pile["none"] - pile["A"]).mean() for pile in (test, val)]),
        ("the test error is {:.1f} to {:.1f} points lower", per_cent(arms["not augmented"] - arms["book"])),
        ("Both together raise the test error by {:.1f} points", [100 * change["14x14 both"]]),
        ("Mirrors alone lower it, by {:.1f} points", [-100 * change["14x14 mirrors"]]),
        ("cost the shirts {:.1f} to {:.1f} points", per_cent(shirts["14x14 shifts"] - shirts["14x14 not augmented"])),
        ("gives the right class at most , {:.0f} %", [100 * math.e / (math.e + 9)]),
        ("has flattered it by {:.1f} points", [100 * float(np.mean(flattery))]),
        ("How far can {:.1f} % be trusted?", [100 * right]),
    ]


def chapter_06():
    table = record("suspects").query("seed > 0 and kind != 'residual, equal steps'")
    every = record("suspects").query("seed > 0 and epoch == 5").groupby("kind").train_error.mean() * 100
    error = every.drop("residual, equal steps")

    def rho(column, step):
        return table[table.step == step].groupby("kind")[column].median().corr(error, method="spearman")

    start = table[table.step == 0].groupby("kind")[["agreement", "path"]].median()
    best = table[table.step == 20].groupby("kind").batch_loss.median().min()
    near = error[error.index.str.startswith("delta") | (error.index == "residual")]
    first = record("degradation_rate").query("recipe == 'standard' and lr == 0.03 and epoch == 10")
    first = d2l.by_seed(first, "train_error", "depth", shortcut=None).mean() * 100
    spoiler = start.agreement["random, matched norm"] / start.agreement["plain"]
    deep = record("gradients").query("start == 'he' and depth == 56 and step == 0")
    size = deep[(deep.norm == "batch") & (deep.shortcut == "none")].size_ratio
    loss = deep[(deep.norm == "none") & (deep.shortcut == "A")].batch_loss
    batches = record("batch_test").query("rate == 0.03")
    early = batches[batches.step.isin([0, 10])].groupby(["kind", "batch_size"]).agreement.mean()
    ends = batches[batches.epoch.notna()].groupby(["kind", "batch_size", "seed"]).test_error.last()
    ends = 100 * ends.groupby(["kind", "batch_size"]).mean()
    kinds = table[table.step.isin([0, 10])].groupby("kind").agreement.mean()
    kinds = 100 * table[table.epoch == 5].groupby("kind").test_error.mean().loc[kinds.index[kinds < 0.05]]
    layers = functools.partial(records.recorded_array, "gradients", "layers", norm="batch", shortcut=None, start="he")
    shallow = {depth: np.mean([layers(depth=depth, seed=seed)[0, :-1, 5] for seed in range(5)]) for depth in (20, 56)}
    whole = table[table.step == 0].groupby("kind").agreement_all.mean()["random, matched norm"]
    return [
        ("about a thousand times ({:.0f} to {:,.0f} over five seeds)", [size.min(), size.max()]),
        ("the loss before the first step is {:.0f} to {:,.0f}.", [loss.min(), loss.max()]),
        ("{:.0f} and {:.0f} % test errors with 8 pictures, {:.0f} and {:.0f} with 32, {:.0f} and {:.0f} with 128",
         [ends[kind, size] for size in (8, 32, 128) for kind in ("plain", "residual")]),
        ("at {:.2f} plain-56 (in batches of 128) ends at {:.0f} % and residual-56 (of 8) at {:.0f}",
         [early["plain", 128], ends["plain", 128], ends["residual", 8]]),
        ("neighbours: at {:.2f} plain-56", [early["residual", 8]]),
        ("at {:.2f} plain-56 (of 2,048) at {:.0f}, at {:.2f} residual-56 (of 32) at {:.0f}",
         [early["plain", 2048], ends["plain", 2048], early["residual", 32], ends["residual", 32]]),
        ("its whole gradients do not ({:.2f})", [whole]),
        ("its batches agree {} times as well as plain-56's", words(shallow[20] / shallow[56], 2, 3, "two to three")),
        ("Around 0.03 six kinds spread from {:.0f} to {:.0f} % test errors", [kinds.min(), kinds.max()]),
        ("it ends at {:.1f} %, where plain-56 ends at {:.1f}", first[[20, 56]]),
        ("As it is plain-56 ends at {:.1f} %; with the sizes made equal at {:.1f} %",
         error[["plain", "plain, equal sizes"]]),
        ("with equal steps at {:.1f} %", [error["plain, equal steps"]]),
        ("gladly, {:.1f} % against {:.1f} %", every[["residual, equal steps", "residual"]]),
        ("the clipped net ends at {:.1f} %", [error["plain, clipped"]]),
        ("rank correlations of {:.2f} and {:.2f}", [rho("agreement", 0), rho("path", 0)]),
        ("come down to {:.1f} and a guess is at 2.3, ranks the kinds as they will end: {:.2f}",
         [best, rho("batch_loss", 20)]),
        ("tells nothing at all ({:.2f})", [rho("agreement", 100)]),
        ("agrees {} times as well as plain", words(spoiler, 8, 12, "ten")),
        ("it ends at {:.1f} %, plain at {:.1f} %", error[["random, matched norm", "plain"]]),
        ("and ends {} points lower",
         words(error["plain"] - error["residual, shortcut times 0.5"], 8.5, 9.5, "nine")),
        ("All kinds that end below {} %",
         words(near.max(), 15, 20, "20") if set(near.index) == set(error.index[error < 20]) else ["?"]),
        ("at the start ({:.2f}; after 100 steps it does go with the end, {:.2f})",
         [rho("rank", 0), rho("rank", 100)]),
        ("plain-56 ends at {:.1f} % training errors, next to residual-56's {:.1f}",
         error[["delta and 0.03 noise", "residual"]]),
    ]


def ended(name, passes=5, column="train_error"):
    """Errors in per cent after the last pass, of the seeds that are reported."""
    table = record(name).query(f"seed > 0 and epochs == {passes} and epoch == {passes}")
    return 100 * table.set_index(["kind", "seed"])[column]


def chapter_07():
    every, delta = ended("suspects"), "delta and 0.1 noise"
    train, test = every.groupby("kind").mean(), ended("suspects", column="test_error").groupby("kind").mean()
    all_bare = ended("without_shortcuts").rename(lambda kind: kind.removeprefix("no norm: "), level="kind")
    bare = all_bare.groupby("kind").mean()
    first = record("without_shortcuts").query("seed == 0").groupby(["kind", "rate"]).train_error.last() * 100
    later = ended("without_shortcuts", 20).groupby("kind").mean()
    later_test = ended("without_shortcuts", 20, "test_error").groupby("kind").mean()
    gpu = record("batch_test").query("kind == 'plain' and batch_size == 128 and rate == 0.03 and epoch == 5")
    gpu = gpu.train_error
    folds = record("without_shortcuts").dropna(subset="net")
    alike = record("without_shortcuts").query("step == 0").groupby("kind").likeness.mean()
    alike = alike.rename(lambda kind: kind.removeprefix("no norm: "))

    def closed(means):
        """Of the gap from plain to residual, what the delta net with matched norm closes, in per cent."""
        return 100 * (means["plain"] - means["delta, matched norm"]) / (means["plain"] - means["residual"])

    wire = train["delta and 0.03 noise"] - train["residual"]
    norm = [bare["delta-orthogonal"] - train["delta and 0.03 noise"], bare["SkipInit"] - train["residual"]]
    return [
        ("No wire, and {:.1f} % instead of {:.1f} %.", train[[delta, "plain"]]),
        ("is still ahead, at {:.1f} %", [train["residual"]]),
        ("on new pictures it is {:.1f} % against {:.1f} %", test[["residual", delta]]),
        ("which is near the identity, ends at {:.1f} %", [train["delta, matched norm"]]),
        ("which is nowhere near it, ends at {:.1f} %", [train[delta]]),
        ("the spoiler, ends at {:.1f} %", [train["random, matched norm"]]),
        ("plain-56 with norm on the GPU end at {:.1f} to {:.1f} %", per_cent(gpu)),
        ("SkipInit trains: {:.1f} %, {} points below plain-56 with norm",
         [bare["SkipInit"], *words(train["plain"] - bare["SkipInit"], 10.5, 11.5, "eleven")]),
        ("not even a wire: {:.1f} %", [bare["delta-orthogonal"]]),
        ("without norm, ends at {:.1f} %", [bare["delta"]]),
        ("*Fixup* gets to {:.0f} and {:.0f} %, and one run of three stays at chance", sorted(all_bare["Fixup"])[:2]),
        ("*Unit variance* ends at {:.0f} to {:.0f} %", [f(all_bare["unit variance"]) for f in (min, max)]),
        ("(a mean cosine of {:.2f}; {:.2f} and {:.2f} in the delta nets)",
         alike[["unit variance", "delta", "delta-orthogonal"]]),
        ("the last two had done well, {:.0f} and {:.0f} %",
         [first["no norm: Fixup", 0.03], first["no norm: unit variance", 0.001]]),
        ("it is worth {} to {} points, with the wire or without",
         [*words(norm[0], 10.5, 11.5, "eleven"), *words(norm[1], 13.5, 14.5, "fourteen")]),
        ("The wire is worth {}, and only beside the norm", words(wire, 2.5, 3.5, "three")),
        ("more than that: {:.1f} % after twenty passes", [later["plain"]]),
        ("was at {:.1f} % after five", [train["residual"]]),
        ("the delta net closes {:.0f} %, {} after five passes: it ends at {:.1f} %",
         [closed(later), *words(closed(later) - closed(train), -0.5, 0.5, "no more and no less than"),
          later["delta, matched norm"]]),
        ("{:.1f} % for plain, {:.1f} % for delta and {:.1f} % for residual",
         later_test[["plain", "delta, matched norm", "residual"]]),
        ("of ten thousand answers {} differ",
         words(2000 * (1 - folds[folds.net == "folded"].equal).sum(), 2.9, 3.1, "three")),
        ("ends at {:.1f} %, behind the delta nets", [bare["RepVGG"]]),
        ("the lead there is {:.1f} points", [later_test["delta, matched norm"] - later_test["residual"]]),
        ("{} points to the best delta net after five passes; {} to the one that was run for twenty",
         [*words(wire, 2.5, 3.5, "three"), *words(later["delta, matched norm"] - later["residual"], 3.5, 4.5, "four")]),
        ("which leaves plain-56 at {:.1f} %", [train["plain"]]),
    ]


def chapter_08():
    table = record("lesions")
    nets = {name: rows for name, rows in table.groupby("net")}

    def right(net, kind="removed", statistics="kept"):
        rows = nets[net][(nets[net].kind == kind) & (nets[net].statistics == statistics)]
        return 100 * (1 - rows.set_index("which").test_error)

    def whole(net):
        rows = nets[net]
        return 100 * (1 - rows[rows.which == "whole"].test_error.item())

    residual, plain, deep = "stored residual-20", "stored plain-20", "residual-56"
    sets = nets[residual].query("kind == 'subset'")
    by_number = 100 * (1 - sets.test_error.groupby(sets["mask"].astype(int).map(int.bit_count)).mean())
    pairs = nets[deep][nets[deep].which.str.count(r"\+") == 1]
    costs = {statistics: whole(deep) - right(deep, "removed", statistics) for statistics in ("kept", "estimated")}
    tenth = right(deep, "scaled", "estimated")["0.9"]
    three = table[table.net.str.endswith("residual-20") & (table.statistics == "estimated")]
    halved = 100 * (1 - three[(three.kind == "scaled") & (three.which == "0.5")].test_error)
    two = nets["residual-20"]
    out = two[(two.kind == "removed") & (two.statistics == "estimated")]
    out, full = (100 * (1 - d2l.by_seed(rows, "test_error", "which")) for rows in (out, two[two.which == "whole"]))
    full = full["whole"]
    rest = out.drop(columns="0.0")
    others = [full.mean(), *(full - out["0.0"]), rest.min(axis=None), rest.max(axis=None)]
    renewed, swapped = right(residual, "removed", "estimated"), right(residual, "swapped", "estimated")
    read = 100 * (1 - record("probes").groupby(["shortcut", "block"])[["probe_error", "exit_error"]].mean())
    probe, exits = read.probe_error.unstack(), read.exit_error.unstack()
    maps = [(seed, directions, depth, kind) for seed, directions in ((0, 1), (0, 2), (1, 2))
            for depth in (20, 56) for kind in (None, "A")]
    maps = [records.recorded_array("landscape", f"{directions} batch", seed=seed, depth=depth, shortcut=kind)
            for seed, directions, depth, kind in maps]
    bowls = [(losses < 1).mean() for losses in maps]
    walls = record("landscape").query("statistics == 'running' and depth == 56").set_index(["directions", "shortcut"])
    walls = walls.highest.unstack()
    return [
        ("from {:.0f} or {:.0f} % behind the first convolution to {:.0f} % at the end",
         [probe[0]["A"], probe[0]["none"], probe[9].mean()]),
        ("where they differ, by {:.1f} points at most", [(probe.loc["none"] - probe.loc["A"]).max()]),
        ("put there, gets {:.0f} % right", [exits[8]["none"]]),
        ("{:.0f} % after block 7, then {:.0f}, then {:.0f}.", exits.loc["A", 7:]),
        ("below 1 on {:.0f} to {:.0f} % of them", per_cent(bowls)),
        ("over {} times as high as residual-56", words((walls.none / walls.A).min(), 200, 250, "200")),
        ("and gets {:.1f} % of 10,000 test pictures right", [whole(residual)]),
        ("Without its first block the net gets {:.0f} % right", [right(residual)["0.0"]]),
        ("Without its ninth it gets {:.0f} %", [right(residual)["2.2"]]),
        ("which gets as many pictures right: {:.1f} %", [whole(plain)]),
        ("the plain net falls to {:.0f} %, and no block leaves more than {:.0f} %",
         [right(plain).mean(), right(plain).max()]),
        ("any block can go, and {:.0f} to {:.0f} % of the answers stay right", [renewed.min(), renewed.max()]),
        ("neighbours can change places, and {:.0f} to {:.0f} % do", [swapped.min(), swapped.max()]),
        ("it comes back half-way, to {:.0f} and {:.0f} %", right(plain, "removed", "estimated").iloc[:2]),
        ("and to {:.0f}, {:.0f} and {:.0f} % with new ones", halved),
        ("(In the other two nets, which get {:.0f} %, the first block still costs {:.0f} and {:.0f} points; "
         "without any other they keep {:.0f} to {:.0f} %.)", others),
        ("and leaves {:.0f} % right with the old averages and {:.0f} %", [right(deep, "scaled")["0.9"], tenth]),
        ("two blocks fewer leave {:.0f} % on average", [100 * (1 - pairs.test_error.mean())]),
        ("Two blocks fewer leave {:.0f} % on average, three {:.0f} %", by_number[[2, 3]]),
        ("in residual-56 the first costs {:.0f} points and the last {:.1f} (with new averages {:.1f} and {:.1f})",
         [cost.iloc[i] for cost in costs.values() for i in (0, -1)]),
        ("Without its first block the stored residual net gets {:.0f} % right, without its ninth {:.0f} %",
         right(residual)[["0.0", "2.2"]])]


def chapter_09():
    table = record("super_resolution")
    by_rule = table[table.depth == 0].set_index(["pictures", "arm"]).psnr
    runs = table[(table.seed > 0) & (table.step == 300)]
    ends = {key: rows.set_index("seed").psnr for key, rows in runs.groupby(["pictures", "arm", "depth"])}
    picture, difference = ({depth: ends["clothes", arm, depth] for depth in (2, 4, 8, 16, 32)}
                           for arm in ("picture", "difference"))
    lead = {depth: difference[depth] - picture[depth] for depth in picture}
    shallow = np.concatenate([lead[depth] for depth in (2, 4, 8)])
    ahead = sum((ends["clothes", "delta start", depth] > picture[depth]).sum() for depth in picture)
    chosen = runs[(runs.pictures == "clothes") & (runs.depth <= 16)].groupby(["arm", "depth"]).lr.first()
    seed_0 = table[(table.seed == 0) & (table.step == 300)].set_index(["pictures", "arm", "depth", "lr"]).psnr
    bicubic, linear = (by_rule["nature", rule] for rule in ("bicubic", "linear"))
    array = functools.partial(records.recorded_array, "super_resolution")

    def span(arm, depth):
        return [ends["clothes", arm, depth].min(), ends["clothes", arm, depth].max()]

    def read(arm, depth, after, seeds=(1, 2, 3, 4)):
        return sorted(100 * array("readable", pictures="clothes", arm=arm, depth=depth, seed=seed)[after][-1]
                      for seed in seeds)

    def kept(name, arm, depth=0, lr=0.0):
        return array(name, pictures="nature", arm=arm, depth=depth, lr=lr, seed=0) / 255

    def squared(*made):
        return np.square(kept("made", *made) - kept("truth", "bicubic")).mean((1, 2))

    def decibels(error):
        return -10 * np.log10(error)

    nets = [squared("difference", 4, 0.003), squared("bicubic")]
    return [
        ("In the end: {:.1f} to {:.1f} dB with 8 layers, {:.1f} to {:.1f} with 32",
         span("picture", 8) + span("picture", 32)),
        ("in each seed, by {:.1f} to {:.1f} dB", [lead[32].min(), lead[32].max()]),
        ("it is ahead in {} of {} pairs, by a median of {:.1f} dB",
         [(shallow > 0).sum(), len(shallow), np.median(shallow)]),
        ("Two seeds end ahead, by {:.1f} and {:.1f} dB", sorted(lead[16][lead[16] > 0])),
        ("fall to {:.1f} and {:.1f} dB", sorted(difference[16][lead[16] < 0])),
        ("gets {:.1f} dB at it", [seed_0["clothes", "difference", 16, chosen["difference", 16]]]),
        ("its median is {:.1f} dB above nearest, {:.1f} above bicubic and {:.1f} above the linear map",
         [difference[8].median() - by_rule["clothes", rule] for rule in ("nearest", "bicubic", "linear")]),
        ("it has {:.1f} to {:.1f} dB, and the blocks, which beat it in each seed, {:.1f} to {:.1f}",
         span("difference", 32) + span("blocks", 32)),
        ("has {:.1f} to {:.1f} dB with 32 layers. It is ahead of the picture net at each depth in each seed, {} times",
         [*span("delta start", 32), ahead]),
        ("with 16 layers it has {:.1f} to {:.1f} dB", span("delta start", 16)),
        ("Of the {} nets of up to 16 layers {} chose", [len(chosen), (chosen == 0.01).sum()]),
        ("{:.0f} to {:.0f} % of it can be read with 8 layers, {:.0f} to {:.0f} % with 16, {:.0f} to {:.0f} % with 32",
         [read("picture", depth, 0)[i] for depth in (8, 16, 32) for i in (0, -1)]),
        ("the picture net ends with {:.0f} to {:.0f} %", [read("picture", 32, 1)[i] for i in (0, -1)]),
        ("end with {:.0f} and {:.0f} %, the other two with {:.0f} and {:.0f} %, and all four within {:.1f} dB",
         [*read("difference", 4, 1), difference[4].max() - difference[4].min()]),
        ("fell to bicubic end with {:.0f} and {:.0f} %", read("difference", 16, 1, lead[16].index[lead[16] < 0])),
        ("end {:.1f} and {:.1f} dB *below* bicubic", sorted(bicubic - ends["nature", "picture", 4])),
        ("it ends {:.1f} and {:.1f} dB below bicubic", sorted(bicubic - ends["nature", "difference", 16])),
        ("with 16 layers: {:.1f} dB)", [ends["nature", "picture", 16].min()]),
        ("which bicubic gets to {:.0f} dB", [decibels(nets[1])[10]]),
        ("Of the twelve that were kept {} are like that",
         words((decibels(nets[1]) > 45).sum(), 4, 5, "four")),
        ("is ahead of bicubic, {:.1f} to {:.1f}", [decibels(error.mean()) for error in nets]),
        ("it is behind, {:.1f} to {:.1f}", [decibels(error).mean() for error in nets]),
        ("bicubic has {:.1f} dB here and the linear map {:.1f}", [bicubic, linear])]


def chapter_10():
    runs = record("transfer").fillna({"choosing_error": 0.9, "test_error": 0.9})
    runs = runs.groupby(["arm", "examples", "setting"])[["choosing_error", "test_error"]].mean()
    errors = runs.loc[runs.groupby(["arm", "examples"]).choosing_error.idxmin()].droplevel("setting").test_error
    lead = [100 * (errors["scratch", n] - errors["fine-tuned", n]) for n in (5, 100)]
    full = record("fashion_mnist").query("recipe == 'book' and shortcut == 'A' and seed == 0")
    arithmetic = [getattr(models, f"ResNet{depth}_Weights").IMAGENET1K_V1.meta["_ops"] for depth in (18, 152)]
    right = {name: getattr(models, f"ResNet{name[:-3]}_Weights")[f"IMAGENET1K_{name[-2:]}"].meta["_metrics"][
        "ImageNet-1K"]["acc@1"] for name in ("18 V1", "152 V1", "50 V1", "50 V2")}
    latency = record("latency").pivot(index="seed", columns=["batch", "net"], values="processor_ms")
    took, groups = latency.median(), latency[64, "resnext50_32x4d"] / latency[64, "resnet50"]
    return [
        ("With five of each it is {:.0f} points", lead[:1]),
        ("with a hundred {} a point", words(lead[1], 0.3, 0.7, "half")),
        ("which gets {:.1f} % of the", [100 * (1 - full.test_error[full.epoch == full.epoch.max()].item())]),
        ("yes: {:.1f} times the multi", [arithmetic[1] / arithmetic[0]]),
        ("{:.1f} times the arithmetic buys {} points",
         [arithmetic[1] / arithmetic[0], *words(right["152 V1"] - right["18 V1"], 8.4, 8.6, "eight and a half")]),
        ("A better recipe for the same ResNet-50 buys {}",
         words(right["50 V2"] - right["50 V1"], 4.6, 5, "nearly five")),
        ("ResNet-50 takes {} as long with", words(took[64, "resnet50"] / took[64, "resnet34"], 1.9, 2.1, "twice")),
        ("groups cost {:.1f} to {:.1f} times", [groups.min(), groups.max()])]


def chapter_11():
    cost = record("depth_cost").groupby(["kept", "depth"]).median(numeric_only=True).xs(1202, level="depth")
    took = record("depth_cost").pivot(index=["depth", "seed"], columns="kept", values="processor_ms")
    saved = 1 - cost.peak_MiB / cost.peak_MiB["all"]
    runs = record("preactivation")
    ends = runs[runs.epoch == runs.groupby("depth").epoch.transform("max")]
    seeds = ends.groupby(["depth", "order", "lr"]).seed.transform("size")
    best = ends[seeds > 1].pivot(index="seed", columns=["depth", "order"]) * 100
    new, trained = (best[error].xs("original", axis=1, level="order") - best[error].xs("pre-activation", axis=1,
                    level="order") for error in ("test_error", "train_error"))
    broken = ends[(ends.order == "original") & (ends.lr == 0.1) & (ends.depth > 20)].set_index("depth").train_error
    ahead = [int(sum(new[depth] > 0)) for depth in (56, 110)]
    one = ends[(ends.lr == 0.03) & (ends.seed == 0) & (ends.width == 16)].pivot(index="depth", columns="order")
    first = all((one[error]["original"] < one[error]["pre-activation"]).all()
                for error in ("test_error", "train_error"))
    deep = [best[error][164, order].mean() for error in ("train_error", "test_error")
            for order in ("pre-activation", "original")]
    return [
        ("24 runs keep {:.0f} maps instead of {:,}", [24 + 4 * 600 / 24 - 1, 4 * 600]),
        ("1,202 layers take {:.0f} MiB. The square root saves a {} of that, a checkpoint for every block {:.0f} %",
         [cost.peak_MiB["all"], *words(saved["sqrt"], 0.3, 0.37, "third"), 100 * saved["block"]]),
        ("and take {:.0f} MiB each", [cost.parameters["all"] * 4 / 2**20]),
        ("{:.0f} MiB of numbers, occupies {:.0f}.", [cost.parameters["all"] * 4 / 2**20, cost.weights_MiB["all"]]),
        ("{:.1f} times as long at the median", [(took["sqrt"] / took["all"]).median()]),
        ("pre-activation is ahead in {} of 3 seeds, by {:.1f} and {:.1f} points on average. But these are {:.0f} and "
         "{:.0f} of 2,000 pictures", [min(ahead), *new[[56, 110]].mean(), *20 * new[[56, 110]].mean()]),
        ("behind at 56 layers and {} at 110", words(trained[110].mean(), -0.5, 0.5, "level")),
        ("It has {:.1f} % of the training pictures wrong against {:.1f}, and {:.1f} % of the new ones against {:.1f}",
         deep),
        ("the original order is *{}* at every depth", ["ahead" if first else "?"]),
        ("({:.0f}, {:.0f} and {:.0f} % of the training pictures wrong, one run each)", 100 * broken[[56, 110, 164]]),
    ]


def appendix_a():
    recipes = d2l.by_seed(record("degradation_rate").query("epoch == 10"), "train_error", "recipe", depth=56, lr=0.1,
                          shortcut="none")
    short = record("degradation").query("epoch == 4 and depth == 56 and shortcut == 'none'")
    others = short[(short.precision == "bfloat16") & (short.seed > 0)].train_error
    long = record("degradation_long").query("epoch == 12")
    lower = long.query("lr == 0.03 and depth == 56 and shortcut == 'none'").train_error
    long = long[long.lr == 0.1]
    ends = d2l.by_seed(long, "train_error", ["shortcut", "depth"])
    tests = d2l.by_seed(long, "test_error", ["shortcut", "depth"]).mean()
    strays = record("degradation_rate").query(
        "epoch == 10 and depth == 56 and shortcut == 'A' and lr == 0.1 and recipe == 'standard'").train_error
    lead = ends["A", 20].mean() - ends["A", 56].mean()
    eight = record("strays").query("arm == 'clipped' and epoch == 10").train_error
    spike = record("strays").query("arm == 'as is' and seed == 12 and epoch == 3").iloc[0]
    return [
        ("all end between {:.1f} and {:.1f} %", per_cent(eight)),
        ("seed 12 stands at {:,.0f} with them and at {:.2f} without. But {:.2f} is",
         [spike.train_loss, spike.train_mode_loss, spike.train_mode_loss]),
        ("{:.1f} to {:.1f} % as is", per_cent(recipes["standard"])),
        ("{:.1f} to {:.1f} % with the long warm-up", per_cent(recipes["long warm-up"])),
        ("{:.1f} to {:.1f} % clipped", per_cent(recipes["clipped"])),
        ("the other seeds end between {:.1f} and {:.1f} %", per_cent(others)),
        ("its one long run ends at {:.1f} %", [100 * lower.iloc[0]]),
        ("a lead of {:.1f} points", [100 * lead]),
        ("which is {:.0f} % fewer errors", [100 * lead / ends["A", 20].mean()]),
        ("the two are level, at {:.1f} %", [100 * tests["A", 56]]),
        ("the two are level, at {:.1f} %", [100 * tests["A", 20]]),
        ("in the figure of rates above, end at {:.0f}, {:.0f} and {:.0f} %", sorted(100 * strays.iloc[:3])),
    ]


def appendix_b():
    speeds = record("throughput").groupby(["processor", "measure"])
    speed, other = (speeds.value.mean()[name] for name in ("2 x Intel(R) Xeon(R) Processor", "2 x AMD EPYC"))
    gflops = speeds.gflops.mean()["2 x Intel(R) Xeon(R) Processor"]
    book = record("fashion_mnist").query("recipe == 'book' and shortcut == 'A'")
    seconds = [run.seconds[run.epoch <= run.epoch[run.val_error <= 0.08].min()].sum()
               for _, run in book.groupby("seed")]
    big = record("textbook").query("val_error <= 0.08").epoch.min() * 55_000 / speed["fit: bfloat16"]
    on_maps = gflops["convolution: 3x3 bfloat16"] / gflops["matmul: bfloat16"]
    return [
        ("keeps most of its weights, {:.0f} %", [100 * on_maps]),
        ("on the same net {:.1f} times as fast", [speed["+ small maps side by side"] / speed["+ fused optimiser"]]),
        ("on the Xeon, again {:.1f} times", [speed["+ kept memory"] / speed["+ small maps side by side"]]),
        ("takes {:.0f} ms, one of residual-110 {:.0f} ms", [speed["depth: 20"], speed["depth: 110"]]),
        ("as fast; on the EPYC a little less, {:.1f} times",
         [other["+ kept memory"] / other["+ small maps side by side"]]),
        ("{:.1f} times as fast on the Xeon, {:.1f} times on the EPYC",
         [where["fit: bfloat16"] / where["textbook"] for where in (speed, other)]),
        ("a cycle of 14 epochs instead of 5: {:.1f} to {:.1f} times", [big / max(seconds), big / min(seconds)]),
    ]


SAID = {"01_degradation": chapter_01, "02_identity": chapter_02, "04_resnet": chapter_04, "05_training": chapter_05,
        "06_gradients": chapter_06, "07_without_shortcuts": chapter_07, "08_inside": chapter_08,
        "09_super_resolution": chapter_09, "10_pretrained": chapter_10, "11_thousand_layers": chapter_11,
        "A_fair_race": appendix_a, "B_speed": appendix_b}


@pytest.mark.parametrize("page", SAID)
def test_the_prose_says_what_was_measured(page):
    text = prose(ROOT / "chapters" / f"{page}.ipynb")
    said = [template.format(*numbers) for template, numbers in SAID[page]()]
    assert said
    assert [sentence for sentence in said if sentence not in text] == []


def test_most_numbers_are_read():
    """At least eight in ten results in the prose of all pages are compared with what made them."""
    open_ones, read = [], 0
    for path in CHAPTERS:
        text = prose(path)
        for quoted in QUOTED.get(path.stem, ()):
            assert quoted in text, f"{path.stem} no longer says {quoted!r}"
            text = text.replace(quoted, "")
        said = [template.format(*numbers) for template, numbers in SAID.get(path.stem, list)()]
        compared = [match.span() for sentence in said for match in re.finditer(re.escape(sentence), text)]
        for match in RESULT.finditer(text):
            if any(a < match.end() and match.start() < b for a, b in compared):
                read += 1
            elif match.group() not in SETTINGS and not PICTURES.fullmatch(match.group()):
                open_ones.append(f"{path.stem}: ...{text[max(0, match.start() - 50):match.end() + 10]}")
    print(f"{read} read; not read:", *open_ones, sep="\n")
    assert read >= 0.8 * (read + len(open_ones))
