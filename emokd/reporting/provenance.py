"""Records where a number comes from: command, commit, date, machine."""

import datetime
import functools
import importlib.metadata
import os
import pathlib
import platform
import shlex
import subprocess
import sys

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def provenance() -> dict[str, str]:
    """Command, commit, date (UTC), machine and versions of this process, each as text."""
    return {
        "command": command(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "versions": versions(),
    }


def command() -> str:
    """The command line of this process, as one would type it."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    program = ["python", "-m", spec.name.removesuffix(".__main__")] if spec is not None else ["python", sys.argv[0]]
    return shlex.join([*program, *sys.argv[1:]])


@functools.cache
def commit() -> str:
    """The commit of the checkout that this package lies in, with "+ uncommitted changes" where there are any."""
    folder = pathlib.Path(__file__).parent
    try:
        # An installed copy may lie inside the checkout of another project, whose commit is not ours.
        _git(folder, "ls-files", "--error-unmatch", pathlib.Path(__file__).name)
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", ":/")
    except (OSError, subprocess.SubprocessError):
        return "unknown (not a git checkout)"
    return f"{head} + uncommitted changes" if changed else head


def _git(folder: pathlib.Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


@functools.cache
def machine() -> str:
    """CPU model, usable cores, memory, accelerators and platform."""
    parts = [cpu_model(), f"{_usable_cores()} cores"]
    memory = memory_bytes()
    if memory:
        parts.append(f"{memory / 2**30:.0f} GiB memory")
    import jax  # here, because commands without JAX import this module for `command`

    devices = jax.devices()
    if devices[0].platform != "cpu":
        parts.append(f"{len(devices)} x {devices[0].device_kind}")
    return ", ".join([*parts, platform.platform(terse=True)])


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model(cpuinfo: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> str:
    """The processor's name, from Linux's /proc/cpuinfo or else from Python."""
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def memory_bytes() -> int:
    """Physical memory; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0


@functools.cache
def versions() -> str:
    """Versions of Python and of the packages that the numbers depend on."""
    found = [f"Python {platform.python_version()}"]
    for package in ("emokd", *PACKAGES):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)
