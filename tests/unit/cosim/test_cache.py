"""Built simulators: whose they are, and where they may lie."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.unit.program.cases import ARCH
from vitrify.arch.errors import BackendError
from vitrify.cosim import cache, library, toolchain
from vitrify.cosim.core import DramModel, SimulatedCore

SOURCE = (Path(__file__).parent / "copy_core.v").read_text().replace("15011c36", f"{ARCH.hash:08x}")


@pytest.fixture
def kept(tmp_path):
    built = tmp_path / "built.so"
    built.write_bytes(b"\x7fELF and more")
    cache.keep(built, tmp_path / "nano-1")
    return tmp_path / "nano-1" / "built.so"


def test_what_this_user_kept_is_trusted(kept):
    assert cache.trusted(kept)
    assert not cache.trusted(kept.parent.parent / "other" / "built.so")


@pytest.mark.parametrize("change", [
    lambda so: so.write_bytes(so.read_bytes()[:-3]),
    lambda so: so.write_bytes(b"something else"),
    lambda so: (so.parent / cache.SEAL).unlink(),
    lambda so: (so.parent / cache.SEAL).write_text("[" * 9),
    lambda so: (so.parent / cache.SEAL).write_text(json.dumps({"sha256": "0" * 64})),
    lambda so: so.chmod(0o722),
    lambda so: so.parent.chmod(0o777),
    lambda so: so.unlink(),
    lambda so: (so.rename(so.parent.parent / "x"), so.symlink_to(so.parent.parent / "x")),
    lambda so: os.chown(so, 12345, -1) if os.getuid() == 0 else pytest.skip("needs root"),
    lambda so: os.chown(so.parent, 12345, -1) if os.getuid() == 0 else pytest.skip("needs root"),
])
def test_what_somebody_changed_is_not(kept, change):
    change(kept)
    assert not cache.trusted(kept)
    if kept.parent.exists():
        cache.drop(kept.parent)
    assert not kept.parent.exists()


def test_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRIFY_CACHE", str(tmp_path / "new" / "one"))
    assert cache.root() == tmp_path / "new" / "one"
    (tmp_path / "file").touch()
    monkeypatch.setenv("VITRIFY_CACHE", str(tmp_path / "file" / "x"))
    with pytest.raises(BackendError, match=r"Not a directory.*name another one by VITRIFY_CACHE"):
        cache.root()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setenv("VITRIFY_CACHE", str(tmp_path / "open"))
    with pytest.raises(BackendError, match="everybody may write there"):
        cache.root()


def test_a_read_only_checkout_uses_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("VITRIFY_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "checkout").touch()  # nothing can be made below a file, even by root
    monkeypatch.setattr(toolchain, "build_root", lambda: tmp_path / "checkout")
    assert cache.root() == tmp_path / "home" / "vitrify" / "cores"


def test_locks_follow_no_link(tmp_path):
    (tmp_path / "precious").write_text("data")
    (tmp_path / "x.lock").symlink_to("precious")
    with pytest.raises(OSError, match=""), toolchain.locked(tmp_path / "x.lock"):
        pass
    assert (tmp_path / "precious").read_text() == "data"


@pytest.mark.slow
def test_a_damaged_library_is_built_again(tmp_path, monkeypatch):
    """In a folder that `make` cannot work in; a truncated library would end the process."""
    monkeypatch.setenv("VITRIFY_CACHE", str(tmp_path / "my cores; $(x)"))
    built = library.build(SOURCE, ARCH)
    built.write_bytes(built.read_bytes()[:5000])
    said = []
    assert library.build(SOURCE, ARCH, say=said.append) == built
    assert said
    core = SimulatedCore(built, ARCH, DramModel(latency=5, outstanding=2))
    assert core.read("ARCH_HASH") == ARCH.hash
    core.close()
    assert library.build(SOURCE, ARCH, say=said.append) == built
    assert {p.name.partition("-")[0] for p in built.parent.parent.iterdir()} == {"nano", "runtime"}


def test_a_wheel_in_somebodys_project_builds_in_the_users_cache(tmp_path, monkeypatch):
    checkout = toolchain.build_root()
    assert (checkout.parent / "pyproject.toml").is_file()
    (tmp_path / "pyproject.toml").touch()
    inside = ".venv/lib/python3.11/site-packages/vitrify/cosim/toolchain.py"
    monkeypatch.setattr(toolchain, "__file__", str(tmp_path / inside))
    assert toolchain.build_root() == toolchain.user_cache()
