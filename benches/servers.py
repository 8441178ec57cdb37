"""Servers at fault, for benches/compare: what is so comes from them and from /proc, from
no tool that is measured.

servers.py KIND    a server of a kind; it prints its port and the processes that own it
"""

import ctypes
import json
import os
import resource
import select
import socket
import subprocess
import sys
import threading
import time

from shared import read

BACKLOG, FEW_FDS = 128, 100
CLONE_FILES = 0x400


def listener(backlog):
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(backlog)
    return sock


def ready(sock, *pids):
    print(json.dumps({"port": sock.getsockname()[1], "pids": [os.getpid(), *pids]}), flush=True)


def never_accept():
    sock = listener(BACKLOG)
    ready(sock)
    threading.Event().wait()


def few_descriptors():
    """Answers every request of those it could accept, and writes how many these are to
    its standard error. Where accept() fails it waits a moment, as servers do."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_FDS, FEW_FDS))
    sock = listener(4096)
    sock.setblocking(False)
    poll, clients = select.epoll(), {}
    poll.register(sock, select.EPOLLIN)
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    ready(sock)
    full = False
    while True:
        if full:
            poll.modify(sock, select.EPOLLIN)
            full = False
        for fd, _ in poll.poll(0.1):
            if fd != sock.fileno():
                try:
                    if clients[fd].recv(65536):
                        clients[fd].send(reply)
                        continue
                except OSError:
                    pass
                clients.pop(fd).close()
            else:
                try:
                    while True:
                        client, _ = sock.accept()
                        client.setblocking(False)
                        clients[client.fileno()] = client
                        poll.register(client, select.EPOLLIN)
                except BlockingIOError:
                    pass
                except OSError:
                    poll.modify(sock, 0)
                    full = True
            os.pwrite(2, b"%8d\n" % len(clients), 0)


def forked():
    sock = listener(5)
    child = os.fork()
    if child == 0:
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(0)
    ready(sock, child)
    threading.Event().wait()


def own_table():
    """A listener that only one thread has, in an fd table of its own."""

    def thread():
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_FILES):
            os._exit(1)
        sock = listener(5)
        ready(sock)
        threading.Event().wait()

    threading.Thread(target=thread).start()


SERVERS = {"never": never_accept, "few-fds": few_descriptors, "forked": forked,
           "own-table": own_table}


class Server:
    def __init__(self, kind):
        with open("open", "w", encoding="ascii") as counter:
            words = [sys.executable, os.path.realpath(__file__), kind]
            self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=counter,
                                            text=True)
        said = json.loads(self.process.stdout.readline())
        self.port, self.pids = said["port"], said["pids"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def accepted(self):
        """By its own word."""
        return int((read("open").split() or ["0"])[0])

    def queued(self):
        """By the kernel's: the receive queue of a listener is its accept queue."""
        for line in read("/proc/net/tcp").splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(f":{self.port:04X}") and fields[3] == "0A":
                return int(fields[4].split(":")[1], 16)
        return 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in SERVERS:
        sys.exit(__doc__)
    SERVERS[sys.argv[1]]()
