"""Settings of the whole run, and the Python blocks of the Markdown pages: in order, in one namespace per page."""

import gc
import os
from importlib.metadata import version
from pathlib import Path

import jax
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["*.md"]).pytest()

# A core for each worker: two workers whose programs and compilers start two threads each wait for each other.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
if _WORKER and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(_WORKER) % len(cores)]})

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # two workers with two threads each wait for each other
if version("jaxlib").startswith("0.10."):  # an unknown flag ends the process
    # XLA's older code generator compiles in two thirds of the newer one's time; `XLA_FLAGS= pytest` tests with that.
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

# What is compiled once is kept for other tests, programs that they start, and the next run; `--cache-clear` forgets it.
_COMPILED = {
    "jax_compilation_cache_dir": str(Path(__file__).parent / ".pytest_cache" / "d" / "jax"),
    "jax_compilation_cache_max_size": 2**30,  # bytes; with a limit, processes take turns
    "jax_persistent_cache_min_compile_time_secs": 0.3,
}
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    for name, value in _COMPILED.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)

# The optimum, rounding and NaN of the matching, where what the optimiser does to the arithmetic could matter.
_TESTS = ("optimum", "precision", "extreme", "masks", "compiled", "large")
_OPTIMISED = tuple(f"tests/matching/test_{name}.py" for name in _TESTS)
_MAPS = Path("/proc/self/maps")
_MANY_MAPS = 25_000


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The README's examples use every room a little: they are smoke tests."""
    readme = Path(config.rootpath, "README.md")
    for item in items:
        if item.path == readme:
            item.add_marker("smoke")


def pytest_collection_finish() -> None:
    """Look for unreachable objects less often, and not among all the modules: it took a twentieth of the time."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Less optimisation, except where results could depend on it and for what runs long: most of the time of the
    others goes to the compiler.
    """
    file = item.path.relative_to(item.config.rootpath).as_posix()
    quick = not file.startswith(_OPTIMISED) and item.get_closest_marker("slow") is None
    jax.config.update("jax_disable_most_optimizations", quick)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Forget compiled programs between files: Linux lets a process have 65,530 mappings, of which each takes several,
    and the compiler crashes where it gets no more.
    """
    last_of_file = nextitem is None or nextitem.path != item.path
    if last_of_file and _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MANY_MAPS:
        jax.clear_caches()
