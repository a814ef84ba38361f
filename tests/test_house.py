"""The shape of the house: namespace roots, typed sub-packages, file sizes, nothing local."""

import re
import subprocess
import tempfile
import tomllib
from pathlib import Path

import pytest
import yaml

from vitrify.arch.extras import EXTRAS

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("hw", "sw", "sim")
MOST_LINES = 400
#: Of one file that everybody who clones has to fetch; the largest is a trained model.
MOST_BYTES = 4 << 20
#: Extras that `make` does not install.
UNLOCKED = ("train", "docs", "notebooks")
#: Python files that may be longer, each with its reason.
LONGER: dict[str, str] = {}


def local_paths(checkout: Path) -> re.Pattern[str]:
    """Pattern of absolute paths that exist on one machine only: homes, and around a checkout."""
    roots = ["/home", "/root", "/Users", str(checkout)]
    if checkout.parent not in (Path("/"), Path(tempfile.gettempdir())):
        roots.append(str(checkout.parent))
    return re.compile(rf"(?<![\w.)}}~/])(?:{'|'.join(map(re.escape, roots))})/(?=[\w.])")


def tracked() -> list[Path]:
    """Files in the index; outside a checkout (an unpacked archive) there is nothing to check."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    output = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)
    names = output.stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def packages() -> list[Path]:
    """Every folder with Python files below a namespace root."""
    return sorted(
        {path.parent for room in ROOMS for path in (ROOT / room / "vitrify").rglob("*.py")}
    )


def test_namespace_roots_have_the_same_init():
    # Whichever Python finds first extends the path to the other rooms; a wheel has one of them.
    texts = {(ROOT / room / "vitrify" / "__init__.py").read_text() for room in ROOMS}
    assert len(texts) == 1


@pytest.mark.parametrize("package", packages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_packages_are_regular(package):
    assert (package / "__init__.py").is_file()


@pytest.mark.parametrize("room", ROOMS)
def test_subpackages_are_typed(room):
    folders = [p for p in (ROOT / room / "vitrify").iterdir() if (p / "__init__.py").is_file()]
    assert folders
    assert [p.name for p in folders if not (p / "py.typed").is_file()] == []


def test_subpackages_live_in_one_room():
    names = [
        path.parent.name for room in ROOMS for path in (ROOT / room / "vitrify").glob("*/*.py")
        if path.name == "__init__.py"
    ]  # fmt: skip
    assert len(names) == len(set(names))


def test_files_are_short():
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for path in tracked()
        if path.suffix == ".py"
    }
    assert {n: size for n, size in lengths.items() if size > MOST_LINES and n not in LONGER} == {}
    assert all(lengths.get(name, 0) > MOST_LINES for name in LONGER), "an exception is stale"


def test_files_are_small():
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in tracked()}
    assert {name: size for name, size in sizes.items() if size > MOST_BYTES} == {}
    # A script's scratch is saved where it runs; what belongs here has a format that says what it is
    assert [name for name in sizes if name.endswith((".npy", ".npz", ".pkl"))] == []


def test_nothing_names_a_local_path():
    local, found = local_paths(ROOT), []
    for path in tracked():
        if path == Path(__file__):
            continue  # the examples below
        # Models and pictures too: exporters like to leave stack traces in them.
        lines = path.read_text(encoding="latin-1").splitlines()
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]!r}"
            for number, line in enumerate(lines, 1)
            if local.search(line)
        ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "local"),
    [
        ("open('/home/someone/x')", True),
        ("cd /builds/vitrify/hw", True),
        ("PATH=/builds/tool", True),
        ("https://example.org/home/x", False),
        ("../builds/tool", False),
        ("$(DIR)/builds/tool", False),
    ],
)
def test_local_paths_are_recognised(line, local):
    pattern = local_paths(Path("/builds/vitrify"))
    assert bool(pattern.search(line)) == local


def test_lock_is_exact_and_names_no_host():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.!+-]+", pin)] == []


def test_lock_holds_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + [
        requirement
        for name, group in extras.items() if name not in UNLOCKED
        for requirement in group
    ]
    names = {re.match(r"[\w.-]+", requirement)[0] for requirement in wanted}  # pyright: ignore[reportOptionalSubscript]
    locked = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "requirements.lock").read_text().splitlines()
    }
    assert {name.lower() for name in names} - locked == {project["name"]}  # of the extra `all`


def test_the_extra_all_is_every_extra_that_a_command_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named, = project["optional-dependencies"]["all"]
    # Nothing asks for `fast`: it is used where it is.
    assert set(re.findall(r"[\w-]+", named)[1:]) == {*EXTRAS.values(), "fast"}


def test_readers_of_source_find_the_packages_of_every_room():
    # griffe, which makes the API pages, knows a package in several places by these words only.
    line = '__path__ = __import__("pkgutil").extend_path(__path__, __name__)'
    for room in ROOMS:
        assert line in (ROOT / room / "vitrify" / "__init__.py").read_text().splitlines(), room


def test_every_document_has_its_place_on_the_site():
    # The site itself is built by `make docs`, where mkdocs is installed.
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = {page for part in site["nav"] for pages in part.values() for page in pages}
    # Made by docs/site.py.
    made = {"index.md", "REFERENCE.md", "changelog.md", "cli.md", "python.md"}
    assert listed == made | {path.name for path in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_links_of_documents_lead_somewhere(path):
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []
