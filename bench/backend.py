"""``python -m bench.backend``: the score of ``onnx.backend.test``, case by case.

Every case that comes with the onnx package goes through :mod:`vitrify.backend`: first with all of
its inputs given when it runs, then with all but the first one of floats inside the program, as a
network has its weights.  The ranges are those of the case's own inputs.  The results on file say of
each whether the core ran it whole, with a part on the host, or why it was refused.
"""

from __future__ import annotations

import argparse
import json
import re
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress

from bench import backend_score
from bench.measure import machine
from vitrify.arch.errors import VitrifyError
from vitrify.backend import VitrifyBackend
from vitrify.backend.adapter import ALL_THERE_IS, weights_of
from vitrify.backend.forms import inputs_of
from vitrify.program.pack import is_real

Array = np.ndarray
KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")
DEFAULT_ARCH = "kv260"

#: Largest noise of a result, in parts of it: 20 dB.
_NOISE = 0.1


@dataclass(frozen=True)
class TestCase:
    """A case: a model, inputs by their names, and results in the model's order."""

    kind: str
    name: str
    model: onnx.ModelProto
    #: ``None`` for those of types that no core computes: no tensors, texts, no floats at all.
    feed: Mapping[str, Array] | None
    wanted: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a case.

    ``outcome`` is ``core``, ``parts``, ``refused``, ``wrong``, ``fault`` (an exception that is no
    sentence) or ``no floats``; ``decibels`` the signal-to-noise ratio of the worst result.
    """

    kind: str
    name: str
    operators: list[str]
    outcome: str
    why: str = ""
    weights_inside: bool = False
    decibels: float | None = None


def cases(kinds: Iterable[str] = KINDS) -> Iterator[TestCase]:
    """The cases, those with several sets of data by their first."""
    with warnings.catch_warnings():
        # the package computes some results of infinities
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        found = [(kind, case) for kind in kinds for case in load_model_tests(kind=kind)]
    for kind, case in found:
        if case.model_dir is None:
            model = case.model
            assert case.data_sets is not None, "it has a folder otherwise"
            inputs, wanted = ([_array(value) for value in values] for values in case.data_sets[0])
        else:
            folder = Path(case.model_dir)
            model = onnx.load(folder / "model.onnx")
            inputs, wanted = (
                [_read(folder / "test_data_set_0" / f"{kind}_{i}.pb") for i in range(len(values))]
                for kind, values in (("input", inputs_of(model)), ("output", model.graph.output))
            )
        assert model is not None, "a case has one or a folder"
        names = [value.name for value in inputs_of(model)]
        usable = len(names) == len(inputs) and all(map(_is_number, (*inputs, *wanted)))
        usable = usable and any(is_real(array.dtype) for array in inputs)
        feed = dict(zip(names, inputs, strict=True)) if usable else None
        yield TestCase(kind, case.name.removeprefix("test_"), model, feed, tuple(wanted))


def _array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _read(file: Path) -> Any:
    """The tensor in a file of a case, ``None`` if it holds something else."""
    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(file.read_bytes())
        return numpy_helper.to_array(tensor)
    except Exception:  # protobuf and NumPy raise whatever they like for a sequence, say
        return None


def _is_number(array: Any) -> bool:
    return isinstance(array, np.ndarray) and (is_real(array.dtype) or array.dtype.kind in "iub")


def measure(case: TestCase, arch: str) -> Result:
    """Run a case."""
    operators = sorted({node.op_type for node in case.model.graph.node})

    def result(outcome: str, **facts: Any) -> Result:
        return Result(kind=case.kind, name=case.name, operators=operators, outcome=outcome, **facts)

    if case.feed is None:
        return result("no floats")
    weights = weights_of(case.feed)
    why = ""
    for constants in ({}, weights) if weights else ({},):
        feed = {name: array for name, array in case.feed.items() if name not in constants}
        inside = bool(constants)
        try:
            prepared = VitrifyBackend.prepare(
                case.model, arch=arch, calibration=feed, constants=constants,
                copies=ALL_THERE_IS,
            )
            found = prepared.run(feed)
        except VitrifyError as error:
            # what is said of the second form: the first fails on inputs that no program has
            why = str(error)
            continue
        # a case that raises anything else is a fault to be shown
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            return result("fault", weights_inside=inside, why=(
                f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
            ))  # fmt: skip
        good, decibels = judge(case, found)
        place = "core" if prepared.on_core_alone else "parts"
        return result(place if good else "wrong", weights_inside=inside, decibels=decibels)
    return result("refused", why=" ".join(why.split()))


def judge(case: TestCase, found: Iterable[Array]) -> tuple[bool, float | None]:
    """Whether results are right, and the signal-to-noise ratio of the worst in dB.

    Right are integers that are equal, and floats with 20 dB or more.
    """
    ratios, good = [np.inf], True
    for right, mine in zip(case.wanted, found, strict=True):
        if right.shape != mine.shape or right.dtype != mine.dtype:
            return False, None
        if not is_real(right.dtype):
            good &= np.array_equal(right, mine)
            continue
        exact = right.astype(np.float64)
        signal, noise = _power(exact), _power(exact - mine.astype(np.float64))
        if noise:
            ratios.append(10 * np.log10(signal / noise) if signal else -np.inf)
        good &= noise <= _NOISE**2 * signal
    worst = min(ratios)
    return good, round(float(worst), 1) if np.isfinite(worst) else None


def _power(array: Array) -> float:
    return float(np.mean(array**2)) if array.size else 0.0


def main() -> None:
    """Run the chosen cases, and renew what the results on file say of them."""
    parser = argparse.ArgumentParser(prog="python -m bench.backend", description=__doc__)
    parser.add_argument("pattern", nargs="?", default="", metavar="REGEX",
                        help="only these cases; of the others, the results on file stay")
    parser.add_argument("--arch", default=DEFAULT_ARCH, metavar="PRESET")
    parser.add_argument("--json", action="store_true", help="print a line of each case")
    parser.add_argument("--show", action="store_true", help="only show the results on file")
    options = parser.parse_args()
    if options.show:
        _show(backend_score.on_file())
        return
    chosen = [case for case in cases() if re.search(options.pattern, case.name)]
    results = []
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("cases", total=len(chosen))
        for case in chosen:
            results.append(asdict(measure(case, options.arch)))
            bar.update(task, advance=1, description=case.name[:30])
            if options.json:
                print(json.dumps(results[-1]))
    found = {"arch": options.arch, "machine": machine(), "cases": results}
    backend_score.write(backend_score.renewed(found) if options.pattern else found)
    if not options.json:
        _show(found)


def _show(found: Mapping[str, Any]) -> None:
    for table in (backend_score.outcomes, backend_score.reasons, backend_score.operators):
        Console().print(Markdown(table(found)))
    for case in found["cases"]:
        if case["outcome"] in ("wrong", "fault"):
            Console().print(f"{case['kind']} {case['name']}: {case['outcome']}, "
                            f"{case['decibels']} dB {case['why']}")


if __name__ == "__main__":
    main()
