"""Settings of this process on its host."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Makes glibc keep memory that is freed, since the next step will ask for it again.

    By default every large array comes from the kernel and goes back to it: a training step on a CPU then spends more
    time in page faults than in some of its layers. Elsewhere than on glibc, and on a GPU, this changes nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another libc, such as musl
        return
    for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_ARENA_MAX, 1)):
        mallopt(option, value)
