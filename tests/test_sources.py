"""Files from elsewhere: found, verified, downloaded whole or not at all; torchvision's published weights."""

import hashlib
import io
import threading
from pathlib import Path

import pytest
import torch
from conftest import collect_sockets
from torchvision import models

import d2l_utils as d2l
from d2l_utils.engine import sources

# Folders and files

def test_the_first_folder_that_has_every_file_and_none_that_cannot_be_read(tmp_path):
    for place, names in {"a": ["x"], "b": ["x", "y"], "c": ["x", "y"]}.items():
        (tmp_path / place).mkdir()
        for name in names:
            (tmp_path / place / name).touch()
    (tmp_path / "a" / "y").mkdir()                              # a folder is no file
    unreadable = tmp_path / ("long" * 100)                      # asking for it is an OSError
    assert sources.find(["x", "y"], unreadable, *(tmp_path / place for place in "abc")) == tmp_path / "b"
    assert sources.find(["z"], tmp_path / "a") is None


def write(**contents):
    def fetch(part):
        for name, text in contents.items():
            (part / name).write_text(text)
        return part
    return fetch


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_a_download_is_all_files_or_none(tmp_path):
    def broken(part):
        write(a="1")(part)
        raise OSError("cut\n off")

    folder = tmp_path / "new" / "cache"
    with pytest.raises(ConnectionError, match=rf"^Things could not be downloaded to {folder} \(cut off\)\. Help\.$"):
        sources.download(broken, ["a", "b"], folder, "Things", "Help.")
    assert visible(folder) == []
    with pytest.raises(ConnectionError, match=r"^Things could not be downloaded to .* No such file .* Help\.$"):
        sources.download(write(b="2"), ["a", "b"], folder, "Things", "Help.")
    assert visible(folder) == []
    sources.download(write(a="1", b="2"), ["a", "b"], folder, "Things", "Help.")
    assert {name: (folder / name).read_text() for name in visible(folder)} == {"a": "1", "b": "2"}


def test_two_at_once_download_once(tmp_path):
    fetched = []

    def fetch(part):
        fetched.append(part)
        return write(a="1")(part)

    threads = [threading.Thread(target=sources.download, args=(fetch, ["a"], tmp_path, "A", "Help.")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(fetched) == 1
    assert visible(tmp_path) == ["a"]


def test_no_home_and_nowhere_to_write_are_one_sentence(no_home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConnectionError, match=r"there is no home folder to keep it in\)\. Help\.$"):
        sources.download(write(a="1"), ["a"], sources.cache_folder(), "A", "Help.")
    assert list(tmp_path.iterdir()) == []                       # and no folder named "~"
    (tmp_path / "file").touch()
    for folder in (Path("/proc/nowhere"), tmp_path / "file" / "cache", tmp_path / "file"):
        with pytest.raises(ConnectionError, match=f"^A could not be downloaded to {folder} ") as error:
            sources.download(write(a="1"), ["a"], folder, "A", "Help.")
        assert "\n" not in str(error.value)


# Published weights

@pytest.fixture(scope="module")
def trained():
    """A locally made state of ResNet-18 as a file's bytes."""
    torch.manual_seed(1)
    file = io.BytesIO()
    torch.save(models.resnet18().state_dict(), file)
    return file.getvalue()


@pytest.fixture
def server(monkeypatch, tmp_path, serve, trained):
    """Serves `trained` on this machine as ResNet-18's V1 weights, in its folder's only file."""
    folder = tmp_path / "server"
    folder.mkdir()
    name = f"resnet18-{hashlib.sha256(trained).hexdigest()[:8]}.pth"
    (folder / name).write_bytes(trained)
    server = serve(folder)
    monkeypatch.setattr(models.ResNet18_Weights.IMAGENET1K_V1.value, "url", server.address + name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    yield server
    collect_sockets()


@pytest.fixture
def published(server, tmp_path):
    """Where the published weights are kept once they are there."""
    name = models.ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    return tmp_path / "torch" / "hub" / "checkpoints" / name


def test_published_weights_are_fetched_once_and_loaded_with_what_belongs_to_them(published, server, trained):
    net = d2l.get_resnet(18, pretrained=True)
    expected = torch.load(io.BytesIO(trained), weights_only=True)
    assert not net.training
    assert net.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in net.state_dict().items())
    assert visible(published.parent) == [published.name]
    assert torch.equal(d2l.get_resnet(18, pretrained=True).fc.weight, net.fc.weight)
    assert server.asked == [f"/{published.name}"]
    assert len(net.classes) == 1000
    assert net.classes[:2] == ["tench", "goldfish"]
    X = net.preprocess(torch.zeros(3, 300, 400, dtype=torch.uint8))
    assert X.shape == (3, 224, 224)
    assert X[0, 0, 0].item() == pytest.approx(-0.485 / 0.229, abs=1e-4)     # ImageNet's mean and standard deviation
    assert "preprocess" not in dict(net.named_children())
    assert net(X[None]).shape == (1, 1000)


@pytest.mark.parametrize("fault", ["no server", "missing", "cut", "altered"])
def test_a_failed_download_is_one_sentence_and_leaves_nothing(published, server, fault):
    if fault == "no server":
        server.stop()
    server.fault = fault
    with pytest.raises(ConnectionError) as error:
        d2l.get_resnet(18, pretrained=True)
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in ("resnet18", server.address, "pretrained=False", str(published)))
    assert visible(published.parent) == []
    assert not list(published.parent.glob("**/*.pth*"))


def test_a_damaged_cached_file_is_named_and_left_alone(published, server, trained):
    published.parent.mkdir(parents=True)
    published.write_bytes(trained[:-1])
    with pytest.raises(ValueError, match="is damaged: expected SHA-256") as error:
        d2l.get_resnet(18, pretrained=True)
    assert all(part in str(error.value) for part in (str(published), published.stem[-8:], "remove it"))
    assert published.stat().st_size == len(trained) - 1
    assert server.asked == []


@pytest.mark.parametrize("home", ["/proc/nowhere", "file", None])
def test_where_torch_cannot_keep_weights_the_choices_are_named(published, server, monkeypatch, tmp_path, request, home):
    if home is None:
        request.getfixturevalue("no_home")
    else:
        (tmp_path / "file").touch()
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / home))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConnectionError, match=r"resnet18-.*could not be downloaded to .*Use pretrained=False, or put"):
        d2l.get_resnet(18, pretrained=True)
    assert server.asked == []
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
@pytest.mark.parametrize("generation", ["V1", "V2"])
def test_each_generation_is_torchvisions(monkeypatch, depth, generation):
    entries = models.get_model_weights(f"resnet{depth}")
    if f"IMAGENET1K_{generation}" not in entries.__members__:
        assert (depth < 50, generation) == (True, "V2")
        return
    entry, asked = entries[f"IMAGENET1K_{generation}"], []

    def state(url):
        asked.append(url)
        with torch.device("meta"):
            return getattr(d2l, f"resnet{depth}")().state_dict()

    monkeypatch.setattr("d2l_utils.resnet.published_state", state)
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda net, state: None)
    net = d2l.get_resnet(depth, pretrained=True, weights=generation)
    assert asked == [entry.url]
    assert net.preprocess.resize_size == ([256] if generation == "V1" else [232])
    assert net.classes == entry.meta["categories"]


def test_random_weights_need_no_network(monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    net = d2l.get_resnet(34)
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)
    assert not net.training


@pytest.mark.parametrize("value", ["V2", 1, None])
def test_pretrained_must_be_said_with_a_bool(value):
    with pytest.raises(TypeError, match=f"pretrained must be True or False, got {value!r}"):
        d2l.get_resnet(50, value)
