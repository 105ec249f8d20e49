#!/usr/bin/env python3
"""One client of a file server that shows it late what other clients made, as the caches of NFS do.

    late_entries.py SERVER-FOLDER MOUNT-POINT

The folder plays the server; each client is a process with a mount of its own. A client remembers the entries of a directory as it
first saw them. What others add later it does not see, what others remove it goes on listing, until it is told to look anew or changes
that directory itself: an answer of the server to a change tells an NFS client that its memory is old. What a client does happens
on the server at once, whatever it sees there: making what exists is refused, a rename replaces what bears the name.

Orders are lines written into the file `.control` of the mount, done when the write returns:
    show                        forget everything remembered
    forgetful no                a change of a directory no longer makes it look anew (a client that never finds out by itself)
    fail OP ERRNO N [after]     the next N operations OP fail; with `after`, though they were done
    mend                        nothing fails any more
Reading `.control` gives the operations since the start, one a line.
"""

import errno
import os
import stat
import sys
import time

from fusepy import FUSE, FuseOSError, Operations

CONTROL = "/.control"


class Client(Operations):
    def __init__(self, server):
        self.server = server
        self.known = {}
        self.forgetful = True
        self.faults = {}
        self.done = []

    def __call__(self, op, *args):
        if not hasattr(self, op):
            raise FuseOSError(errno.ENOSYS)
        if args and args[0] == CONTROL:
            return getattr(self, op)(*args)
        if op in ("create", "mkdir", "unlink", "rmdir", "rename", "fsync", "fsyncdir", "chown"):
            self.done.append(" ".join([op] + [a for a in args if isinstance(a, str)]))
        fault = self.faults.get(op)
        if fault and fault["left"] > 0:
            fault["left"] -= 1
            if fault["after"]:
                getattr(self, op)(*args)
            raise FuseOSError(fault["errno"])
        return getattr(self, op)(*args)

    def real(self, path):
        return os.path.join(self.server, path.lstrip("/"))

    def entries(self, directory):
        if directory not in self.known:
            self.known[directory] = set(os.listdir(self.real(directory)))
        return self.known[directory]

    def changed(self, path, there):
        directory, name = os.path.split(path)
        if self.forgetful:
            self.known.pop(directory, None)
        elif there:
            self.entries(directory).add(name)
        else:
            self.entries(directory).discard(name)

    # Orders.

    def order(self, line):
        words = line.split()
        if words == ["show"]:
            self.known.clear()
        elif words[:1] == ["forgetful"]:
            self.forgetful = words[1] != "no"
        elif words[:1] == ["fail"]:
            self.faults[words[1]] = {"errno": getattr(errno, words[2]), "left": int(words[3]), "after": words[4:] == ["after"]}
        elif words == ["mend"]:
            self.faults.clear()
        elif words:
            raise FuseOSError(errno.EINVAL)

    def init(self, _path):
        print("mounted", file=sys.stderr, flush=True)

    # What only looks.

    def getattr(self, path, fh=None):
        if path == CONTROL:
            now = time.time()
            return dict(st_mode=stat.S_IFREG | 0o600, st_nlink=1, st_size=0, st_mtime=now, st_ctime=now, st_atime=now)
        directory, name = os.path.split(path)
        if name and name not in self.entries(directory):
            raise FuseOSError(errno.ENOENT)
        seen = os.lstat(self.real(path))
        keys = ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size", "st_atime", "st_mtime", "st_ctime", "st_blocks")
        return {key: getattr(seen, key) for key in keys}

    def readdir(self, path, _fh):
        return [".", ".."] + sorted(self.entries(path))

    def readlink(self, path):
        return os.readlink(self.real(path))

    def statfs(self, path):
        seen = os.statvfs(self.real(path))
        return {key: getattr(seen, key) for key in dir(seen) if key.startswith("f_") and key != "f_fsid"}

    # Files.

    def open(self, path, flags):
        if path == CONTROL:
            return 0
        # The kernel says by offsets where an appended octet goes; the server must not add them to the end again.
        return os.open(self.real(path), flags & ~(os.O_APPEND | os.O_NOFOLLOW))

    def read(self, path, size, offset, fh):
        if path == CONTROL:
            return ("\n".join(self.done) + "\n").encode()[offset : offset + size]
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        if path == CONTROL:
            for line in data.decode().splitlines():
                self.order(line)
            return len(data)
        return os.pwrite(fh, data, offset)

    def truncate(self, path, length, fh=None):
        if path != CONTROL:
            os.truncate(self.real(path), length)

    def fsync(self, path, _datasync, fh):
        if path != CONTROL:
            os.fsync(fh)

    def fsyncdir(self, _path, _datasync, _fh):
        pass

    def flush(self, _path, _fh):
        pass

    def release(self, path, fh):
        if path != CONTROL:
            os.close(fh)

    # What changes a directory.

    def create(self, path, mode, _fi=None):
        try:
            return os.open(self.real(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        finally:
            self.changed(path, True)

    def mkdir(self, path, mode):
        try:
            os.mkdir(self.real(path), mode)
        finally:
            self.changed(path, True)

    def unlink(self, path):
        os.unlink(self.real(path))
        self.changed(path, False)

    def rmdir(self, path):
        os.rmdir(self.real(path))
        self.changed(path, False)

    def rename(self, old, new):
        os.rename(self.real(old), self.real(new))
        self.changed(old, False)
        self.changed(new, True)

    def chown(self, path, uid, gid):
        keep = 0xFFFFFFFF
        os.chown(self.real(path), -1 if uid == keep else uid, -1 if gid == keep else gid)
        if self.forgetful:
            self.known.pop(path, None)

    def chmod(self, path, mode):
        os.chmod(self.real(path), mode)

    def utimens(self, path, times=None):
        os.utime(self.real(path), times)


if __name__ == "__main__":
    never = dict(entry_timeout=0, attr_timeout=0, negative_timeout=0)
    FUSE(Client(sys.argv[1]), sys.argv[2], foreground=True, nothreads=True, use_ino=True, direct_io=True, fsname="late", **never)
