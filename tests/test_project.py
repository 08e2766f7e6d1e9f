"""What holds the project together: commands that agree, a wheel of one package, one-way imports, no foreign paths."""

import ast
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]

# Who may import whom, lowest first: a room of the library may use itself and all rooms before it.
ROOMS = ["matching", "distributions", "mcmc", "routing", "estimators", "diagnostics", "cli"]
# The same of other packages: what each room may use besides itself, and of that nothing private. "" is the top.
INSIDE = {
    "models": {"data": set(), "layers": set(), "transformer": {"data", "layers"}, "": {"data", "layers"}},
    "inference": {
        "shared": set(),
        "training.methods": set(),
        "training": {"shared", "training.methods"},
        "compare": {"shared", "training", "training.methods"},
        "train": {"shared", "training", "training.methods"},
        "latent_routing": {"shared"},
        "balanced_regression": {"shared"},
        "language": {"shared", "training"},
        "": set(),
    },
}
OUTSIDE = {
    "gumbel_moe": {"gumbel_moe"},
    "models": {"gumbel_moe", "models"},
    "inference": {"gumbel_moe", "models", "inference"},
    "benchmarks": {"gumbel_moe", "models", "benchmarks"},
}
LOCAL = {*OUTSIDE, "tests", "docs", "conftest"}


def command_after(marker):
    """The fenced block that follows a marker comment of the README."""
    blocks = re.findall(rf"<!-- {marker} -->\n+```bash\n(.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1, f"README.md must have one block after <!-- {marker} -->"
    return blocks[0]


def test_ci_ends_with_the_readme_test_command():
    command = command_after("test command")
    assert "pytest" in command
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == command


def test_contributing_gives_the_same_test_command():
    assert f"```bash\n{command_after('test command')}\n```" in (ROOT / "CONTRIBUTING.md").read_text()


def test_readme_main_command_names_a_program_that_is_there():
    module = re.search(r"python -m ([\w.]+)", command_after("main command"))
    assert module is not None
    program = ROOT / Path(*module[1].split("."))
    assert program.with_suffix(".py").is_file() or (program / "__main__.py").is_file()


def test_ci_script_is_executable():
    assert (ROOT / ".ci/run").stat().st_mode & 0o111 == 0o111


def test_wheel_is_the_package_alone():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert packages["find"]["include"] == ["gumbel_moe", "gumbel_moe.*"]


def test_readme_extras_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set(re.findall(r"'\.\[(\w+)\]'", (ROOT / "README.md").read_text()))
    assert named
    assert named <= set(extras)


def project_files():
    """Files under version control, and new ones that are not ignored."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


# A slash-led path of some machine's own folders, or a way out of the repository to a folder beside it.
FOREIGN = re.compile(rb"(?<![\w.:/-])/(?:home|root|opt|work|srv|mnt|media|tmp|Users)/\w|\.\./shared")


@pytest.mark.parametrize(
    ("parts", "foreign"),
    [
        (("open('/", "home/me/x')"), True),
        (("see ..", "/shared/x.md"), True),
        (("https://example.org/", "home/x"), False),
        (("../api/", "home/x"), False),
        (("~/.cache/", "opt/x"), False),
    ],
)
def test_foreign_path_pattern(parts, foreign):
    assert bool(FOREIGN.search("".join(parts).encode())) == foreign


def test_no_file_names_a_path_outside_the_project():
    found = {str(path): match[0] for path in project_files() if (match := FOREIGN.search(path.read_bytes()))}
    assert not found


# A figure beside what prints or asserts it: nothing would notice when it is no longer what comes out.
STALE = re.compile(r"^ *(?:print\(|assert ).*  # (?:[-\[]?\d|.*\d\.\d|.*\d%)")


@pytest.mark.parametrize(
    ("line", "stale"),
    [
        ("print(x)  # 67", True),
        ("print(x)  # -1.36 nats", True),
        ("    print(f'{x:.1%}')  # about 3% away", True),
        ("print(x, y)  # [35, 23], [34, 22]", True),
        ("assert a < b  # 0.10, 0.20", True),
        ("assert abs(x - 0.37) < 0.05", False),
        ("print(value)  # j: kept by expert j; ~j, that is -1 - j: drew expert j", False),
        ("assert jnp.abs(z).max() < 6  # all 88 coordinates agree", False),
        ("rate = 0.05  # 0.05 is usual", False),
    ],
)
def test_stale_figure_pattern(line, stale):
    assert bool(STALE.search(line)) == stale


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_figures_of_examples_are_made_or_asserted(page):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    assert [line for block in blocks for line in block.splitlines() if STALE.search(line)] == []


def imports(source, package):
    """Absolute dotted names that a module imports; `package` is where relative imports start."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: 1 - node.level or None] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def wrong_imports(source, path):
    """Imports of the module at `path` (relative to the root) that go against the order."""
    top, *inside = Path(path).with_suffix("").parts
    room = inside[0] if inside and inside[0] in ROOMS else None
    room = "cli" if str(path) in ("gumbel_moe/__init__.py", "gumbel_moe/__main__.py") else room  # these know them all
    lower = set(ROOMS[: ROOMS.index(room) + 1]) if room else set()
    for name in imports(source, ".".join(Path(path).parent.parts)):
        target, *rest = name.split(".")
        outside = target in LOCAL and target not in OUTSIDE[top]
        upward = top == target == "gumbel_moe" and rest and rest[0] in ROOMS and rest[0] not in lower
        across = top == target and crosses(inside, rest, INSIDE.get(top, {"": set()}))
        if outside or upward or across:
            yield name


# Private names of the library that others than their room may use, and who: the ground floor is its rooms' alone.
PRIVATE_FOR = {
    "gumbel_moe._whole_file": ("inference", "benchmarks"),
    "gumbel_moe._floor": ("benchmarks",),  # processes that no router has
    # A matching and its distances, solved once.
    "gumbel_moe.matching._exchange": ("gumbel_moe.distributions", "gumbel_moe.routing"),
    "gumbel_moe.matching._solve": ("gumbel_moe.distributions", "benchmarks"),
    "gumbel_moe.matching._compiled": ("benchmarks",),
    "gumbel_moe.distributions._gumbel_noise": ("gumbel_moe.routing", "benchmarks"),
    "gumbel_moe.diagnostics._save": ("gumbel_moe.cli",),  # a report of several files, all whole or none
}


def private_imports(source, path):
    """Imports by the module at `path` of private modules of the library that are not its own room's."""
    own = ".".join(Path(path).parent.parts)
    for name in imports(source, own):
        parts = name.split(".")
        private = next((place for place, part in enumerate(parts) if part.startswith("_")), 0)
        if parts[0] != "gumbel_moe" or not private or parts[private].startswith("__"):
            continue
        room, module = ".".join(parts[:private]), ".".join(parts[: private + 1])
        users = (room, *PRIVATE_FOR.get(module, ()))
        if not any(own == user or own.startswith(f"{user}.") for user in users):
            yield name


@pytest.mark.parametrize(
    ("path", "source", "wrong"),
    [
        ("gumbel_moe/routing/_a.py", "from gumbel_moe._checks import check_matrix", False),
        ("gumbel_moe/routing/_a.py", "from gumbel_moe.routing._record import Routing", False),
        ("gumbel_moe/routing/_a.py", "from gumbel_moe.matching._solve import solve_one", True),
        ("gumbel_moe/distributions/_a.py", "from gumbel_moe.matching._solve import check_solved", False),
        ("gumbel_moe/diagnostics/pictures/_a.py", "from gumbel_moe.diagnostics._layout import Layout", False),
        ("gumbel_moe/cli/_a.py", "from gumbel_moe import __version__", False),
        ("gumbel_moe/cli/_a.py", "from gumbel_moe.diagnostics import _layout", True),
        ("models/toy.py", "from gumbel_moe._checks import check_matrix", True),
        ("inference/train/_program.py", "from gumbel_moe._whole_file import write_json", False),
        ("inference/train/_program.py", "from gumbel_moe.routing._record import Routing", True),
    ],
)
def test_private_import_checker(path, source, wrong):
    assert bool(list(private_imports(source, path))) == wrong


@pytest.mark.parametrize("top", OUTSIDE)
def test_what_is_private_stays_in_its_room(top):
    modules = sorted((ROOT / top).rglob("*.py"))
    found = {path: list(private_imports(path.read_text(), path.relative_to(ROOT))) for path in modules}
    assert not any(found.values()), found


def crosses(module, target, rooms):
    """Whether a module may not import a target of its own package, both given by their names below it."""
    # The innermost rooms that there are.
    room, other = (
        next(name for size in (2, 1, 0) if (name := ".".join(parts[:size])) in rooms) for parts in (module, target)
    )
    inner = target[len(other.split(".")) if other else 0 :]
    return room != other and (other not in rooms[room] or any(part.startswith("_") for part in inner))


@pytest.mark.parametrize(
    ("path", "source", "wrong"),
    [
        ("gumbel_moe/routing/_a.py", "from gumbel_moe.distributions import SkipAssignment", False),
        ("gumbel_moe/routing/_a.py", "from gumbel_moe._checks import check_matrix", False),
        ("gumbel_moe/routing/_a.py", "from gumbel_moe.estimators import exact_loss", True),
        ("gumbel_moe/routing/_a.py", "import gumbel_moe.estimators", True),
        ("gumbel_moe/routing/_a.py", "from gumbel_moe import estimators", True),
        ("gumbel_moe/matching/_a.py", "from ..distributions import SkipAssignment", True),
        ("gumbel_moe/matching/_a.py", "from .. import distributions", True),
        ("gumbel_moe/matching/_a.py", "from ._solve import solve_matching", False),
        ("gumbel_moe/__init__.py", "from gumbel_moe import matching", False),
        ("gumbel_moe/_checks.py", "from gumbel_moe.matching import solve_matching", True),
        ("gumbel_moe/matching/_a.py", "def f():\n    import models.toy", True),
        ("models/toy.py", "from gumbel_moe.routing import SkipRouter", False),
        ("models/toy.py", "from inference.train import main", True),
        ("models/toy.py", "from models._one_routed_layer import OneRoutedLayer", False),
        ("models/toy.py", "from models.data import Wines", False),
        ("models/toy.py", "from models.data._wines import Wines", True),
        ("models/data/_wines.py", "from models import toy", True),
        ("models/layers/moe.py", "from models.data import Wines", True),
        ("inference/train/_program.py", "from models import toy", False),
        ("inference/train/_program.py", "from tests.matching import problems", True),
        ("inference/train/_program.py", "from inference.training.loop import advance", False),
        ("inference/train/_program.py", "from inference.training.methods import METHODS", False),
        ("inference/train/__main__.py", "from inference.train import main", False),
        ("inference/train/_program.py", "from inference.compare._results import Results", True),
        ("inference/train/_program.py", "from inference.compare import main", True),
        ("inference/train/_program.py", "from inference import compare", True),
        ("inference/train/_program.py", "from inference.training.methods._method import Method", True),
        ("inference/train/_program.py", "from inference.training.loop import _one_step", True),
        ("inference/compare/_toy.py", "from inference.compare._summary import row_of", False),
        ("inference/compare/_toy.py", "from ..train import main", True),
        ("inference/latent_routing/_svi.py", "from inference.shared.machine import COMPILER", False),
        ("inference/latent_routing/_svi.py", "from inference.training.loop import advance", True),
        ("inference/balanced_regression/_samplers.py", "import inference.training.methods", True),
        ("inference/training/loop.py", "from inference.training.methods import Method", False),
        ("inference/training/loop.py", "from inference.training import methods", False),
        ("inference/training/methods/_drawn.py", "from inference.training.loop import advance", True),
        ("inference/shared/folder.py", "from inference.training import loop", True),
        ("inference/__init__.py", "from inference.compare import main", True),
    ],
)
def test_import_checker(path, source, wrong):
    assert bool(list(wrong_imports(source, path))) == wrong


@pytest.mark.parametrize("top", OUTSIDE)
def test_imports_go_one_way(top):
    modules = sorted((ROOT / top).rglob("*.py"))
    assert modules
    found = {path: list(wrong_imports(path.read_text(), path.relative_to(ROOT))) for path in modules}
    assert not any(found.values()), found


def test_every_room_is_in_the_order():
    public = [path for path in (ROOT / "gumbel_moe").iterdir() if not path.name.startswith(("_", "."))]
    assert {path.stem for path in public if path.is_dir() or path.suffix == ".py"} <= set(ROOMS)


@pytest.mark.parametrize("top", INSIDE)
def test_rooms_are_few_and_in_the_order(top):
    modules = (ROOT / top).rglob("*.py")
    rooms = {".".join(path.parent.relative_to(ROOT / top).parts) for path in modules}
    assert rooms == set(INSIDE[top])
    assert len(rooms - {""}) <= 8
    floors = {}
    for room, below in INSIDE[top].items():  # a room stands after all that it may use
        floors[room] = 1 + max((floors[other] for other in below), default=0)
    assert max(floors.values()) <= 4


def test_hooks_before_a_commit_are_the_quick_checks_of_ci():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    entries = {hook["entry"] for repo in config["repos"] for hook in repo["hooks"]}
    in_shell = {re.sub(r"^bash -c '(.*)'$", r"\1", entry) for entry in entries}  # where the shell expands a pattern
    quick = re.compile(r"\.venv/bin/(?:ruff|deptry|clang-format|pyright)\b.*")
    assert in_shell == {line for line in (ROOT / ".ci/run").read_text().splitlines() if quick.fullmatch(line)}
