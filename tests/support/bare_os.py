"""Removes from this process the features that an operating system without POSIX lacks: see `strip`.

The names are those that the stdlib's documentation calls unavailable on Windows, and the socket options that
macOS does not have, or has under other names.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from types import ModuleType

#: Python itself uses these under Linux at import, and has other code for other systems.
_OF_THE_STDLIB = (subprocess,)

MODULES = ("fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty")
NAMES: dict[ModuleType, str] = {
    os: """
        fork forkpty register_at_fork vfork posix_spawn posix_spawnp wait wait3 wait4 waitid
        getuid geteuid getgid getegid getgroups getresuid setuid seteuid setgid setegid setreuid setgroups
        initgroups getpgid getpgrp setpgid setpgrp getsid setsid killpg nice getpriority setpriority uname
        sysconf sysconf_names confstr pathconf statvfs fstatvfs sched_getaffinity sched_setaffinity
        sched_yield chown fchown lchown chroot mkfifo mknod pread pwrite preadv pwritev readv writev sendfile
        getloadavg eventfd memfd_create pidfd_open ctermid ttyname tcgetpgrp tcsetpgrp openpty
        posix_fadvise posix_fallocate getxattr setxattr listxattr makedev sync fdatasync lockf pipe2 splice
        copy_file_range O_NONBLOCK O_DIRECTORY O_NOFOLLOW O_CLOEXEC WNOHANG WIFEXITED WEXITSTATUS
        WIFSIGNALED WTERMSIG get_blocking set_blocking
    """,
    select: "epoll poll kqueue",
    signal: """
        SIGKILL SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGPIPE SIGWINCH
        SIGTTIN SIGTTOU pthread_sigmask pthread_kill sigwait sigwaitinfo sigtimedwait sigpending
        setitimer getitimer alarm pause siginterrupt SIG_BLOCK SIG_UNBLOCK SIG_SETMASK
    """,
    socket: """
        AF_UNIX AF_NETLINK AF_VSOCK SO_REUSEPORT SOCK_NONBLOCK SOCK_CLOEXEC MSG_DONTWAIT MSG_NOSIGNAL
        SCM_RIGHTS TCP_QUICKACK TCP_USER_TIMEOUT TCP_KEEPIDLE TCP_KEEPINTVL TCP_KEEPCNT send_fds recv_fds
    """,
    time: "clock_gettime clock_settime clock_getres pthread_getcpuclockid tzset",
}


def strip() -> None:
    """Remove the features, for this process and all its later imports."""
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # so an import of it fails
    for module, names in NAMES.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    _open_all_files()


def check(names: str) -> None:
    """Check that importing these modules does not bring any of the features back."""
    for name in names.split():
        importlib.import_module(name)
    for module, missing in NAMES.items():
        found = [name for name in missing.split() if hasattr(module, name)]
        assert not found, f"{module.__name__} has {found}"


def _open_all_files() -> None:
    """Report every file as open to all users, as Windows does for each writable file."""
    fstat = os.fstat

    def told(fd: int) -> os.stat_result:
        mode, *others = fstat(fd)
        return os.stat_result((int(mode) | stat.S_IRWXU | stat.S_IROTH | stat.S_IWOTH, *others))

    os.fstat = told
