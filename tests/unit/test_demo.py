"""What the demonstration shows, without running it."""

import io
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from demo import demo
from vitrify.runtime import InferenceSession


@pytest.mark.parametrize("job", demo.JOBS, ids=lambda job: job.model)
def test_every_picture_has_an_answer_that_its_task_knows(job):
    shown = job.pictures()
    assert len(shown.images) == len(shown.names) == len(shown.tasks) == len(shown.right)
    assert shown.images.dtype == np.uint8
    for task, right in zip(shown.tasks, shown.right, strict=True):
        assert right in job.classes[task]


def test_squares_of_a_photograph_are_its_own():
    shown = demo._photographs()
    left, middle, right, mirrored = shown.images[:4].astype(int)
    np.testing.assert_allclose(mirrored, middle[:, ::-1], atol=2)
    assert abs(left - middle).mean() > 5
    assert abs(right - middle).mean() > 5


def test_a_test_picture_of_each_class(tmp_path):
    label = np.array([*range(9, -1, -1), 3, 3])
    files = []
    for value in label:
        with io.BytesIO() as file:
            Image.new("RGB", (32, 32), (20 * int(value),) * 3).save(file, "JPEG")
            files.append(file.getvalue())
    np.savez(
        tmp_path / "test.npz", jpeg=np.frombuffer(b"".join(files), np.uint8),
        offset=np.cumsum([0, *map(len, files)]), label=label, classes=np.array(demo.CIFAR10),
    )
    shown = demo._test_pictures(tmp_path)
    assert shown.right == list(demo.CIFAR10)
    assert shown.names[3] == "test 6"
    assert abs(int(shown.images[3].mean()) - 60) < 3


def test_a_folder_without_the_pictures_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["demo", "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        demo.main()
    assert stopped.value.code == 2
    assert f"--data {tmp_path}: there is no test.npz" in capsys.readouterr().err


def test_digits_on_a_board(tmp_path, monkeypatch, capsys):
    """Its own core and picture; golden in the place of the simulated board."""
    asked = []

    @contextmanager
    def session(program, board):
        asked.append((program.arch.name, board))
        with InferenceSession(program, "golden") as golden:
            yield golden

    monkeypatch.setattr(demo, "_session", session)
    monkeypatch.setattr(demo, "WORK", tmp_path)
    monkeypatch.setattr(sys, "argv", ["demo", "--board", "schoko", "-o", str(tmp_path / "out")])
    demo.main()
    assert asked == [("schoko", "schoko")]
    assert "10 of 10 pictures" in " ".join(capsys.readouterr().out.split())
    with Image.open(tmp_path / "out" / "board-schoko.png") as picture:
        assert picture.size[0] > 3 * picture.size[1]


def test_a_board_without_a_serial_line_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["demo", "--board", "kv260"])
    with pytest.raises(SystemExit) as stopped:
        demo.main()
    assert stopped.value.code == 2
    assert "invalid choice: 'kv260'" in capsys.readouterr().err


def test_confidence_is_the_share_of_the_softmax():
    said, sure = demo.answer(np.log(np.array([1.0, 6.0, 3.0, 90.0])), ("a", "b", "c"))
    assert (said, round(sure, 6)) == ("b", 0.6)
