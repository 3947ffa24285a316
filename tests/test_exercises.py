"""Every exercise of every chapter, from the notebooks' cells: its checker needs no more than the set-up cell's imports,
knows an unanswered exercise, the chapter's own solution, and wrong answers, and gives nothing away."""

import ast

import nbformat
import pytest
from chapter_rules import Chapter, pages, tags, tree

import d2l_utils as d2l

IMPORTS, DEFINITIONS = (ast.Import, ast.ImportFrom), (ast.FunctionDef, ast.ClassDef)
# chapter and checker: wrong answers, and for those that must be told apart a piece of the reply
WRONG = {
    "01_degradation check_copy": [
        ((1, 0), "mean 0.00 and deviation 1.00"), ((1.5, 6), "gives back 3X"), ((2, 0.5), "mean 0.50"),
        ((0.5, 0), "No")],
    "01_degradation check_names": [
        (("overfit", "slow", "degraded"), "No"), (("overfit", "overfit", "slow"), "overfitting"),
        (("overfit", "slow", "slow"), "look alike"), (("slow", "degraded", "slow"), "No")],
    "01_degradation check_seeds": [
        (3, "12.5%"), (5, "32 times"), (6, "1.6%"), (8, "either net"), (10, "smaller"), (100, "hundred heads")],
    "02_identity check_copy": [
        ((1, 0, 1, 0), "without a first bias"), ((1, 3, 1, 0), "shifted by 3.00"),
        ((1, 1, 1, -1), "Lift them higher"), ((1, 3, 2, -6), "another scale")],
    "02_identity check_descents": [
        ([0, 0, 1], "(0, 0)"), ([1, 1, 1], "(1, 1)"), ([1, 0, 0], "(0.5, -0.5)"),
        ([1, 0, float("nan")], "(0.5, -0.5)")],
    "02_identity check_zero": [
        ("both", "passes on"), ("conv1", "ReLU let back"), ("none", "one of the three")],
    "03_residual_block check_cost": [
        ((0, 1024, 1024), "shape changes"), ((0, 0, 1024), "batch norm too"),
        ((0, 0, 1056), "no bias"), ((1088, 0, 0), "count")],
    "03_residual_block check_edits": [
        (("same", "same", "same"), "not q"), (("raises", "raises", "raises"), "not p"),
        (("same", "raises", "different"), "not r")],
    "03_residual_block check_start": [
        (lambda X: X, "negative numbers"), (lambda X: 0 * X, "zeros"), (abs, "zeros")],
    "04_resnet check_strides": [
        (lambda net: True, "(3, 4)"), (lambda net: False, "rejects a right net"),
        (lambda net: net.stages[3][0].conv1.stride == (2, 2), "(2,)"),
        (lambda net: net.stages[1][0].conv1.stride == net.stages[2][0].conv1.stride, "(4,)")],
    "04_resnet check_110": [
        ((17, 111), "6n + 2"), ((18, 109), "adds projections"), ((18, 112), "linear"),
        ((18, 163), "option C"), ((18, 110), "No")],
    "04_resnet check_moved_stride": [
        ((-6, -6), "weights"), ((0, 0), "places"), ((0, 6), "fewer"), ((0, -50), "count")],
    "05_training check_score": [
        (lambda history: history.test_error.min(), "judge"),
        (lambda history: history.val_error.min(), "its best one"),
        (lambda history: history.val_error[history.test_error.idxmin()], "chose"),
        (lambda history: history.test_error[0], "No")],
    "05_training check_bar": [
        ((2.2, False), "1 / sqrt(n)"), ((0.0, False), "root"), ((1.1, True), "sqrt(p (1 - p) / n)"),
        ((0.8, True), "difference")],
    "05_training check_state": [
        (("same", "other", "other", "same"), "which epoch"), (("other", "same", "other", "same"), "schedule"),
        (("other", "other", "same", "same"), "optimiser"), (("other",) * 4, "buffers")],
    "06_gradients check_scaled": [
        ((10, 0.1, 0.01), "divide by"), ((1, 10, 1), "must each move"), ((1, 1, 0.1), "direction only"),
        ((1, 0.1, 0.1), "shorter gradient")],
    "06_gradients check_length": [
        (3.5, "not along"), (0.5, "not against"), (2.0, "step's length"), (1.5, "how long is the step")],
    "06_gradients check_spoiler": [
        ("low-bad", "predicts"), ("high-good", "predicts this"), ("later", "about the start"),
        ("both", "one of the four")],
    "07_without_shortcuts check_decay": [
        ((1.2, 1.19), "a twentieth"), ((1.14, 0.19), "that is V"), ((1.14, 1.14), "How large was it"),
        ((1.14, 1.2), "How large was it")],
    "07_without_shortcuts check_folded": [
        ((-1, -1.5), "a kernel too"), ((0, -1.5), "of its own"), ((0.5, -1.5), "as often as"), ((1, -2), "Three norms"),
        ((1, -4), "after it has multiplied")],
    "07_without_shortcuts check_zero_factor": [
        (("both", "both"), "multiplied by"), (("neither", "factor"), "not zero"), (("factor", "factor"), "the second"),
        (("factor", "kernels"), "the second")],
    "08_inside check_stale": [
        ("before", "does not notice"), ("own", "thrown away"), ("all", "upstream"), ("both", "one of the four")],
    "08_inside check_paths": [
        ((6, 2**26), "all paths"), ((64, 26), "all paths"), ((170, 2**26), "each of the three"),
        ((64, 2**27), "what share")],
    "08_inside check_better": [
        (([1], 1), "out already"), (([], 1), "costs 69.8 points"), (([9], 1), "points more"),
        (([1, 6], 8), "only by")],
    "09_super_resolution check_decibels": [
        ((3, 3), "not half its square"), ((5, 6), "a factor of two"), ((3, 5), "square of an error")],
    "09_super_resolution check_better": [
        (("B", "B"), "four logarithms"), (("A", "A"), "largest by far"), (("C", "B"), "answer with")],
    "09_super_resolution check_added": [
        (("wrong", "wrong", "wrong"), "neither is 1"), (("raises", "right", "wrong"), "from the right"),
        (("raises", "wrong", "right"), "one channel")],
    "10_pretrained check_frozen": [
        (("same", "same", "same", "other"), "not a parameter"), (("other", "other", "other", "other"), "freeze do"),
        (("same", "other", "other", "other"), "freeze do"), (("same", "same", "other", "same"), "after the freeze")],
    "10_pretrained check_groups": [
        (147_456, "without groups"), (36, "one output"), (1_152, "128 groups"), (144, "one group"), (0, "128 / 32")],
    "10_pretrained check_report": [
        ("fine-tuned", "better than"), ("deeper", "another question"), ("more test pictures", "far enough"),
        ("scratch", "one of the four")],
    "11_thousand_layers check_runs": [
        (1, "all blocks"), (7, "by nine"), (20, "more than its input"), (400, "single block"), (61, "write down")],
    "11_thousand_layers check_stream": [
        ((27, 27), "in the branches"), ((54, 0), "one is in the branch"), ((56, 0), "not blocks"),
        ((9, 0), "one stage"), ((28, 0), "how many sums")],
    "11_thousand_layers check_step": [
        (lambda f, x, h: x + h * f(x), "Euler's"), (lambda f, x, h: x, "does not fall"),
        (lambda f, x, h: x + h / 2 * f(x + h / 2 * f(x)), "does not fall")],
    "B_speed check_bottleneck": [(25, "everything"), (15, "only the part"), (40, "still"), (100, "add up")],
    "B_speed check_wide": [
        ((192, 0), "mix"), ((320, 0.4), "one of zeros"), ((256, 1 / 3), "one picture"), ((256, 0.75), "share")],
    "B_speed check_arrived": [
        ("A is 1.7 times as fast", "when did B"), ("B never gets there", "watched"), ("B is faster", "choose")],
    "C_scaling_out check_split": [
        (["same"] * 4, "(b)"), (["different"] * 4, "(a)"),
        (["same", "different", "different", "same"], "(c)"),
        (["same", "different", "same", "different"], "(d)")],
    "C_scaling_out check_steps": [
        ((79, 79), "uses up"), ((20, 20), "shared"), ((316, 79), "together"), ((78, 19), "smaller")],
    "A_fair_race check_edge": [
        ("best", "lower rates"), ("worst", "luck"), ("nothing", "possible"), ("bounds", "one of the four")],
    "A_fair_race check_upset": [
        ((20, 20), "ahead by 5 points"), ((56, 20), "ahead by 26 points"), ((56, 56), "ahead"), ((8, 20), "20 or 56")],
}


def found():
    """{"chapter checker": (chapter, index of its checker's cell)}"""
    exercises = {}
    for path in pages()[1:]:
        chapter = Chapter(nbformat.read(path, as_version=4), path)
        for i, cell in enumerate(chapter.code):
            if "exercise-check" in tags(cell):
                [name] = [node.name for node in tree(cell).body if getattr(node, "name", "").startswith("check_")]
                exercises[f"{path.stem} {name}"] = chapter, i
    return exercises


EXERCISES = found()


def code(nodes, names):
    """Run these statements."""
    exec(compile(ast.Module(nodes, []), "exercise", "exec"), names)


def checker(key):
    """The checker, made from its own cell with the set-up cell's imports and nothing else."""
    chapter, i = EXERCISES[key]
    names = {"d2l": d2l}
    imports = [node for cell in chapter.tagged("setup") for node in tree(cell).body if isinstance(node, IMPORTS)]
    code([*imports, *tree(chapter.code[i]).body], names)
    return names, names[key.split()[1]]


def made(node):
    """The names that a statement makes."""
    if isinstance(node, IMPORTS):
        return {alias.asname or alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, DEFINITIONS):
        return {node.name}
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}


def solution(key):
    """The chapter's solution, what the last line of its cell shows to the checker: run with those lines of the cell,
    and those definitions and imports above it, that it needs."""
    chapter, i = EXERCISES[key]
    *own, last = tree(chapter.code[i + 2]).body
    known = (*IMPORTS, *DEFINITIONS)
    above = [node for cell in chapter.code[:i] for node in tree(cell).body if isinstance(node, known)]
    answer, kept = last.value.args[0].args[0], []                       # print(check_NAME(answer))
    needed = {part.id for part in ast.walk(answer) if isinstance(part, ast.Name)}
    for node in reversed([*above, *own]):
        if made(node) & needed:
            kept.insert(0, node)
            needed |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    names, _ = checker(key)
    code(kept, names)
    return eval(compile(ast.Expression(answer), "solution", "eval"), names)


def test_every_exercise_has_wrong_answers():
    assert WRONG.keys() == EXERCISES.keys()
    assert all(len(wrong) >= 2 for wrong in WRONG.values())


@pytest.mark.parametrize("key", EXERCISES)
def test_exercise_knows_right_from_wrong(key):
    check, right = checker(key)[1], solution(key)
    assert check(None) == "not answered yet"
    assert check(right).startswith("Right")
    for answer, piece in WRONG[key]:
        said = check(answer)
        assert not said.startswith(("Right", "not answered yet")), answer
        assert piece in said, answer
        assert str(right).strip("([{}])") not in said, "the reply gives the answer away"
