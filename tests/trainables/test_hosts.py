"""What is said of machines before `ray up`."""

import pytest
import yaml

from posesweep.errors import ConfigError, SweepError
from posesweep.trainables import hosts
from posesweep.trainables.hosts import check_hosts, mistake_of, what_ssh_says

WHO = "ann with ~/.ssh/key"


@pytest.mark.parametrize(
    ("code", "out", "errors", "words"),
    [
        (0, "", "Warning: Permanently added", ""),
        (
            255,
            "",
            "ann@10.0.0.9: Permission denied (publickey).\n",
            "does not let in ann with ~/.ssh/key; put the public key into its ~/.ssh/authorized_keys, or name another "
            "in auth",
        ),
        (
            255,
            "",
            "ssh: connect to host 10.0.0.9 port 22: No route to host\n",
            "cannot be reached (ssh: connect to host 10.0.0.9 port 22: No route to host); look at the address, the "
            "machine and its firewall",
        ),
        (0, "no make\nno rsync\n", "", "has no make and no rsync; install them there"),
        (0, "Python 3.9.2\n", "", "its python3 is Python 3.9.2; install 3.11 or newer there"),
        (
            127,
            "",
            "sh: python3: not found\n",
            "answers, but cannot run python3 (sh: python3: not found); install Python 3.11 or newer there",
        ),
    ],
)
def test_what_ssh_says_in_a_sentence(code, out, errors, words):
    assert what_ssh_says(code, out, errors, WHO) == words


def test_every_machine_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(hosts, "mistake_of", lambda address, auth: "is wrong" if address.endswith("2") else "")
    file = tmp_path / "cluster.yaml"
    provider = {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2", "10.0.0.12"]}
    file.write_text(yaml.safe_dump({"provider": provider, "auth": {"ssh_user": "ann"}}))
    with pytest.raises(SweepError) as refused:
        check_hosts(file)
    assert str(refused.value).splitlines()[1:] == [
        "  10.0.0.2: is wrong",
        "  10.0.0.12: is wrong",
        f"  {tmp_path}/.ray/auth_token is missing; make one with `ray get-auth-token --generate`",
    ]


def test_other_files_are_refused(tmp_path):
    file = tmp_path / "aws.yaml"
    file.write_text("provider: {type: aws}\n")
    with pytest.raises(ConfigError, match="only machines to ssh to are checked"):
        check_hosts(file)
    file.write_text("provider: {type: local, head_ip: 10.0.0.1}\n")
    with pytest.raises(ConfigError, match=r"provider\.worker_ips is missing"):
        check_hosts(file)
    file.write_text("provider: {type: local")
    with pytest.raises(ConfigError, match=r"aws\.yaml: is no YAML \(while parsing"):
        check_hosts(file)
    file.write_text("provider:\n")
    with pytest.raises(ConfigError, match="only machines to ssh to are checked"):
        check_hosts(file)
    file.write_text("provider: {type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2]}\nauth:\n")
    with pytest.raises(ConfigError, match=r"auth\.ssh_user is missing"):
        check_hosts(file)


def test_a_key_that_is_not_there(tmp_path):
    auth = {"ssh_user": "ann", "ssh_private_key": str(tmp_path / "key")}
    assert mistake_of("10.0.0.1", auth).startswith(f"the key {tmp_path}/key is not there")
