"""Makes .schemas/, one folder of strict JSON schemas a release of Kubernetes. Does nothing when it is up to date.

They stand in a wheel, which is unpacked and not installed. Safe to call from several processes at once.
"""
from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

CI = pathlib.Path(__file__).resolve().parent
SCHEMAS = CI.parent / ".schemas"
REQUIREMENTS = CI / "requirements-schemas.txt"
# The oldest release that the chart is tested for in all its modes, and the newest.
RELEASES = ("1.30.0", "1.37.0")


def pip() -> list[str]:
    """The pip of this Python, or else that of the tools."""
    own = bool(importlib.util.find_spec("pip"))
    return [sys.executable if own else str(CI.parent / ".tools/bin/python"), "-m", "pip"]


def install() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [*pip(), "download", "--require-hashes", "--no-deps", "--only-binary", ":all:", "--quiet",
                   "--disable-pip-version-check", "--no-input", "-d", folder, "-r", str(REQUIREMENTS)]
        if subprocess.run(command, stdout=sys.stderr).returncode:
            sys.exit("make tools: the schemas of Kubernetes cannot be had")
        with zipfile.ZipFile(next(pathlib.Path(folder).glob("*.whl"))) as wheel:
            for release in RELEASES:
                prefix = f"kubernetes_validate/kubernetes-json-schema/v{release}-local-strict/"
                target = SCHEMAS / release
                shutil.rmtree(target, ignore_errors=True)
                target.mkdir()
                for name in wheel.namelist():
                    if name.startswith(prefix) and name.endswith(".json"):
                        # They say that they are on a server, and refer to each other there. Here they are neighbours.
                        schema = json.loads(wheel.read(name).replace(b'"/api/_definitions.json#', b'"_definitions.json#'))
                        schema.pop("$id", None)
                        (target / pathlib.PurePosixPath(name).name).write_text(json.dumps(schema))
                if not (target / "_definitions.json").exists():
                    sys.exit(f"make tools: the wheel has no schemas of Kubernetes {release}")


def main() -> None:
    want = hashlib.sha256(REQUIREMENTS.read_bytes() + pathlib.Path(__file__).read_bytes()).hexdigest()
    SCHEMAS.mkdir(exist_ok=True)
    stamp = SCHEMAS / "stamp"
    with open(SCHEMAS / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == want:
            return
        print("make tools: bringing the schemas of Kubernetes into .schemas/", file=sys.stderr)
        install()
        stamp.write_text(want)


if __name__ == "__main__":
    main()
