"""Before `ray up`: can every machine of a cluster file be reached, with that key, and does it have what is needed?

`ray up` itself waits five minutes for a machine that does not answer, and does not say why.
"""

import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from posesweep.errors import ConfigError, SweepError

ANSWER_S = 10
SSH_FAILED = 255  # ssh(1): the exit code of ssh itself, not of the command
OPTIONS = ("BatchMode=yes", f"ConnectTimeout={ANSWER_S}", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
LOOK = "for tool in make rsync; do command -v $tool >/dev/null || echo no $tool; done; python3 -c '{check}'"
CHECK = 'import sys; sys.version_info < (3, 11) and print("Python", sys.version.split()[0])'


def check_hosts(file: Path) -> str:
    """What to print when all is well. SweepError with one sentence for each machine with which it is not; ConfigError
    for a file that is not of machines to ssh to."""
    config = _read(file)
    addresses = [config["provider"]["head_ip"], *config["provider"]["worker_ips"]]
    with ThreadPoolExecutor(16) as at_once:
        found = list(at_once.map(partial(mistake_of, auth=config["auth"]), addresses))
    wrong = [f"{address}: {mistake}" for address, mistake in zip(addresses, found, strict=True) if mistake]
    if not (token := Path("~/.ray/auth_token").expanduser()).is_file():
        wrong.append(f"{token} is missing; make one with `ray get-auth-token --generate`")
    if wrong:
        raise SweepError("\n".join([f"{file}: the cluster cannot be started:", *(f"  {line}" for line in wrong)]))
    return f"all {len(addresses)} machines answer; start the cluster with `ray up -y {file}`"


def _read(file: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(config, dict) or (config.get("provider") or {}).get("type") != "local":
        raise ConfigError(f"{file}: has no provider: {{type: local}}; only machines to ssh to are checked")
    for block, name in (("provider", "head_ip"), ("provider", "worker_ips"), ("auth", "ssh_user")):
        if not (config.get(block) or {}).get(name):
            raise ConfigError(f"{file}: {block}.{name} is missing; see cluster.yaml of PoseSweep")
    return config


def mistake_of(address: str, auth: Mapping[str, str]) -> str:
    """What is wrong with a machine, in a sentence; '' when nothing is."""
    user, key = auth["ssh_user"], auth.get("ssh_private_key")
    if key and not Path(key).expanduser().is_file():
        return f"the key {key} is not there; name yours as auth.ssh_private_key"
    identity = ["-i", str(Path(key).expanduser()), "-o", "IdentitiesOnly=yes"] if key else []
    options = [part for option in OPTIONS for part in ("-o", option)]
    command = ["ssh", *identity, *options, f"{user}@{address}", LOOK.format(check=CHECK)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=4 * ANSWER_S, check=False)
    except subprocess.TimeoutExpired:
        return f"does not answer within {4 * ANSWER_S} seconds; is it overloaded?"
    return what_ssh_says(done.returncode, done.stdout, done.stderr, f"{user} with {key or 'your keys'}")


def what_ssh_says(code: int, out: str, errors: str, who: str) -> str:
    """What is wrong, from ssh's exit code and words; '' when nothing is."""
    last = next((line.strip() for line in reversed(errors.splitlines()) if line.strip()), "")
    if code == SSH_FAILED and "Permission denied" in errors:
        return f"does not let in {who}; put the public key into its ~/.ssh/authorized_keys, or name another in auth"
    if code == SSH_FAILED:
        return f"cannot be reached ({last}); look at the address, the machine and its firewall"
    lacking = [line.removeprefix("no ") for line in out.splitlines() if line.startswith("no ")]
    if lacking:
        return f"has no {' and no '.join(lacking)}; install {'it' if len(lacking) == 1 else 'them'} there"
    old = next((line for line in out.splitlines() if line.startswith("Python")), "")
    if old:
        return f"its python3 is {old}; install 3.11 or newer there"
    return f"answers, but cannot run python3 ({last}); install Python 3.11 or newer there" if code else ""
