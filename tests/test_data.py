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
    bundled = sources.read_bundled()
    assert [array.shape for array in bundled] == [(10_000, 28, 28), (10_000,), (2_000, 28, 28), (2_000,)]
    assert digest(bundled) == CONTENT
    if sources.find(sources.FILES, sources.DEBIAN):      # where it is there, from the source itself
        full = sources.read_full()
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
    for name in sources.FILES:
        n = 60 if "train" in name else 10
        shape = (n, 28, 28) if "images" in name else (n,)
        header = np.array([0x0800 + len(shape), *shape], ">i4").tobytes()          # uint8, so many dimensions
        content = header + random.integers(0, 10, shape, np.uint8).tobytes()
        (folder / name).write_bytes(gzip.compress(content))
        checksums[name] = hashlib.sha256(content).hexdigest()
        resources.append((name, hashlib.md5((folder / name).read_bytes()).hexdigest()))
    monkeypatch.setattr(sources, "FILES", checksums)
    monkeypatch.setattr(sources, "DEBIAN", tmp_path / "no-such-package")
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
    assert cached() == sorted(sources.FILES)
    asked = list(server.asked)
    assert set(asked) == {f"/{name}" for name in sources.FILES}
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
    with pytest.raises(FileNotFoundError, match=rf"D2L_DATA must be a folder with .*, got '{tiny}'"):
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
    monkeypatch.setattr(sources, "DEBIAN", tiny)
    assert len(d2l.fashion_mnist(full=True).X_train) == 60
    monkeypatch.setattr(sources, "DEBIAN", tmp_path / "no-such-package")
    monkeypatch.setenv("D2L_DATA", str(tiny))
    assert len(d2l.fashion_mnist(full=True).X_train) == 60
    assert server.asked == []


def test_the_package_is_tried_before_the_cache(tiny, monkeypatch):
    cache = sources.cache_folder()
    cache.mkdir(parents=True)
    for name in sources.FILES:
        (cache / name).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="is damaged"):
        d2l.fashion_mnist(full=True)
    monkeypatch.setattr(sources, "DEBIAN", tiny)
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
        assert sources.FILES[path.name] in message
        assert "remove it" in message
    assert hashlib.sha256(content).hexdigest() in message


def test_damaged_bundle_is_refused(tmp_path, monkeypatch):
    path = tmp_path / sources.BUNDLED.name
    path.write_bytes(sources.BUNDLED.read_bytes()[:-1])
    monkeypatch.setattr(sources, "BUNDLED", path)
    with pytest.raises(ValueError, match=f"{path.name} is damaged: expected SHA-256 {sources.BUNDLED_SHA256}, found"
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
       n=st.integers(1, 5), seed=st.integers(0, 1000))
def test_every_augmented_image_is_a_crop_of_the_padded_one_or_its_mirror(size, channels, n, seed):
    X = torch.arange(n * channels * size[0] * size[1]).reshape(n, channels, *size) % 251
    shift, flip = data.epoch_changes(n, size[0], seed, 0)
    crops = data.crop_and_flip(X, shift, flip)
    assert crops.shape == X.shape
    assert crops.dtype == X.dtype
    pad = max(1, size[0] // 14)
    padded = F.pad(X, (pad,) * 4)
    for image, crop, (down, right), mirrored in zip(padded, crops, (shift + pad).tolist(), flip.tolist(), strict=True):
        window = image[:, down:down + size[0], right:right + size[1]]
        assert torch.equal(crop, window.flip(-1) if mirrored else window)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_shifts_of_any_length_bring_in_zeros(dtype):
    X = torch.ones(4, 1, 6, 5, dtype=dtype)
    shift, flip = torch.tensor([[0, 0], [2, -3], [99, 0], [0, -99]]), torch.tensor([False, True, False, False])
    moved = data.crop_and_flip(X, shift, flip)
    assert moved.sum((1, 2, 3)).tolist() == [30, 8, 0, 0]
    assert moved.dtype == dtype
    assert X.sum() == 120                                   # X itself is as it was


def test_an_epochs_changes_use_all_shifts_both_mirrors_and_follow_from_seed_and_epoch():
    changes = data.epoch_changes(2000, 14, 0, 0)
    assert [change.shape for change in changes] == [(2000, 2), (2000,)]
    assert set(map(tuple, changes[0].tolist())) == {(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)}
    assert 900 < changes[1].sum() < 1100
    for other, same in (((0, 0), True), ((0, 1), False), ((1, 0), False)):
        assert all(torch.equal(a, b) == same
                   for a, b in zip(changes, data.epoch_changes(2000, 14, *other), strict=True))
    assert data.epoch_changes(2000, 28, 0, 0)[0].unique().tolist() == [-2, -1, 0, 1, 2]
    assert len(data.epoch_changes(1, 5, 0, 0)[0].unique()) <= 2             # at least a pixel, however small they are


def test_a_set_is_split_without_a_copy():
    images = d2l.fashion_mnist(size=14, device="cpu")
    kept, (X, y) = images.split(1000)
    assert (len(kept.X_train), len(kept.y_train), len(X), len(y), len(kept.X_test)) == (9000, 9000, 1000, 1000, 2000)
    assert kept.X_train.data_ptr() == images.X_train.data_ptr()
    assert torch.equal(torch.cat([kept.X_train, X]), images.X_train)
    assert len(images.split(0)[1][0]) == 0
    for n in (10_000, 10_001):
        with pytest.raises(ValueError, match=f"validation must be below the number of training images, 10000, got {n}"):
            images.split(n)


def test_sha256_tells_sets_of_any_kind_apart():
    dtypes = torch.uint8, torch.bfloat16, torch.float32
    sets = [d2l.FashionMNIST(*[torch.arange(9).to(dtype)] * 4) for dtype in dtypes]
    assert len({each.sha256() for each in sets}) == 3
    assert sets[0].sha256() == hashlib.sha256(bytes(range(9)) * 4).hexdigest()
