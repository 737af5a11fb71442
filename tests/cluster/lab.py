"""Two hosts on one machine, each with its own network, processes, home, /tmp and sshd, joined by a veth pair.

Each host is a set of Linux namespaces. The processes of one cannot see those of the other nor the machine's, so that
`ray stop`, which looks for Ray's processes by name, ends its own host's only. Addresses exist in the namespaces only.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(sys.executable)
USED = ("ssh", "ssh-keygen", "rsync", "curl", "unshare", "nsenter")
TOOLS = ("/usr/sbin/sshd", "/usr/sbin/ip", *(f"/usr/bin/{name}" for name in USED))
SHARED = Path("/mnt/shared")  # the same folder on both hosts
HOME = Path("/mnt/home")  # root's on a host; not /root, where this machine's Python may be
SSHD = """
ListenAddress {address}
HostKey /mnt/boot/host
AuthorizedKeysFile /mnt/boot/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PidFile none
Subsystem sftp internal-sftp
"""
# Process 1 of a host: a shell, because it takes care of orphans, which sshd would not.
BOOT = """
set -e
mount -t tmpfs tmpfs /mnt
mkdir {shared} {inner_home}
mount --bind {common} {shared}
mount --bind {home} {inner_home}
mount --bind {home}/../passwd /etc/passwd
mkdir {shared}/../boot
mount --bind {home}/.. /mnt/boot
mount --bind {tmp} /tmp
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir -p /run/sshd
hostname {name}
ip link set lo up
until ip link show {link} 2>/dev/null >/dev/null; do sleep 0.1; done
ip addr add {address}/24 dev {link}
ip link set {link} up
ip route add default dev {link}  # by it Ray finds the address of its machine
env -i PATH="$PATH" {sshd} -D -f /mnt/boot/sshd.conf -E /mnt/boot/sshd.log &
while :; do wait -n || sleep 1; done
"""


@dataclass
class Host:
    """One of the two. `pid` is of a process whose children are the host's process 1."""

    name: str
    address: str
    folder: Path
    pid: int = 0
    links: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """Its home, as this machine sees it."""
        return self.folder / "home"

    def init(self) -> int:
        """The host's process 1, as this machine numbers it."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(children[0])

    def command(self, line: str) -> list[str]:
        """A shell line as root of this host, from its home."""
        inside = ["nsenter", "-t", str(self.init()), "-n", "-m", "-u", "-p", "--", "env", "-i", f"HOME={HOME}"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return [*inside, path, "LANG=C.UTF-8", "bash", "-c", f"cd && {line}"]

    def start(self, line: str) -> subprocess.Popen[str]:
        """Run a line in the background; its output is one pipe."""
        return subprocess.Popen(self.command(line), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, line: str, timeout_s: float = 300, check: bool = True) -> str:
        """Run a line and return what it said on both streams."""
        done = subprocess.run(
            self.command(line),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert not check or done.returncode == 0, f"{self.name}$ {line}\n{done.stdout}"
        return done.stdout


@dataclass
class Lab:
    """The head and the worker."""

    head: Host
    worker: Host
    shared: Path  # SHARED, as this machine sees it

    def cut(self) -> None:
        """Pull the worker's cable."""
        self.worker.run("ip link set cable down")

    def heal(self) -> None:
        """Put it back."""
        self.worker.run("ip link set cable up")


def missing() -> list[str]:
    """What this machine lacks for the lab."""
    lacking = [tool for tool in TOOLS if not Path(tool).exists()]
    if os.geteuid() != 0:
        lacking.insert(0, "root")
    elif subprocess.run(["unshare", "-n", "-p", "-f", "-m", "true"], check=False, capture_output=True).returncode:
        lacking.append("namespaces")
    return lacking


@contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    """The two hosts while in this block; at its end all their processes are gone with their namespaces."""
    common = folder / "shared"
    common.mkdir(parents=True)
    hosts = [
        Host("posesweep-head", "10.77.0.1", folder / "head"),
        Host("posesweep-worker", "10.77.0.2", folder / "worker"),
    ]
    keys = make_keys(folder / "keys")
    started = [boot(host, keys, common) for host in hosts]
    try:
        connect(*hosts)
        for host in hosts:
            wait_for_sshd(host, hosts[0])
        yield Lab(hosts[0], hosts[1], common)
    finally:
        for process in started:
            process.kill()  # --kill-child: process 1 goes with it, and the kernel ends the others
            process.wait()


def make_keys(folder: Path) -> Path:
    """Keys for sshd and for whoever logs in."""
    folder.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    return folder


def boot(host: Host, keys: Path, common: Path) -> subprocess.Popen[bytes]:
    """Start a host; its network cable is plugged in later."""
    for name in ("home/.ssh", "tmp"):
        (host.folder / name).mkdir(parents=True)
    (host.folder / "tmp").chmod(0o1777)
    shutil.copy(keys / "user", host.home / ".ssh" / "id_ed25519")
    for name in ("host", "user.pub"):
        shutil.copy(keys / name, host.folder)
    (host.folder / "sshd.conf").write_text(SSHD.format(address=host.address))
    lines = Path("/etc/passwd").read_text().splitlines()
    root = f"root:x:0:0:root:{HOME}:/bin/bash"
    (host.folder / "passwd").write_text(
        "\n".join([root, *(line for line in lines if line.split(":")[0] != "root"), ""])
    )
    script = BOOT.format(
        home=host.home,
        tmp=host.folder / "tmp",
        common=common,
        shared=SHARED,
        inner_home=HOME,
        name=host.name,
        link="cable",
        address=host.address,
        sshd=TOOLS[0],
    )
    # the new root of the mounts is private, so that nothing of this reaches the machine
    spaces = [
        "--propagation=private",
        "--fork",
        "--pid",
        "--kill-child",
        "--mount-proc",
        "--mount",
        "--uts",
        "--net",
        "--ipc",
    ]
    with (host.folder / "boot.log").open("wb") as log:
        process = subprocess.Popen(["unshare", *spaces, "bash", "-c", script], stdout=log, stderr=log)
    host.pid = process.pid
    return process


def connect(one: Host, other: Host) -> None:
    """A cable between two hosts."""
    end = time.monotonic() + 10
    while time.monotonic() < end and not all(_has_own_network(host) for host in (one, other)):
        time.sleep(0.05)
    name = f"ps{one.pid % 10**6}"
    ends = [f"{name}a", "netns", str(one.pid)], [f"{name}b", "netns", str(other.pid)]
    subprocess.run(["ip", "link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1]], check=True)
    for host, link in ((one, f"{name}a"), (other, f"{name}b")):
        subprocess.run(["nsenter", "-t", str(host.pid), "-n", "ip", "link", "set", link, "name", "cable"], check=True)


def _has_own_network(host: Host) -> bool:
    own = Path(f"/proc/{host.pid}/ns/net").readlink()
    return own != Path("/proc/self/ns/net").readlink()


def wait_for_sshd(host: Host, asking: Host) -> None:
    """Until the host lets the other in."""
    end = time.monotonic() + 20
    line = f"ssh -o StrictHostKeyChecking=no -o ConnectTimeout=2 root@{host.address} true"
    while "posesweep" not in (said := asking.run(f"{line} && hostname", check=False)):
        assert time.monotonic() < end, said + (host.folder / "boot.log").read_text()
        time.sleep(0.3)
