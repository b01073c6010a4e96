"""Programs that lock: locking.py DIR EXPECTED NAME.

EXPECTED is "denied" (a lock is refused with ENOLCK), "local" (locks hold, on this client), or "flock-local" (those of
flock hold, the others are refused). Each program has its own process, and is ended when it hangs.
"""

import errno
import fcntl
import json
import os
import sqlite3
import struct
import subprocess
import sys
import time

# Far more than any of them takes when somebody answers.
HANGS_SECONDS = 60


def outcome(function, *args):
    """What an attempt came to: "ok", or the name of its error."""
    try:
        function(*args)
        return "ok"
    except OSError as error:
        return errno.errorcode[error.errno]
    except sqlite3.OperationalError as error:
        return str(error)


def with_fcntl(path):
    with open(path, "w") as file:
        yield outcome(fcntl.lockf, file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield outcome(fcntl.lockf, file, fcntl.LOCK_UN)
        yield outcome(fcntl.lockf, file, fcntl.LOCK_EX)
        yield outcome(fcntl.lockf, file, fcntl.LOCK_UN)


def with_fcntl_shared(path):
    with open(path, "w+") as file:
        yield outcome(fcntl.lockf, file, fcntl.LOCK_SH, 10, 5)
        yield outcome(fcntl.lockf, file, fcntl.LOCK_UN)


def with_fcntl_asked(path):
    """F_GETLK: is there a lock?"""
    with open(path, "w+") as file:
        ask = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        yield outcome(fcntl.fcntl, file, fcntl.F_GETLK, ask)


def with_flock(path):
    with open(path, "w") as file:
        yield outcome(fcntl.flock, file, fcntl.LOCK_EX)
        yield outcome(fcntl.flock, file, fcntl.LOCK_UN)


def with_flock_held(path):
    """Another process is kept out while the lock is held."""
    with open(path, "w") as file:
        yield outcome(fcntl.flock, file, fcntl.LOCK_EX)
        other = subprocess.run(["flock", "-n", path, "true"], stderr=subprocess.DEVNULL)
        yield "kept out" if other.returncode == 1 else f"flock ends with {other.returncode}"


def with_flock_command(path):
    done = subprocess.run(["flock", path, "true"], stderr=subprocess.PIPE, text=True)
    said = done.stderr.strip().rpartition(": ")[2]
    yield "ok" if done.returncode == 0 else f"flock ends with {done.returncode}: {said}"


def with_sqlite(path):
    def use():
        with sqlite3.connect(path, timeout=0) as data:
            data.execute("create table if not exists t (n integer)")
            data.execute("insert into t values (1)")
        data.close()

    yield outcome(use)


def with_sqlite_without_locks(path):
    def use():
        with sqlite3.connect(f"file:{path}?vfs=unix-none", uri=True) as data:
            data.execute("create table if not exists t (n integer)")
            data.execute("insert into t values (1)")
        data.close()

    yield outcome(use)


def without_locks(path):
    """What needs none goes on."""
    with open(path, "w") as file:
        file.write("x")
    yield "ok"


# Each with what it gets where locks hold, and where there are none.
ENOLCK_FOUR = ["ENOLCK", "ok", "ENOLCK", "ok"]
PROGRAMS = [
    (with_fcntl, "fcntl", ["ok"] * 4, ENOLCK_FOUR),
    (with_fcntl_shared, "fcntl", ["ok"] * 2, ["ENOLCK", "ok"]),
    (with_fcntl_asked, "fcntl", ["ok"], ["ENOLCK"]),
    (with_flock, "flock", ["ok"] * 2, ["ENOLCK", "ok"]),
    (with_flock_held, "flock", ["ok", "kept out"], ["ENOLCK", "flock ends with 71"]),
    (with_flock_command, "flock", ["ok"], ["flock ends with 71: No locks available"]),
    (with_sqlite, "fcntl", ["ok"], ["database is locked"]),
    (with_sqlite_without_locks, None, ["ok"], None),
    (without_locks, None, ["ok"], None),
]


def of_a_child(name, path):
    """What a program finds, in a process of its own."""
    child = subprocess.Popen([sys.executable, __file__, name, path], stdout=subprocess.PIPE, text=True)
    try:
        out, _ = child.communicate(timeout=HANGS_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()  # and not waited for: it may not be able to end
        return "HANGS"
    return json.loads(out) if child.returncode == 0 else f"ended with {child.returncode}"


def judged(directory, expected, name):
    """Whether all programs found what they should."""
    passed = True
    for function, kind, holds, denied in PROGRAMS:
        path = f"{directory}/{function.__name__}"
        for left in (path, path + "-journal"):
            if os.path.exists(left):
                os.unlink(left)
        denies = kind is not None and (expected == "denied" or (expected == "flock-local" and kind != "flock"))
        wanted = denied if denies else holds
        began = time.time()
        found = of_a_child(function.__name__, path)
        took = time.time() - began
        word = "ok" if found == wanted else f"FAILED, expected {wanted}"
        passed &= found == wanted
        print(f"{name}: {function.__name__}: {found} after {took:.2f} s: {word}", flush=True)
    return passed


def main():
    if len(sys.argv) == 3:
        name, path = sys.argv[1:]
        print(json.dumps(list(globals()[name](path))))
    else:
        sys.exit(0 if judged(*sys.argv[1:]) else 1)


main()
