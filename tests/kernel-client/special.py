"""Checks of a mounted file system, one function each: special.py DIR (as root).

Prints a line for each check that fails and one with the count; the exit status is 0 only if none failed.
"""

import errno
import mmap
import multiprocessing
import os
import socket
import stat
import sys
import time
import traceback

TIB = 1 << 40
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def equal(seen, wanted, what=""):
    if seen != wanted:
        raise AssertionError(f"{what or 'value'}: seen {seen!r}, wanted {wanted!r}")


def fails(code, function, *arguments, **named):
    """`function` must fail with the error `code` (or one of several)."""
    codes = code if isinstance(code, tuple) else (code,)
    try:
        function(*arguments, **named)
    except OSError as error:
        if error.errno not in codes:
            raise AssertionError(f"seen {error!r}, wanted {[errno.errorcode[c] for c in codes]}") from error
        return
    raise AssertionError(f"succeeded, wanted {[errno.errorcode[c] for c in codes]}")


def write(name, data=b"", mode=0o644):
    with open(name, "wb") as file:
        file.write(data)
    os.chmod(name, mode)


def read(name):
    with open(name, "rb") as file:
        return file.read()


def forget():
    """Drops what the client has cached, as far as nothing holds it open."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as caches:
        caches.write("3")


def until(condition, what):
    ends = time.monotonic() + 20
    while not condition():
        if time.monotonic() > ends:
            raise AssertionError(f"not within 20 s: {what}")
        time.sleep(0.02)


def run(function, *arguments):
    """Starts a process that runs `function`."""
    process = multiprocessing.Process(target=function, args=arguments)
    process.start()
    return process


def done(*processes):
    for process in processes:
        process.join(60)
        equal(process.exitcode, 0, "status of the other process")


def as_user(uid, gid, function, *arguments):
    def change():
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        function(*arguments)

    done(run(change))


# --- kinds of files ---


@check
def hard_links():
    write("a", b"data")
    for number in range(50):
        os.link("a", f"link {number}")
    equal(os.stat("a").st_nlink, 51)
    os.unlink("a")
    forget()
    equal(os.stat("link 7").st_nlink, 50)
    equal(len({os.stat(f"link {n}").st_ino for n in range(50)}), 1)
    equal(read("link 49"), b"data")
    os.mkdir("directory")
    fails(errno.EPERM, os.link, "directory", "other")
    fails(errno.EEXIST, os.link, "link 1", "link 2")


@check
def directory_links():
    os.mkdir("d")
    for number in range(5):
        os.mkdir(f"d/{number}")
    equal(os.stat("d").st_nlink, 7)
    os.rmdir("d/0")
    os.mkdir("e")
    os.rename("d/1", "e/1")
    equal((os.stat("d").st_nlink, os.stat("e").st_nlink), (5, 3))
    equal(os.stat("e/1/..").st_ino, os.stat("e").st_ino)


@check
def symbolic_links():
    for length in (1, 59, 60, 255, 1023, 1024, 4094, 4095):
        os.symlink("x" * length, f"link {length}")
    forget()
    for length in (1, 59, 60, 255, 1023, 1024, 4094, 4095):
        equal(os.readlink(f"link {length}"), "x" * length)
        equal(os.lstat(f"link {length}").st_size, length)
    fails(errno.ENAMETOOLONG, os.symlink, "x" * 4096, "long")
    os.symlink(b"\xff\xfe/\x01", b"bytes")
    equal(os.readlink(b"bytes"), b"\xff\xfe/\x01")
    os.symlink("loop", "loop")
    fails(errno.ELOOP, open, "loop")
    os.lchown("loop", 7, 8)
    equal((os.lstat("loop").st_uid, os.lstat("loop").st_gid), (7, 8))


@check
def fifos():
    os.mkfifo("fifo")
    os.chmod("fifo", 0o620)
    equal(stat.filemode(os.stat("fifo").st_mode), "prw--w----")
    writer = run(write, "fifo", b"through the pipe" * 1000, 0o620)
    equal(read("fifo"), b"through the pipe" * 1000)
    done(writer)


@check
def sockets():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("socket")
    listener.listen()
    forget()
    equal(stat.S_IFMT(os.stat("socket").st_mode), stat.S_IFSOCK)

    def talk():
        with socket.socket(socket.AF_UNIX) as other:
            other.connect("socket")
            other.sendall(b"hello")

    other = run(talk)
    with listener.accept()[0] as peer:
        equal(peer.recv(100), b"hello")
    done(other)
    listener.close()
    os.unlink("socket")


@check
def devices():
    for kind, major, minor in ((stat.S_IFCHR, 1, 3), (stat.S_IFBLK, 7, 200), (stat.S_IFCHR, 300, 70000)):
        name = f"{kind} {major}"
        os.mknod(name, kind | 0o600, os.makedev(major, minor))
    forget()
    for kind, major, minor in ((stat.S_IFCHR, 1, 3), (stat.S_IFBLK, 7, 200), (stat.S_IFCHR, 300, 70000)):
        seen = os.stat(f"{kind} {major}")
        equal(stat.S_IFMT(seen.st_mode), kind)
        equal((os.major(seen.st_rdev), os.minor(seen.st_rdev)), (major, minor))
    null = f"{stat.S_IFCHR} 1"
    equal(read(null), b"")
    os.mkdir("public", 0o777)
    os.chmod("public", 0o777)
    as_user(1, 1, fails, errno.EPERM, os.mknod, "public/device", stat.S_IFCHR | 0o600, os.makedev(1, 3))


# --- data ---


@check
def sparse_files():
    with open("sparse", "wb") as file:
        file.seek(100 << 20)
        file.write(b"end")
        file.seek(50 << 20)
        file.write(b"middle")
    forget()
    seen = os.stat("sparse")
    equal(seen.st_size, (100 << 20) + 3)
    with open("sparse", "rb") as file:
        equal(file.read(1 << 20), bytes(1 << 20))
        file.seek((50 << 20) - 10)
        equal(file.read(26), bytes(10) + b"middle" + bytes(10))
    # Programs that skip holes look for fewer blocks than the size needs: data must never seem to be a hole.
    # Haven counts holes as blocks, because all nodes must show the same.
    write("full", b"x" * (1 << 20))
    forget()
    if os.stat("full").st_blocks * 512 < 1 << 20:
        raise AssertionError(f"a full MiB takes {os.stat('full').st_blocks} blocks only")


@check
def cut_and_grown():
    write("file", b"x" * 10000)
    os.truncate("file", 5000)
    os.truncate("file", 20000)
    forget()
    equal(read("file"), b"x" * 5000 + bytes(15000))


@check
def large_offsets():
    data = b"far away"
    with open("far", "wb") as file:
        file.seek(8 * TIB)
        file.write(data)
    forget()
    equal(os.stat("far").st_size, 8 * TIB + len(data))
    with open("far", "rb") as file:
        file.seek(8 * TIB - 4096)
        equal(file.read(), bytes(4096) + data)
    os.truncate("far", 4 * TIB)
    os.truncate("far", 8 * TIB + 100)
    with open("far", "rb") as file:
        file.seek(8 * TIB)
        equal(file.read(), bytes(100))


@check
def beyond_the_maximum():
    """A size is either taken, and then data there are kept, or refused with EFBIG."""
    write("file")
    taken = []
    for bits in range(44, 64):
        size = (1 << bits) - 1
        try:
            os.truncate("file", size)
        except OSError as error:
            equal(error.errno, errno.EFBIG)
            break
        equal(os.stat("file").st_size, size)
        write_at("file", size - 1, bytes([bits]))
        taken.append(bits)
    forget()
    descriptor = os.open("file", os.O_RDWR)
    try:
        for bits in taken:
            equal(os.pread(descriptor, 2, (1 << bits) - 3), bytes([0, bits]), f"before 2^{bits}")
        fails((errno.EFBIG, errno.EINVAL), os.pwrite, descriptor, b"x", (1 << 63) - 1)
        fails((errno.EFBIG, errno.EINVAL), os.ftruncate, descriptor, -1)
    finally:
        os.close(descriptor)


@check
def mapped_writes():
    write("map", bytes(1 << 20))
    with open("map", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[4090:4102] = b"across pages"
        memory[-5:] = b"tail!"
        memory.flush()
    forget()
    data = read("map")
    equal(data[4090:4102], b"across pages")
    equal(data[-5:], b"tail!")
    equal(data[:4090], bytes(4090))


@check
def direct_io():
    buffer = mmap.mmap(-1, 1 << 16)
    buffer[:] = os.urandom(256) * 256
    wanted = bytes(buffer)
    descriptor = os.open("direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    equal(os.pwritev(descriptor, [buffer], 4096), 1 << 16)
    equal(os.fstat(descriptor).st_size, 4096 + (1 << 16))
    # What another process writes through its cache is seen at once.
    done(run(write_at, "direct", 4096, b"fresh"))
    buffer[:] = bytes(1 << 16)
    equal(os.preadv(descriptor, [buffer], 4096), 1 << 16)
    equal(bytes(buffer), b"fresh" + wanted[5:])
    os.close(descriptor)
    equal(read("direct")[:4096], bytes(4096))


def write_at(name, offset, data):
    descriptor = os.open(name, os.O_WRONLY)
    os.pwrite(descriptor, data, offset)
    os.fsync(descriptor)
    os.close(descriptor)


@check
def unlinked_but_open():
    with open("gone", "w+b") as file:
        file.write(b"before")
        file.flush()
        os.unlink("gone")
        fails(errno.ENOENT, os.stat, "gone")
        file.write(b" and after")
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        equal(file.read(), b"before and after")
        hidden = os.listdir(".")
        equal([name[:4] for name in hidden], [".nfs"], "what the client keeps the data under")
    # Having closed the file, the client removes it in its own time.
    until(lambda: os.listdir(".") == [], "the hidden name goes")


@check
def replaced_but_open():
    write("old", b"old")
    write("new", b"new")
    with open("old", "rb") as file:
        os.rename("new", "old")
        equal(file.read(), b"old")
        equal(read("old"), b"new")


@check
def append_from_two_processes():
    """NFS has no append: the client seeks to the end it knows, so that processes of one client lose nothing."""

    def append(letter):
        descriptor = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number in range(1000):
            os.write(descriptor, f"{letter} {number}\n".encode())
        os.close(descriptor)

    done(*[run(append, letter) for letter in "ab"])
    forget()
    lines = read("log").decode().splitlines()
    for letter in "ab":
        equal([line for line in lines if line[0] == letter], [f"{letter} {n}" for n in range(1000)])
    equal(len(lines), 2000)


@check
def exclusive_creation():
    """Of four processes that create the same names, one gets each."""

    def create(number):
        won = 0
        for name in range(100):
            try:
                os.close(os.open(f"x {name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))
                won += 1
            except FileExistsError:
                pass
        write(f"won {number}", str(won).encode())

    done(*[run(create, number) for number in range(4)])
    equal(sum(int(read(f"won {number}")) for number in range(4)), 100)
    forget()
    equal({stat.S_IMODE(os.stat(f"x {n}").st_mode) for n in range(100)}, {0o640})
    equal(max(abs(os.stat(f"x {n}").st_mtime - os.stat("won 0").st_mtime) for n in range(100)) < 60, True, "times")


# --- names ---


@check
def rename_over():
    write("a", b"a")
    write("b", b"b")
    os.rename("a", "b")
    equal((read("b"), os.path.exists("a")), (b"a", False))
    os.rename("b", "b")
    os.link("b", "c")
    os.rename("b", "c")  # two names of one file: nothing happens
    equal(sorted(os.listdir(".")), ["b", "c"])
    os.mkdir("empty")
    os.mkdir("full")
    write("full/x")
    fails((errno.ENOTEMPTY, errno.EEXIST), os.rename, "empty", "full")
    fails(errno.EISDIR, os.rename, "b", "empty")
    fails(errno.ENOTDIR, os.rename, "full", "b")
    os.rename("full", "empty")
    equal(os.listdir("empty"), ["x"])
    fails(errno.EINVAL, os.rename, "empty", "empty/below")
    fails((errno.ENOTEMPTY, errno.EEXIST), os.rmdir, "empty")
    fails(errno.ENOENT, os.rename, "missing", "other")


@check
def long_names():
    name = "n" * 255
    write(name, b"x")
    os.rename(name, "é" * 127)
    forget()
    equal(os.listdir("."), ["é" * 127])
    fails(errno.ENAMETOOLONG, write, "n" * 256)
    fails(errno.ENAMETOOLONG, os.mkdir, "n" * 256)
    fails(errno.ENAMETOOLONG, os.symlink, "x", "n" * 256)
    fails(errno.ENAMETOOLONG, os.link, "é" * 127, "n" * 256)
    fails(errno.ENAMETOOLONG, os.rename, "é" * 127, "n" * 256)
    fails(errno.ENAMETOOLONG, os.stat, "n" * 256)
    equal(os.pathconf(".", "PC_NAME_MAX"), 255)


@check
def names_of_any_bytes():
    names = {bytes([byte]) * 3 for byte in range(1, 256) if byte != ord("/")} - {b"..."}
    for name in names:
        write(name, name)
    forget()
    equal(set(os.listdir(b".")), names)
    for name in names:
        equal(read(name), name)
        os.unlink(name)
    equal(os.listdir("."), [])


@check
def deep_directories():
    for _ in range(100):
        os.mkdir("down")
        os.chdir("down")
    write("file", b"deep")
    for _ in range(100):
        os.chdir("..")
    equal(read("down/" * 100 + "file"), b"deep")


# --- attributes ---


@check
def times():
    write("file")
    wanted = (1_234_567_890_123_456_789, 987_654_321_987_654_321)
    os.utime("file", ns=wanted)
    forget()
    seen = os.stat("file")
    equal((seen.st_atime_ns, seen.st_mtime_ns), wanted)
    os.utime("file")
    equal(abs(os.stat("file").st_mtime - os.stat("file").st_ctime) < 1, True, "now")
    before = os.stat("file").st_ctime_ns
    os.chmod("file", 0o600)
    equal(os.stat("file").st_ctime_ns > before, True, "ctime moves")
    before = os.stat(".").st_mtime_ns
    write("other")
    equal(os.stat(".").st_mtime_ns > before, True, "mtime of the directory moves")
    os.symlink("file", "link")
    os.utime("link", ns=wanted, follow_symlinks=False)
    equal(os.lstat("link").st_mtime_ns, wanted[1])
    os.mkdir("directory")
    os.utime("directory", ns=wanted)
    equal(os.stat("directory").st_mtime_ns, wanted[1])


@check
def modes_and_owners():
    write("file", b"x")
    for mode in (0o000, 0o777, 0o4755, 0o2755, 0o1777, 0o7777):
        os.chmod("file", mode)
        equal(stat.S_IMODE(os.stat("file").st_mode), mode)
    os.chown("file", 1234, 5678)
    forget()
    seen = os.stat("file")
    equal((seen.st_uid, seen.st_gid), (1234, 5678))
    equal(stat.S_IMODE(seen.st_mode) & 0o6010, 0o010, "setuid and setgid after chown")
    os.chmod("file", 0o6777)
    as_user(1234, 5678, write_at, "file", 0, b"y")
    forget()
    equal(oct(os.stat("file").st_mode & 0o6000), "0o0", "setuid and setgid after a write by the owner")
    as_user(1234, 5678, os.chmod, "file", 0o600)
    as_user(1, 1, fails, errno.EACCES, read, "file")
    as_user(1, 1, fails, errno.EPERM, os.chmod, "file", 0o777)
    as_user(1234, 5678, fails, errno.EPERM, os.chown, "file", 1, -1)
    os.mkdir("shared")
    os.chown("shared", 0, 99)
    os.chmod("shared", 0o2777)
    as_user(1, 1, write, "shared/file")
    as_user(1, 1, os.mkdir, "shared/directory")
    equal(os.stat("shared/file").st_gid, 99)
    equal(os.stat("shared/directory").st_mode & 0o2000, 0o2000, "setgid is inherited")
    os.chmod("shared", 0o1777)
    as_user(2, 2, fails, (errno.EPERM, errno.EACCES), os.unlink, "shared/file")
    as_user(1, 1, os.unlink, "shared/file")


@check
def file_system_statistics():
    seen = os.statvfs(".")
    equal(seen.f_namemax, 255)
    equal(seen.f_blocks > seen.f_bfree > 0, True, f"blocks {seen.f_blocks}, free {seen.f_bfree}")
    equal(seen.f_bavail <= seen.f_bfree, True)
    equal(seen.f_files > seen.f_ffree > 0, True, f"files {seen.f_files}, free {seen.f_ffree}")


def main():
    failed = 0
    top = sys.argv[1]
    os.umask(0o022)
    for function in CHECKS:
        place = f"{top}/{function.__name__}"
        os.mkdir(place)
        os.chmod(place, 0o755)
        os.chdir(place)
        try:
            function()
        except Exception:  # every kind: the others shall still run
            failed += 1
            print(f"special: {function.__name__}: FAILED\n{traceback.format_exc()}", flush=True)
    print(f"special: {len(CHECKS) - failed} of {len(CHECKS)} checks passed")
    sys.exit(1 if failed else 0)


main()
