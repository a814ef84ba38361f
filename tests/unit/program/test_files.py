"""Files that are written: what is there stays what it is, and nothing is half written."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from vitrify.arch.errors import InputError
from vitrify.program.files import check_folder, check_writable, npz, write_atomic, write_folder


def test_a_new_file_and_an_old_one(tmp_path):
    path = tmp_path / "x"
    write_atomic(path, b"one")
    assert path.read_bytes() == b"one"
    path.chmod(0o640)
    write_atomic(path, b"two")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"two", 0o640)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_links_stay(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    (tmp_path / "dangling").symlink_to("later")
    check_writable(tmp_path / "dangling")
    write_atomic(tmp_path / "dangling", b"here")
    assert (tmp_path / "later").read_bytes() == b"here"
    (tmp_path / "loop").symlink_to("loop")
    for act in (check_writable, lambda path: write_atomic(path, b"")):
        with pytest.raises(InputError, match=r"cannot write .*loop"):
            act(tmp_path / "loop")


def test_devices_and_pipes_are_written_to(tmp_path):
    null = tmp_path.__class__("/dev/null")
    before = null.stat()
    check_writable(null)
    write_atomic(null, b"gone")
    after = null.stat()
    assert stat.S_ISCHR(after.st_mode)
    assert (before.st_ino, before.st_rdev) == (after.st_ino, after.st_rdev)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write_atomic(pipe, b"through")
    reader.join()
    assert found == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_inputs_are_not_overwritten(tmp_path):
    model, folder = tmp_path / "m.onnx", tmp_path / "pictures"
    model.touch()
    folder.mkdir()
    (folder / "a.png").touch()
    (tmp_path / "same").symlink_to("m.onnx")
    os.link(model, tmp_path / "hard")
    for path in (model, tmp_path / "same", tmp_path / "hard", folder / "a.png",
                 folder / ".." / "m.onnx"):
        with pytest.raises(InputError, match="it is an input; give another name"):
            check_writable(path, [None, model, folder, tmp_path / "gone"])
    check_writable(folder / "new.npz", [model, folder])


def test_what_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path, "it is a directory"),
        (tmp_path / "gone" / "x", "does not exist"),
        (tmp_path / "file" / "x", "Not a directory|does not exist"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(InputError, match=message):
            check_writable(path)
    write_atomic(tmp_path / ("x" * 255), b"as long as names can be")
    with pytest.raises(InputError, match="cannot write"):
        write_atomic(tmp_path / "gone" / "x", b"")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


NAMES = ["file", "allow_pickle", "args", "kwds", "a/b", "/abs", "../up", "", "x.npy",
         "ü", "[/]", "back\\slash", "a b", "\x1b[2J", "x" * 5000]


def test_outputs_may_have_any_name():
    arrays = {name: np.full((2, 3), i, np.float32) for i, name in enumerate(NAMES)}
    loaded = np.load(io.BytesIO(npz(arrays)), allow_pickle=False)
    assert sorted(loaded.files) == sorted(NAMES)
    for name, array in arrays.items():
        assert (loaded[name] == array).all()


def test_names_that_no_zip_can_have():
    loaded = np.load(io.BytesIO(npz({"a\0b": np.zeros(1), "\ud800": np.ones(1)})))
    assert loaded.files == ["a\\x00b", "\\ud800"]


def test_folders_are_checked_before_the_work(tmp_path, monkeypatch):
    check_folder(tmp_path / "new" / "one")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    for path, sentence in ((tmp_path / "file", "it is no directory"),
                           (tmp_path / "file" / "one", "Not a directory")):
        with pytest.raises(InputError, match=sentence):
            check_folder(path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r"new/one': directory .* is read-only"):
        check_folder(tmp_path / "new" / "one")


def test_a_folder_comes_whole_or_not_at_all(tmp_path, monkeypatch):
    files = {"a": b"1", "b/c": b"2"}
    write_folder(tmp_path / "new" / "one", files)
    assert (tmp_path / "new/one/b/c").read_bytes() == b"2"
    (tmp_path / "new/one/mine").write_text("stays")
    write_folder(tmp_path / "new" / "one", {"a": b"3"})
    found = {p.name: p.read_bytes() for p in (tmp_path / "new/one").rglob("*") if p.is_file()}
    assert found == {"a": b"3", "c": b"2", "mine": b"stays"}
    write = Path.write_bytes

    def full(path, data):
        if path.name == "c":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"cannot write to .*one': No space left"):
        write_folder(tmp_path / "new" / "one", {"a": b"4", "b/c": b"5"})
    assert (tmp_path / "new/one/a").read_bytes() == b"3"
    assert sorted(p.name for p in (tmp_path / "new/one").iterdir()) == ["a", "b", "mine"]
