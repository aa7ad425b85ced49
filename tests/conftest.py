"""Strictness for every test: eight CPU devices, strict dtypes and ranks. Runs before JAX is first imported."""

import gc
import importlib.metadata
import os
import pathlib
import sys
from collections.abc import Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs here are small and run once, so they are compiled without optimisation: half of the time.
FLAGS = ["--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0"]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # Without MLIR's emitters of fused loops, and each program in one piece: a quarter of what is left. XLA aborts at
    # flags that it does not know, and jaxlib 0.12 no longer knows these.
    FLAGS += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax  # noqa: E402  (the flags above must be set first)
import pytest  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tracing makes hundreds of thousands of small objects that live on. Looking through them as often as Python's default
# asks for took a tenth of the tests' time.
gc.set_threshold(50_000, 20, 20)


@pytest.hookimpl(trylast=True)
def pytest_configure() -> None:
    """Lets TensorStore report to orbax's event loop after it was closed, as the commands do (see their hooks).

    Of arrays that are read or written together, one fails and ends the loop; the others report later. It depends on
    the threads whether they do so within the test, or in the next one.
    """
    report = sys.unraisablehook  # pytest's own, which makes a failure of what it is given

    def report_others(found: "sys.UnraisableHookArgs") -> None:
        error = found.exc_value
        if not (type(error) is RuntimeError and str(error) == "Event loop is closed"):
            report(found)

    sys.unraisablehook = report_others


@pytest.fixture(scope="module", autouse=True)
def room() -> Iterator[None]:
    """Drops what past tests have compiled once it takes much memory.

    Where memory runs short, emokd drops the programs that runs share, and tests that rely on them would compile anew.
    """
    yield
    from emokd.training import memory

    if memory.resident_bytes() > 2**31:
        jax.clear_caches()
        memory.release()


@pytest.fixture
def data_directory() -> pathlib.Path:
    """The folder of real data and weights; tests that ask for it are skipped where there is none."""
    folder = os.environ.get("EMOKD_DATA")
    if not folder:
        pytest.skip("EMOKD_DATA is not set: no real data or weights here")
    return pathlib.Path(folder)


@pytest.fixture
def compilations() -> Iterator[list[float]]:
    """A list that grows by one entry, XLA's seconds, with every program compiled during the test.

    Operations outside `jit` are programs too, so run everything once before counting.
    """
    seconds: list[float] = []

    def listen(event: str, duration: float, **_) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seconds
    jax.monitoring.unregister_event_duration_listener(listen)
