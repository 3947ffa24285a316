"""The tests' own server: what it serves, and each fault it plays."""

import urllib.error
import urllib.request
from http.client import IncompleteRead

import pytest
from conftest import Server


def get(address):
    with urllib.request.urlopen(address) as answer:
        return answer.read()


def test_files_are_served_and_faults_played(server):
    server.files["a.txt"] = b"abcd"
    assert get(server.address + "a.txt") == b"abcd"
    server.faults["a.txt"] = "altered"
    assert get(server.address + "a.txt") == b"abce"
    server.faults["a.txt"] = "cut"
    with pytest.raises(IncompleteRead):
        get(server.address + "a.txt")
    server.faults["a.txt"] = "missing"
    with pytest.raises(urllib.error.HTTPError, match="404") as error:
        get(server.address + "a.txt")
    error.value.close()
    assert server.asked == ["a.txt"] * 4


def test_a_folder_is_served(tmp_path):
    (tmp_path / "page.html").write_bytes(b"<p>here</p>")
    server = Server(tmp_path)
    assert get(server.address + "page.html") == b"<p>here</p>"
    server.stop()
