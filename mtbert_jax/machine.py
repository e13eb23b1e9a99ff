"""This process on its machine: memory, devices, compiled programs, and the commit that it runs from."""

import ctypes
import functools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax

from mtbert_jax.files import user_cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8  # of glibc's malloc.h
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _ARENA_MAX: 1}
_GIVE_BACK = {_MMAP_MAX: 2**16, _MMAP_THRESHOLD: 2**20}
"""Every array of a megabyte or more has pages of its own, which go when it goes."""


def keep_freed_memory(keep: bool = True) -> None:
    """Makes glibc keep freed memory: else a training step on a CPU spends much of its time in page faults.

    What is kept lies in pieces, not all of which can be used again. Without `keep`, freed memory goes back to the
    system at once from now on.
    """
    if libc := _libc():
        for option, value in (_KEEP if keep else _GIVE_BACK).items():
            libc.mallopt(option, value)


def return_freed_memory() -> None:
    """Gives freed memory back to the system once, as after compiling: else it stays, in pieces that fit no array."""
    if libc := _libc():
        libc.malloc_trim(0)


def _libc() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
    try:
        libc = ctypes.CDLL("libc.so.6") if sys.platform.startswith("linux") else None
    except OSError:  # another one, such as musl
        return None
    return libc if hasattr(libc, "mallopt") else None


def commit(checkout: Path = Path(__file__).parents[1]) -> str:
    """The git commit that this program is run from, with ``-dirty`` where files were changed; else empty."""
    git = shutil.which("git")
    if git is None or not (checkout / ".git").exists():
        return ""
    command = [git, "-C", str(checkout), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 - git itself
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.stdout.strip()


def keep_compiled_programs() -> None:
    """Keeps compiled programs in the user's cache folder, if it can be written, for the next run.

    A folder that JAX was given, as by ``JAX_COMPILATION_CACHE_DIR``, stays; ``JAX_ENABLE_COMPILATION_CACHE=0`` turns
    caching off.
    """
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    folder = user_cache("programs")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # many small programs add up, too


@functools.cache
def _compile_clock() -> list[float]:
    from jax import monitoring

    clock = [0.0]

    def add(event: str, duration_secs: float, **_: str | int) -> None:
        if event in ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration"):
            clock[0] += duration_secs

    monitoring.register_event_duration_secs_listener(add)
    return clock


def compile_seconds() -> float:
    """Seconds that this process has spent compiling, or loading kept programs, since this was first asked."""
    return _compile_clock()[0]


def working_seconds() -> float:
    """A clock that stands still while this process compiles, or loads kept programs."""
    return time.monotonic() - compile_seconds()


def peak_memory() -> int:
    """Most memory in use at once so far, in bytes: the device's, where it counts, or this process's; 0 if unknown."""
    counted = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return _peak_resident() if counted is None else int(counted)


def free_memory() -> int | None:
    """Bytes that are free: on the device, where it counts, or else on this host; None where neither can be told."""
    counted = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in counted:
        return int(counted["bytes_limit"] - counted.get("bytes_in_use", 0))
    return _told("/proc/meminfo", "MemAvailable")


def bfloat16_units() -> str:
    """What multiplies matrices of bfloat16 faster than of float32 here, by name; "" where nothing does.

    GPUs have them from compute capability 8.0 on, all TPUs, and processors that report AVX512_BF16 or AMX.
    """
    device = jax.local_devices()[0]
    if device.platform == "gpu":
        capability = getattr(device, "compute_capability", "0")
        return f"compute capability {capability}" if float(capability) >= 8 else ""
    if device.platform != "cpu":
        return device.device_kind
    flags = next((line for line in _lines("/proc/cpuinfo") if line.startswith("flags")), "").split()
    return next((name for name in ("amx_bf16", "avx512_bf16") if name in flags), "")


def _lines(file: str) -> list[str]:
    path = Path(file)
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def _told(file: str, name: str) -> int | None:
    """A number of bytes that Linux tells in lines such as ``name: 12 kB``."""
    return next((int(line.split()[1]) * 1024 for line in _lines(file) if line.startswith(f"{name}:")), None)


def _peak_resident() -> int:
    told = _told("/proc/self/status", "VmHWM")  # not getrusage, which on Linux begins with what the parent process had
    if told is not None:
        return told
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def own_cores() -> list[int]:
    """The CPU cores that this process may use; none where the system does not bind processes to cores."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def devices_are_found() -> bool:
    """Whether JAX has a device to run on; it has none where ``JAX_PLATFORMS`` names some that are not there."""
    try:
        return bool(jax.devices())
    except (RuntimeError, AssertionError):
        return False


def machine_summary() -> str:
    """Devices and cores in words: ``1 × NVIDIA H200, 16 CPU cores``."""
    cores, mine = os.cpu_count(), len(own_cores())
    share = f"{mine} of " if mine and mine != cores else ""
    return f"{jax.device_count()} × {jax.devices()[0].device_kind}, {share}{cores} CPU cores"
