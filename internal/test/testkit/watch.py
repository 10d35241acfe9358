"""Runs one server and ends it when standard input closes, which it does however the test binary ends.

usage: watch.py STOP_SIGNAL UID:GID|- FOLDER PROGRAM [ARGUMENT...]

File descriptor 3 tells the starter "pid N" and then "exit STATUS". A line on standard input ends the server as well,
but keeps FOLDER, which is removed when the starter is gone. The server's output goes to this program's own; its group
is killed five seconds after the stop signal.
"""
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

stop, user, folder, *command = sys.argv[1:]
drop = {}
if user != "-":
    uid, gid = map(int, user.split(":"))
    drop = {"user": uid, "group": gid, "extra_groups": []}
report = os.fdopen(3, "w", buffering=1)
child = None
orphaned = False


def tell(line):
    try:
        print(line, file=report)
    except OSError:  # the starter is gone
        pass


def hunt(signum):
    try:
        os.killpg(child.pid, signum)
    except OSError:
        pass


def until_told():
    global orphaned
    orphaned = not os.read(0, 64)
    try:
        child.send_signal(int(stop))
        child.send_signal(signal.SIGCONT)
        child.wait(5)
    except (OSError, subprocess.TimeoutExpired):
        pass
    hunt(signal.SIGKILL)


try:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, **drop)
    tell(f"pid {child.pid}")
    threading.Thread(target=until_told, daemon=True).start()
    status = child.wait()
    hunt(signal.SIGKILL)  # what the server left behind
    tell(f"exit {status}")
except OSError as e:
    tell(f"error {e}")
finally:
    # What the server has started may still be writing: a folder that was not empty in the end is tried again.
    for _ in range(100):
        if not orphaned or not os.path.lexists(folder):
            break
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1)
