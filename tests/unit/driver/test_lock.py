"""The lock of a core: threads queue, a serial port that somebody else holds is named."""

from __future__ import annotations

import fcntl
import os
import threading
import time

import pytest

from tests.support.boards import small_program
from vitrify.arch.errors import BackendError
from vitrify.driver.lock import CoreLock
from vitrify.driver.serial_port import SerialTransport
from vitrify.runtime import InferenceSession
from vitrify.runtime.backends import board


class Silent:
    """A port that is a file, and says nothing."""

    def __init__(self, file):
        self._file = file
        self.written = b""

    def fileno(self):
        return self._file

    def write(self, data):
        self.written += data

    def read(self, size):
        return b""

    def close(self):
        pass


def test_a_port_in_use_is_not_disturbed():
    master, slave = os.openpty()
    other = os.open(os.ttyname(slave), os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(other, fcntl.LOCK_EX)
    port = Silent(slave)
    with pytest.raises(BackendError, match=r"in use by another process or session, .* 0\.1 s"):
        SerialTransport(port, timeout=0.01, retries=0, patience=0.1)
    assert port.written == b""
    fcntl.flock(other, fcntl.LOCK_UN)
    with pytest.raises(BackendError, match="does not answer HELLO"):
        SerialTransport(port, timeout=0.01, retries=0, patience=0.1)
    assert port.written
    for file in (master, slave, other):
        os.close(file)


def test_a_session_waits_for_a_port_as_long_as_it_is_told(monkeypatch):
    """The backend's patience is the port's, too."""
    master, slave = os.openpty()
    other = os.open(os.ttyname(slave), os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(other, fcntl.LOCK_EX)
    monkeypatch.setattr(board, "open_port", lambda *_: Silent(slave))
    with pytest.raises(BackendError, match=r"in use by another .* more than 0\.15 s"):
        InferenceSession(small_program()[0], "board:ulx3s?port=it", patience=0.15)
    for file in (master, slave, other):
        os.close(file)


def test_threads_queue_and_one_may_nest():
    lock, inside, most = CoreLock(), [], []

    def use():
        for _ in range(20):
            with lock.held(1), lock.held(1):
                inside.append(None)
                most.append(len(inside))
                time.sleep(0.0005)
                inside.pop()

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 80
