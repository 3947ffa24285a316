"""train_lab(): runs in processes of their own, which leave the notebook alone and end when they are told to."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import ipywidgets as widgets
import pytest
import torch
from matplotlib.figure import Figure

import d2l_utils as d2l
from d2l_utils import plots
from d2l_utils.book import lab

PATIENCE = 200          # seconds: importing torch in a new process takes long on a busy machine


def little(n=64):
    """`n` images at 14x14: at 64, an epoch of plain-8 takes well under a second."""
    data = d2l.fashion_mnist(size=14, device="cpu")
    return d2l.FashionMNIST(data.X_train[:n], data.y_train[:n], data.X_test[:8], data.y_test[:8])


def wait_until(true):
    """Wait until `true()`, looking often; fail after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.01)


def finish(bench):
    bench.follower.join(PATIENCE)
    assert not bench.follower.is_alive()
    assert not bench.process.is_alive()
    assert (bench.run_button.disabled, bench.stop_button.disabled) == (False, True)


def set_to(bench, **settings):
    for name, value in settings.items():
        bench.settings[name].value = value


def expected_errors(data, epochs, seed):
    """The training errors of plain-8, as fit finds them in this process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = d2l.small_resnet(8, None)
    return list(d2l.fit(net, data, epochs, seed=seed, progress=False).train_error)


def test_a_run_is_what_fit_does_and_disturbs_nothing_and_curves_stay():
    data = little()
    bench = lab.Lab(data)
    set_to(bench, epochs=2, seed=3)
    torch.manual_seed(1)
    first = torch.rand(2)
    torch.manual_seed(1)
    bench.run_button.click()
    process = bench.process
    assert (bench.run_button.disabled, bench.stop_button.disabled) == (True, False)
    bench.run_button.click()                                     # one at a time
    assert bench.process is process
    assert len(bench.runs) == 1
    finish(bench)
    assert torch.equal(torch.rand(2), first)                     # the notebook's random numbers are its own
    assert not data.X_train.is_shared()
    assert bench.runs[0]["errors"] == expected_errors(data, 2, seed=3)
    assert "plain 8, rate 0.1, seed 3: epoch 2 of 2, training error" in bench.message.value
    set_to(bench, shortcut="A", norm=False, epochs=1)
    bench.run_button.click()
    finish(bench)
    assert [len(run["errors"]) for run in bench.runs] == [2, 1]
    for label in ("plain 8, rate 0.1, seed 3", "residual 8 without norm, rate 0.1, seed 3"):
        assert label in bench.picture.value
    assert 'aria-label="Training error of 2 runs, epoch by epoch."' in bench.picture.value


def test_stop_ends_a_run_at_once_and_keeps_its_curve():
    bench = lab.Lab(little(10_000))
    set_to(bench, depth=56, epochs=10)
    bench.run_button.click()                                     # stopped before it has drawn anything
    bench.stop_button.click()
    finish(bench)
    assert "plain 56, rate 0.1, seed 0: stopped after 0 of 10 epochs" in bench.message.value
    assert bench.process.exitcode != 0
    assert bench.picture.value == ""
    bench = lab.Lab(little())
    bench.settings["epochs"].max = bench.settings["epochs"].value = 10**6
    bench.run_button.click()
    wait_until(lambda: bench.runs[0]["errors"])
    bench.stop_button.click()
    finish(bench)
    done = len(bench.runs[0]["errors"])
    assert f"stopped after {done} of 1000000 epochs" in bench.message.value
    assert "plain 8, rate 0.1, seed 0" in bench.picture.value


def test_a_run_that_diverges_and_one_that_fails_say_so():
    bench = lab.Lab(little(640))
    bench.settings["lr"].options = [0.1, 1e30]
    set_to(bench, lr=1e30, norm=False, epochs=1)
    bench.run_button.click()
    finish(bench)
    assert "plain 8 without norm, rate 1e+30, seed 0: the loss is not a finite number" in bench.message.value
    assert bench.picture.value == ""
    bench.settings["depth"].options = [8, 9]
    set_to(bench, depth=9, norm=True, lr=0.1)
    bench.run_button.click()
    finish(bench)
    assert "plain 9, rate 0.1, seed 0: ValueError: depth must be 6n+2" in bench.message.value


def test_a_process_that_is_killed_is_said_to_be():
    bench = lab.Lab(little())
    bench.run_button.click()
    bench.process.kill()
    finish(bench)
    assert "its process ended with exit code -9 after 0 of 3 epochs" in bench.message.value


ORPHAN = """
import os
from d2l_utils.book import lab
from test_lab import little, wait_until
bench = lab.Lab(little())
bench.settings["epochs"].max = bench.settings["epochs"].value = 10**6
bench.run()
wait_until(lambda: bench.runs[0]["errors"])
print(bench.process.pid, flush=True)
os._exit(0)                                     # no clean-up, as when a kernel is killed
"""


def test_no_run_outlives_its_kernel():
    path = os.pathsep.join(filter(None, [os.path.dirname(__file__), os.environ.get("PYTHONPATH")]))
    kernel = subprocess.run([sys.executable, "-c", ORPHAN], env=os.environ | {"PYTHONPATH": path},
                            stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE)

    def gone():
        try:
            os.kill(int(kernel.stdout), 0)
        except ProcessLookupError:
            return True
        return False

    wait_until(gone)


def test_with_a_kernel_the_lab_is_widgets_on_the_data_given(shown):
    d2l.train_lab(little(), recorded=lambda: None, depth=[8, 20])
    assert isinstance(shown[0], widgets.VBox)
    with pytest.raises(TypeError, match="data must be a FashionMNIST or None, got SimpleNamespace"):
        d2l.train_lab(SimpleNamespace(X_train=1))


def test_in_the_book_the_lab_shows_what_was_recorded_and_the_way_to_colab(shown, monkeypatch):
    def trained(depth):
        fig = Figure()
        fig.subplots().plot([0, depth], color=plots.PLAIN)
        return fig, f"Plain {depth}."

    monkeypatch.setenv("D2L_BOOK", "1")
    monkeypatch.setenv("D2L_COLAB", "https://colab.example/main/")
    d2l.train_lab(recorded=trained, notebook="chapters/a&b.ipynb", depth=[8, 20])
    d2l.train_lab()
    trainer, explored, link, _, alone = (output.data for output in shown)
    assert 'class="trainer"' in trainer                  # web/trainer.js brings it to life
    assert 'id="trained"' in explored
    assert "Plain 8." in explored
    assert 'href="https://colab.example/main/chapters/a&amp;b.ipynb"' in link
    assert 'href="https://colab.example/main/chapters/01_degradation.ipynb"' in alone
