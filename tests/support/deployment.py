"""A deployment of several hosts, made by the commands of docs/deploy/hosts.md."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.networks import HostNetwork
from tests.support.readme import blocks, section
from tests.support.svc import ROOT
from tests.support.systemd_host import LIBRARIES, Hosts

PAGE = ROOT / "docs" / "deploy" / "hosts.md"
MANAGER, WORKERS, CLIENT = "queue-host", ("host-b", "host-c"), "host-d"
HOSTS = (MANAGER, *WORKERS, CLIENT)
#: Seconds of a lease, which are more outside of a test.
LEASE = 5
#: The hosts that the page calls so in its table of open ports.
_CALLED = {"manager": (MANAGER,), "workers": WORKERS, "clients": (CLIENT,), "Prometheus": (CLIENT,)}
_HELD = '''

def held(gate: str) -> str:
    """Return the name of the host, once there is a file on it."""
    import pathlib
    import time

    while not (pathlib.Path("/srv/svc") / gate).exists():
        time.sleep(0.01)
    return where()


def bounds() -> dict[str, object]:
    """Return what this process may do on its host."""
    import os
    import pathlib

    def allowed(action, *arguments) -> bool:
        try:
            action(*arguments)
        except OSError:
            return False
        return True

    status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
    owners = {os.stat(f"/proc/{each}").st_uid for each in os.listdir("/proc") if each.isdigit()}
    return {
        "writes": [
            folder
            for folder in ("/etc", "/srv/svc", "/opt/svc", "/dev/shm", "/tmp", "/var/lib/svc-worker")
            if allowed(pathlib.Path(folder, "written").write_text, "")
        ],
        "reads": [file for file in ("/etc/svc/work.key", "/root") if os.access(file, os.R_OK)],
        "root": os.getuid() == 0,
        "sees others": bool(owners - {os.getuid()}),
        "has a group": "/svc-worker.service/svc-worker-" in open("/proc/self/cgroup").read(),
        "chroot": allowed(os.chroot, "/tmp"),
        **{name: int(status[name], 16) for name in ("CapBnd", "CapEff", "NoNewPrivs", "Seccomp")},
    }
'''


class Deployment:
    """The hosts, their network, and what people do on them.

    Attributes:
        network: the network of the hosts.
        hosts: the hosts by name.
    """

    def __init__(self, network: HostNetwork, computers: Hosts) -> None:
        self.network = network
        self._computers = computers
        self.hosts = computers.running

    def build(self) -> None:
        """Close all ports but those of the page, and follow it."""
        for host, openings in _openings().items():
            self.network.allow_only(host, openings)
        self.make_keys()
        assert self.follow(MANAGER, "The manager") == "ok\n"
        for worker in WORKERS:
            self.follow(worker, "The workers")

    def follow(self, host: str, title: str, place: int = 0) -> str:
        """Run a block of commands of a section on a host; return what it prints."""
        return self.hosts[host].script(blocks(section(title, PAGE))[place])

    def make_keys(self) -> None:
        """Make keys and certificates, and give each host its own ones; `ssh` and `scp` are played."""
        made, given = blocks(section("Keys and certificates", PAGE))
        self.hosts[MANAGER].script(made)
        for line in (given + given.replace("host-b", "host-c")).splitlines():
            if line.startswith("ssh "):
                _, login, command = line.split(maxsplit=2)
                self.hosts[login.partition("@")[2]].script(command)
            else:
                _, *sources, target = line.split()
                host, _, folder = target.partition("@")[2].partition(":")
                for source in sources:
                    self.copy(MANAGER, source, host, folder)

    def copy(self, host: str, source: str, other: str, folder: str) -> None:
        shutil.copy(self.hosts[host].root / source.lstrip("/"), self.hosts[other].root / folder.lstrip("/"))

    @staticmethod
    def lines(title: str, language: str) -> str:
        """Return the first block of a section in this language."""
        return blocks(section(title, PAGE), language)[0]

    def operate(self, title: str) -> str:
        """Run the first block of a section as the operator, on the manager's host; return what it prints."""
        return self.hosts[MANAGER].script(blocks(section(title, PAGE))[0], **self._settings(MANAGER))

    def replace_manager(self, backup: str) -> None:
        """Let the manager's host be lost, and follow the page with the copies that its operator has."""
        kept = self._computers.base
        old = self.hosts[MANAGER].root
        shutil.copytree(old / "etc/svc", kept / "etc/svc")
        (kept / "root").mkdir(mode=0o700)
        shutil.copy(old / backup.lstrip("/"), kept / "root/nightly.db")
        new = self._computers.boot(MANAGER)
        installing = blocks(section("The manager", PAGE))[0].partition("systemctl enable")[0]
        new.script(installing + blocks(section("If a host is lost", PAGE))[0])

    @staticmethod
    def _settings(host: str) -> dict[str, str]:
        """Return the variables that the page has for a person on this host."""
        title = "Submit" if host == CLIENT else "The manager"
        exports = blocks(section(title, PAGE))[-1]
        return dict(re.findall(r"(\bSVC_\w+)=(\S+)", exports))

    def run(self, host: str, *words: str, **settings: str) -> tuple[int, str, str]:
        """Run `svc` on a host, as its page has it; return exit code, stdout and stderr."""
        done = self.hosts[host].run("svc", *words, environment=self._settings(host) | settings)
        return done.returncode, done.stdout, done.stderr

    def submit(self, *words: str) -> str:
        """Submit a job on the client's host; return what that prints, without the end of the line."""
        code, printed, said = self.run(CLIENT, "submit", *words)
        assert code == 0, said
        return printed.strip()

    def open(self, gate: str, *hosts: str) -> None:
        """Let the jobs end that are held at a gate, on these hosts."""
        for host in hosts:
            (self.hosts[host].root / "srv/svc" / gate).touch()


def refusals() -> dict[str, tuple[str, int]]:
    """Return the message and the exit code of each cause, as the page has them."""
    rows = re.findall(
        r"^\| (.+?) \| `(.+?)` \| (\d+) \|$", section("If a host is refused", PAGE), re.MULTILINE
    )
    return {cause: (message, int(code)) for cause, message, code in rows}


def _openings() -> dict[str, list[tuple[str, int]]]:
    """Return from where each host may be reached, and at which port, as the page has it."""
    found: dict[str, list[tuple[str, int]]] = {host: [] for host in HOSTS}
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (\d+)/tcp \|$", section("Firewall", PAGE), re.MULTILINE)
    for sources, targets, port in rows:
        for source in sources.split(", "):
            for target in _CALLED[targets]:
                found[target] += [(peer, int(port)) for peer in _CALLED[source]]
    return found


def _prepare(base: Path, addresses: Mapping[str, str]) -> None:
    """Write what the page takes for granted, and settings that suit a test."""
    (base / "etc").mkdir(exist_ok=True)
    named = "".join(f"{address} {host}\n" for host, address in addresses.items())
    # The manager has a second name, which its certificate has not.
    (base / "etc/hosts").write_text(f"127.0.0.1 localhost\n{named}{addresses[MANAGER]} other-name\n")
    (tasks,) = blocks(section("The workers", PAGE), "python")
    (base / "srv/svc/mytasks.py").write_text(tasks + _HELD)
    edits = (
        ("svc-manager", f"Environment=SVC_LEASE={LEASE}s"),
        ("svc-worker", "Environment=SVC_CONSUMERS=1\nRestartSec=1s"),
    )
    for unit, lines in edits:
        edited = base / f"etc/systemd/system/{unit}.service.d"
        edited.mkdir(parents=True)
        (edited / "override.conf").write_text(f"[Service]\nEnvironment={LIBRARIES}\n{lines}\n")


@contextmanager
def deployed(folder: Path) -> Iterator[Deployment]:
    """Boot the hosts, with nothing on them yet but svc.

    Raises:
        OSError: that is not possible here; the message has the reason.
    """
    with ExitStack() as stack:
        network = HostNetwork(HOSTS)
        stack.callback(network.close)
        computers = Hosts(folder, network.namespaces)
        stack.callback(computers.close)
        _prepare(computers.base, network.addresses)
        for host in HOSTS:
            computers.boot(host)
        yield Deployment(network, computers)
