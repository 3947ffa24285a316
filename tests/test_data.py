"""Fashion-MNIST: what is bundled, where the full set comes from, damaged files, downloads, order, augmentation."""

import gzip
import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import collect_sockets
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import FashionMNIST as Published

import d2l_utils as d2l
from d2l_utils import data
from d2l_utils.engine import sources
from d2l_utils.engine.hardware import choose_device

CONTENT = "4084017359325b0b158fe7759bc20781f98a81c5bd2d091c099af840dbce1625"   # of the four arrays, one after the other


def digest(arrays):
    """SHA-256 of the arrays' bytes."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


# What is bundled

def test_bundled_subset_is_the_first_images_of_the_full_set():
    bundled = data.read_bundled()
    assert [array.shape for array in bundled] == [(10_000, 28, 28), (10_000,), (2_000, 28, 28), (2_000,)]
    assert digest(bundled) == CONTENT
    if all((data.DEBIAN / name).is_file() for name in data.FILES):      # where it is there, from the source itself
        full = data.read_full()
        assert [len(array) for array in full] == [60_000, 60_000, 10_000, 10_000]
        assert all((part == whole[:len(part)]).all() for part, whole in zip(bundled, full, strict=True))


def test_fashion_mnist_gives_uint8_images_and_int64_labels():
    images = d2l.fashion_mnist(device="cpu")
    assert images.X_train.shape == (10_000, 1, 28, 28)
    assert images.X_train.dtype == images.X_test.dtype == torch.uint8
    assert images.y_train.shape == (10_000,)
    assert images.y_train.dtype == torch.int64
    assert set(images.y_train.tolist()) == set(range(len(images.classes)))


def test_size_14_is_the_mean_of_2x2_squares():
    small, X = d2l.fashion_mnist(size=14, device="cpu").X_test, d2l.fashion_mnist(device="cpu").X_test
    mean = X.double().reshape(-1, 1, 14, 2, 14, 2).mean((3, 5))
    assert small.dtype == torch.uint8
    assert ((small - mean).abs() <= 0.5).all()


def test_normalised_pixels_have_mean_0_and_deviation_1():
    X = data.normalise(d2l.fashion_mnist(device="cpu").X_train)
    assert abs(X.mean()) < 0.01
    assert abs(X.std() - 1) < 0.01
    assert data.normalise(X) is X


# Arguments

@pytest.mark.parametrize("size", [15, 0, "28", None])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match=f"size must be 14 or 28, got {size!r}"):
        d2l.fashion_mnist(size=size)


def test_unknown_device_is_refused_with_those_allowed():
    with pytest.raises(ValueError, match=r"device must be one of cpu.* on this machine, got 'tpu'"):
        d2l.fashion_mnist(device="tpu")


def test_d2l_device_is_read_when_called_and_the_argument_wins(monkeypatch):
    monkeypatch.setenv("D2L_DEVICE", "abacus")
    with pytest.raises(ValueError, match=r"D2L_DEVICE must be one of cpu.*got 'abacus'"):
        d2l.fashion_mnist()
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("D2L_DEVICE", "cpu")
    assert d2l.fashion_mnist().X_train.device == torch.device("cpu")


# The full set: a tiny one in its place, served by a real server on this machine

@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The folder of a full set of 60 and 10 random images in the original format, which is taken for the original."""
    folder, random = tmp_path / "source", np.random.default_rng(0)
    folder.mkdir()
    checksums, resources = {}, []
    for name in data.FILES:
        n = 60 if "train" in name else 10
        shape = (n, 28, 28) if "images" in name else (n,)
        header = np.array([0x0800 + len(shape), *shape], ">i4").tobytes()          # uint8, so many dimensions
        content = header + random.integers(0, 10, shape, np.uint8).tobytes()
        (folder / name).write_bytes(gzip.compress(content))
        checksums[name] = hashlib.sha256(content).hexdigest()
        resources.append((name, hashlib.md5((folder / name).read_bytes()).hexdigest()))
    monkeypatch.setattr(data, "FILES", checksums)
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "no-such-package")
    monkeypatch.setattr(Published, "resources", resources)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def server(tiny, serve, monkeypatch):
    """Serves the full set; the cache is empty. Faults meet the last of the four files."""
    server = serve(tiny, faulty="/t10k-labels")
    monkeypatch.setattr(Published, "mirrors", [server.address])
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    collect_sockets()


def cached():
    return sorted(path.name for path in sources.cache_folder().glob("**/*") if path.name != ".lock")


def test_full_set_is_downloaded_once_and_verified(tiny, server):
    images = d2l.fashion_mnist(full=True, device="cpu")
    assert images.X_train.shape == (60, 1, 28, 28)
    assert images.y_test.shape == (10,)
    assert cached() == sorted(data.FILES)
    asked = list(server.asked)
    assert set(asked) == {f"/{name}" for name in data.FILES}
    d2l.fashion_mnist(full=True, device="cpu")
    assert server.asked == asked


@pytest.mark.parametrize("fault", ["cut", "altered", "missing"])
def test_failed_download_leaves_nothing_and_the_next_one_works(tiny, server, fault):
    server.fault = fault
    with pytest.raises(ConnectionError, match=r"could not be downloaded to .*\(.+\)\. Use the bundled"):
        d2l.fashion_mnist(full=True)
    assert cached() == []
    server.fault = None
    assert len(d2l.fashion_mnist(full=True).X_train) == 60


def test_interrupted_download_leaves_nothing(server, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt
    real = torch.utils.model_zoo.tqdm.update
    monkeypatch.setattr(torch.utils.model_zoo.tqdm, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        d2l.fashion_mnist(full=True)
    assert cached() == []
    monkeypatch.setattr(torch.utils.model_zoo.tqdm, "update", real)
    assert len(d2l.fashion_mnist(full=True).X_train) == 60


def test_no_network_names_the_choices(tiny, monkeypatch):
    monkeypatch.setattr(Published, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(ConnectionError, match=r"full=False.*D2L_DATA.*dataset-fashion-mnist") as error:
        d2l.fashion_mnist(full=True)
    assert "\n" not in str(error.value)
    assert cached() == []


def test_d2l_data_wins_and_must_be_complete(tiny, server, monkeypatch):
    monkeypatch.setenv("D2L_DATA", str(tiny))
    assert len(d2l.fashion_mnist(full=True).X_train) == 60
    (tiny / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"D2L_DATA must be a folder with .* lacks t10k-labels-idx1-ubyte.gz"):
        d2l.fashion_mnist(full=True)
    assert server.asked == []


@pytest.mark.parametrize("home", ["/proc/nowhere", None])
def test_without_a_home_data_are_found_or_the_choices_named(tiny, server, monkeypatch, tmp_path, no_home, home):
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConnectionError, match=r"full=False.*D2L_DATA.*dataset-fashion-mnist") as error:
        d2l.fashion_mnist(full=True)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "~").exists()
    monkeypatch.setattr(data, "DEBIAN", tiny)
    assert len(d2l.fashion_mnist(full=True).X_train) == 60
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "no-such-package")
    monkeypatch.setenv("D2L_DATA", str(tiny))
    assert len(d2l.fashion_mnist(full=True).X_train) == 60
    assert server.asked == []


def test_the_package_is_tried_before_the_cache(tiny, monkeypatch):
    cache = sources.cache_folder()
    cache.mkdir(parents=True)
    for name in data.FILES:
        (cache / name).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="is damaged"):
        d2l.fashion_mnist(full=True)
    monkeypatch.setattr(data, "DEBIAN", tiny)
    assert len(d2l.fashion_mnist(full=True).X_train) == 60


def test_damaged_file_is_named_with_both_checksums_and_the_remedy(tiny, monkeypatch):
    monkeypatch.setenv("D2L_DATA", str(tiny))
    path = tiny / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    altered = gzip.compress(gzip.decompress(whole)[:-1] + b"\xff")
    for content in (whole[:1000], altered, b"", b"<html>Not found</html>"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged") as error:
            d2l.fashion_mnist(full=True)
        message = str(error.value)
        assert str(path) in message
        assert data.FILES[path.name] in message
        assert "remove it" in message
    assert hashlib.sha256(content).hexdigest() in message


def test_damaged_bundle_is_refused(tmp_path, monkeypatch):
    path = tmp_path / data.BUNDLED.name
    path.write_bytes(data.BUNDLED.read_bytes()[:-1])
    monkeypatch.setattr(data, "BUNDLED", path)
    with pytest.raises(ValueError, match=f"{path.name} is damaged: expected SHA-256 {data.BUNDLED_SHA256}, found"
                                         ".*install d2l_utils again"):
        d2l.fashion_mnist()


# Order and augmentation

@given(n=st.integers(1, 300), seed=st.integers(0, 2**31), epoch=st.integers(0, 300))
def test_order_is_a_permutation_of_seed_and_epoch_alone(n, seed, epoch):
    torch.rand(epoch % 3)                                   # the global generator's state plays no part
    order = data.epoch_order(n, seed, epoch)
    assert sorted(order.tolist()) == list(range(n))
    assert torch.equal(order, data.epoch_order(n, seed, epoch))


def test_orders_of_other_seeds_and_epochs_differ():
    orders = [tuple(data.epoch_order(100, seed, epoch).tolist()) for seed in range(5) for epoch in range(5)]
    assert len(set(orders)) == 25


@given(size=st.sampled_from([(28, 28), (14, 14), (8, 5)]), channels=st.sampled_from([1, 3]),
       n=st.integers(1, 5), seed=st.integers(0, 1000), pad=st.sampled_from([None, 1, 3]))
def test_every_augmented_image_is_a_crop_of_the_padded_one_or_its_mirror(size, channels, n, seed, pad):
    X = torch.arange(n * channels * size[0] * size[1]).reshape(n, channels, *size) % 251
    crops = data.augment(X, data.epoch_generator(seed, 0, purpose=1), pad)
    assert crops.shape == X.shape
    assert crops.dtype == X.dtype
    pad = pad or max(1, size[0] // 14)
    padded = F.pad(X, (pad,) * 4)
    for image, crop in zip(padded, crops, strict=True):
        every = image.unfold(1, size[0], 1).unfold(2, size[1], 1)            # (C, 2 pad + 1, 2 pad + 1, H, W)
        same = [(every == picture[:, None, None]).all(dim=(0, 3, 4)).any() for picture in (crop, crop.flip(-1))]
        assert any(same)


def test_augmentation_uses_all_shifts_both_mirrors_and_repeats_with_its_seed():
    X = torch.zeros(2000, 1, 14, 14)
    X[:, :, 7, 5] = 1                                       # one bright pixel: where does it go?
    crops = data.augment(X, data.epoch_generator(0, 0, purpose=1))
    assert torch.equal(crops, data.augment(X, data.epoch_generator(0, 0, purpose=1)))
    assert not torch.equal(crops, data.augment(X, data.epoch_generator(0, 1, purpose=1)))
    places = {tuple(place) for place in crops.nonzero()[:, 2:].tolist()}
    assert places == {(y, x) for y in (6, 7, 8) for x in (4, 5, 6, 7, 8, 9)}
