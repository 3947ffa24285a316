"""The tests' own server: what it serves, and each fault it plays."""

import urllib.error
import urllib.request
from http.client import IncompleteRead

import pytest


def get(address):
    with urllib.request.urlopen(address) as answer:
        return answer.read()


def test_files_are_served_and_faults_played(serve, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abcd")
    server = serve(tmp_path)
    assert get(server.address + "a.txt") == b"abcd"
    server.fault = "altered"
    assert get(server.address + "a.txt") == b"abce"
    server.fault = "cut"
    with pytest.raises(IncompleteRead):
        get(server.address + "a.txt")
    server.fault, server.faulty = "missing", "/b"
    assert get(server.address + "a.txt") == b"abcd"
    server.faulty = "/a"
    with pytest.raises(urllib.error.HTTPError, match="404") as error:
        get(server.address + "a.txt")
    error.value.close()
    assert server.asked == ["/a.txt"] * 5
