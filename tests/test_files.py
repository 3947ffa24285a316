"""whole(): a file has its old content or its new one, at any moment."""

import pytest

from d2l_utils.engine.files import whole


def test_the_new_content_arrives_when_the_block_ends(tmp_path):
    path = tmp_path / "results.csv"
    path.write_bytes(b"old")
    with whole(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_fails_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "results.csv"
    path.write_bytes(b"old")

    def fail_half_way():
        with whole(path) as file:
            file.write(b"ne")
            raise RuntimeError("half way")
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
