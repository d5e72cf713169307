"""What every Python process of the tests does first: no connection may leave this machine, and the
imports of large libraries are not traced.

Python imports a module of this name by itself when it starts, wherever this folder is on
PYTHONPATH: the tests put it there, so it holds for the processes that a chapter starts, too."""

import importlib.abc
import importlib.machinery
import os
import sys

# ---- no network ----

LOCAL = {"", "localhost", "::1", "::", "0.0.0.0", os.uname().nodename}  # noqa: S104


class NetworkForbidden(RuntimeError):
    "A test tried to reach another machine; not an OSError, which libraries would try again."


def is_local(host) -> bool:
    "Whether `host` is this machine; no host (AF_UNIX) and a number (AF_NETLINK) are."
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    return not isinstance(host, str) or host in LOCAL or host.startswith(("127.", "::ffff:127."))


def guard(event, args):
    """The audit hook: raise `NetworkForbidden` if `event` reaches for another machine.

    An attempt is also written into the file that NO_NETWORK_LOG names, so that a library that
    catches every error does not hide it. Sockets that compiled code opens are not seen."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        host = args[1][0] if isinstance(args[1], tuple) else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
    else:
        return
    if not is_local(host):
        line = f"{event} {host} in {' '.join(sys.argv[:3])}"
        if log := os.environ.get("NO_NETWORK_LOG"):
            with open(log, "a") as f:
                f.write(line + "\n")
        raise NetworkForbidden(f"no network in tests: {line}")


sys.addaudithook(guard)


# ---- coverage at no cost for imports ----

LARGE = set(
    "torch transformers diffusers datasets peft accelerate pandas matplotlib IPython".split()
)
LARGE |= set("sympy numpy pyarrow huggingface_hub scipy sklearn".split())


class Untraced(importlib.abc.MetaPathFinder):
    """Import the modules of `LARGE` packages without the tracer of coverage.py, which measures none
    of their lines and would make their imports take a third longer."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in LARGE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader.exec_module = self.untraced(spec.loader.exec_module)
        return spec

    @staticmethod
    def untraced(exec_module):
        def run(module):
            tracer = sys.gettrace()
            sys.settrace(None)
            try:
                exec_module(module)
            finally:
                sys.settrace(tracer)

        return run


if os.environ.get("COVERAGE_PROCESS_START"):
    sys.meta_path.insert(0, Untraced())
