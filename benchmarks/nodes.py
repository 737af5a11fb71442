"""Several Ray nodes on this machine's loopback, started as a user starts them: `ray start`, with the token."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

HERE = "127.0.0.1"
START_S = 120.0
PORTS_EACH = 100  # for the workers of one node
FIRST_PORT = 21_000


class Nodes:
    """A head that trains nothing, and nodes that come and go. `environment` marks all processes."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", **environment}
        self.ray = str(Path(sys.executable).with_name("ray"))
        subprocess.run([self.ray, "get-auth-token", "--generate"], stdout=subprocess.DEVNULL, check=True)
        with socket.socket() as free:
            free.bind((HERE, 0))
            self.address = f"{HERE}:{free.getsockname()[1]}"
        self.started: list[subprocess.Popen[str]] = []
        port = self.address.rpartition(":")[2]
        self._start("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false", "--disable-usage-stats")

    def add(self, num_cpus: int) -> subprocess.Popen[str]:
        """One more node; returns when it has said that it runs."""
        return self._start(f"--address={self.address}", f"--num-cpus={num_cpus}")

    def lose(self, node: subprocess.Popen[str]) -> None:
        """kill -9 of its raylet, as when the machine is gone: its workers die with it."""
        node.send_signal(signal.SIGSTOP)  # it would say farewell for the raylet
        for child in descendants(node.pid):
            if b"raylet/raylet" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(child, signal.SIGKILL)
        node.kill()
        node.wait()

    def end(self) -> None:
        """End all that still runs, the head last."""
        for node in reversed(self.started):
            if node.poll() is None:
                node.terminate()
                node.wait(START_S)

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        first = FIRST_PORT + PORTS_EACH * len(self.started)  # each node takes its workers' ports from its own range
        ports = (f"--min-worker-port={first}", f"--max-worker-port={first + PORTS_EACH - 1}")
        command = [self.ray, "start", "--block", f"--node-ip-address={HERE}", "--object-store-memory=100000000"]
        log = self.folder / f"node{len(self.started)}.log"
        with log.open("w") as file:
            node = subprocess.Popen(
                [*command, *ports, *arguments],
                env=self.environment,
                cwd=self.folder,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.started.append(node)
        end = time.monotonic() + START_S
        while "Ray runtime started" not in log.read_text():
            if node.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"a Ray node did not start:\n{log.read_text()}")
            time.sleep(0.2)
        return node


@contextmanager
def nodes_on_loopback(environment: Mapping[str, str], folder: Path) -> Iterator[Nodes]:
    """Nodes that are gone after the block."""
    nodes = Nodes(environment, folder)
    try:
        yield nodes
    finally:
        nodes.end()


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    children = [int(c) for file in Path(f"/proc/{pid}/task").glob("*/children") for c in file.read_text().split()]
    return [*children, *(process for child in children for process in descendants(child))]
