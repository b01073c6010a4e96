"""Lists a directory while it changes: listing.py DIR ENTRIES ROUNDS.

Another process creates and removes entries with names of their own, each used once. In every listing, each entry
that was there all the time must be seen exactly once, and no other name more than once.
"""

import collections
import itertools
import os
import signal
import sys
import time


def change(directory):
    """Creates entries and removes them, always about 200 of them at a time, until it is killed."""
    alive = collections.deque()
    for number in itertools.count():
        name = f"{directory}/passing {number}"
        if number % 3 == 0:
            os.symlink("x", name)
        else:
            os.mknod(name)
        alive.append(name)
        # In turns from the oldest and from the newest: gaps near both ends of the listing.
        if len(alive) > 200:
            os.unlink(alive.popleft() if number % 2 else alive.pop())


def listing(directory, entries):
    seen = collections.Counter(os.listdir(directory))
    twice = [name for name, times in seen.items() if times > 1]
    missing = [name for name in (f"stable {n}" for n in range(entries)) if name not in seen]
    strange = [name for name in seen if not name.startswith(("stable ", "passing "))]
    if twice or missing or strange:
        sys.exit(f"listing: twice {twice[:5]} ({len(twice)}), missing {missing[:5]} ({len(missing)}), strange {strange[:5]}")
    passing = [int(name.split()[1]) for name in seen if name.startswith("passing ")]
    return len(passing), max(passing, default=0)


def main():
    directory, entries, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    began = time.time()
    for number in range(entries):
        os.mknod(f"{directory}/stable {number}")
    print(f"listing: {entries} entries made in {time.time() - began:.0f} s", flush=True)
    child = os.fork()
    if child == 0:
        change(directory)
    try:
        newest = []
        for _ in range(rounds):
            time.sleep(0.5)  # lets the other process change something that the client has cached
            began = time.time()
            passing, last = listing(directory, entries)
            newest.append(last)
            print(f"listing: {entries} stable entries once each, {passing} passing, {time.time() - began:.1f} s", flush=True)
        if newest != sorted(set(newest)):
            sys.exit(f"listing: the directory did not change between listings: {newest}")
    finally:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        sys.exit("listing: the process that changes the directory failed")
    print(f"listing: {newest[-1]} other entries came and went")


main()
