"""Files that are whole or not there, and a folder that one process at a time trains in."""

import contextlib
import errno
import glob
import itertools
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: without locks
    fcntl = None


def check_name(path):
    """ValueError for a path that no file can have here: it holds a null byte, or a name in it is too long."""
    text = os.fspath(path)
    shown = repr(text) if len(text) <= 60 else repr(f"{text[:57]}...")
    try:
        os.lstat(path)
    except ValueError:
        raise ValueError(f"{shown} holds a null byte: choose another name") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ValueError(f"{shown} is too long a name for the file system, {len(os.fsencode(text))} bytes: "
                             "choose a shorter one") from None


def free(path):
    """The path, numbered if it is taken: drawn.png, drawn-2.png, ..."""
    check_name(path)
    names = (path if i == 1 else path.with_stem(f"{path.stem}-{i}") for i in itertools.count(1))
    return next(name for name in names if not name.exists())


def write(path, content, option="--out"):
    """Write all of the bytes or none: a full disk, a kill or a power cut leaves the old file. option: which names it"""
    check_name(path)
    path = Path(path)
    if not path.name:  # "." or "/"
        raise IsADirectoryError(f"could not write {path}: it is a folder")
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path.parent, f"{glob.escape(path.name)}.*.part")
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        if os.name == "posix":  # the name too
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = f"{'free some space, or ' * full}write elsewhere ({option})"
        raise OSError(f"could not write {path}, {len(content):,} bytes: {error.strerror or error}; {advice}") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def remove_stale(folder, *patterns):
    """Remove the NAME.PID.part files of processes that are no longer there: what a kill leaves of `write`."""
    for path in (path for pattern in patterns for path in Path(folder).glob(pattern)):
        pid = path.name.split(".")[-2]
        if pid.isdecimal() and not _runs(int(pid)):
            path.unlink(missing_ok=True)


def _runs(pid):
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


@contextlib.contextmanager
def lock(folder):
    """Hold the folder alone; ValueError if another process holds it. A lock ends with its process, killed or not."""
    path = Path(folder) / ".lock"
    if fcntl is None:
        yield
        return
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)  # not what a link points to
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 20).decode(errors="replace").strip()
            os.close(file)
            raise ValueError(f"{folder} is in use: process {holder or '?'} trains there; wait for it, stop it, "
                             "or choose another --out") from None
        except OSError:  # a file system without locks
            pass
        if _is_at(path, file):  # and was not removed by its last holder before it was locked
            break
        os.close(file)
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _is_at(path, file):
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False
