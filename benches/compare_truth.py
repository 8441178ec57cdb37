"""Part C of benches/compare: statements that tools make, beside what is so. The servers
are here too, so that what is so comes from them and from /proc, from no tool.

compare_truth.py serve KIND    a server of a kind, in the namespace of its caller
"""

import ctypes
import json
import os
import re
import resource
import select
import socket
import subprocess
import sys
import threading
import time

import peers
from compare_hold import LOADERS, loader, start, stop, words_said
from shared import ROOT, loopback_up, machine, namespace, read, say, wait_until

DIALS, BACKLOG, FEW_FDS, SECONDS = 300, 128, 100, 3
PATIENCE_S = 15
WAITING = 50
# How far off a number may be that still counts as right: siege's is a mean.
NEAR = 0.05
CLONE_FILES = 0x400
LISTERS = {
    "sockscope": ["sockscope", "sockets", "-tanp"],
    "sockscope ndjson": ["sockscope", "sockets", "-tap", "--format", "ndjson"],
    "ss": ["ss", "-tanp"],
    "netstat": ["netstat", "-tanp"],
    "lsof": ["lsof", "-nP", "-iTCP"],
    "lsof -K": ["lsof", "-K", "-nP", "-iTCP"],
    "somo": ["somo", "-t", "--json"],
}


# --- servers -----------------------------------------------------------------------


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
            words = [sys.executable, os.path.realpath(__file__), "serve", kind]
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


# --- load generators ---------------------------------------------------------------

# What each says of how many connections it had; wrk and h2load repeat what they were
# asked for, siege gives a mean. hey and oha say nothing of it.
CLAIMS = {
    "wrk": r"threads and (\d+) connections",
    "ab": r"Concurrency Level:\s+(\d+)",
    "h2load": r"(\d+) total client",
    "siege": r"Concurrency:\s+([\d.]+)",
    "sockscope": r"practical maximum\s+([\d,]+) connections",
}
LIMITS = r"server\.(?:accept_queue|fd_limit)|accept queue|backlog|EMFILE|Too many open files"


def dial(tool, kind):
    """A tool dials a server of that kind; what it claims, and what was so."""
    with Server(kind) as server, open("said", "w+", encoding="utf-8") as said:
        if tool == "sockscope":
            words = [os.environ["SOCKSCOPE"], "probe", f"127.0.0.1:{server.port}", "--max",
                     str(DIALS), "--hold", "1s", "--no-record", "--quiet"]
        else:
            words = loader(tool, DIALS, server.port, SECONDS)
        client = start(words, said)
        most = (0, 0)
        deadline = time.monotonic() + PATIENCE_S
        while client.poll() is None and time.monotonic() < deadline:
            most = max(most, (server.accepted(), server.queued()))
            time.sleep(0.02)
        in_time = client.poll() is not None
        code = stop(client)
        text = read("said")
    claims = [round(float(n.replace(",", ""))) for n in re.findall(CLAIMS.get(tool, r"(?!)"), text)]
    limit = re.search(LIMITS, text)
    return {"accepted": most[0], "queued": most[1], "code": code, "in_time": in_time,
            "claims": sum(claims) if claims else None, "limit": limit[0] if limit else None,
            "said": words_said(text),
            "words": " ".join([os.path.basename(words[0]), *words[1:]])
            .replace(str(server.port), "PORT")}


# --- lists of sockets --------------------------------------------------------------


def records(tool):
    words = LISTERS[tool]
    own = os.environ["SOCKSCOPE"] if words[0] == "sockscope" else peers.path(words[0])
    said = subprocess.run([own, *words[1:]], capture_output=True, text=True,
                          errors="replace", check=False, timeout=60).stdout
    if said.startswith("["):
        return [json.dumps(one) for one in json.loads(said)]
    return said.splitlines()


def owners(tool, kind):
    with Server(kind) as server:
        those = [one for one in records(tool) if re.search(rf"\b{server.port}\b", one)]
        named = [pid for pid in server.pids if any(re.search(rf"\b{pid}\b", r) for r in those)]
    return {"wanted": len(server.pids), "named": len(named), "rows": len(those)}


def waiting(tool):
    """Connections that nobody has accepted: is that said of them, is their number?"""
    with Server("never") as server:
        dials = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(WAITING)]
        wait_until(lambda: server.queued() == WAITING, 5)
        those = [one for one in records(tool) if re.search(rf"\b{server.port}\b", one)]
        truly = server.queued()
        for one in dials:
            one.close()
    at_listener = [one for one in those if re.search("listen", one, re.I)]
    marked = [one for one in those if re.search(r"queued|not accepted", one)]
    return {"queued": truly, "marked": len(marked),
            "length": any(re.search(rf"\b{truly}\b", one) for one in at_listener)}


# --- all of them -------------------------------------------------------------------


def inside(what, tool):
    loopback_up()
    if what in ("never", "few-fds"):
        found = dial(tool, what)
    elif what == "waiting":
        found = waiting(tool)
    else:
        found = owners(tool, what)
    print(json.dumps(found))


def measure(what, tool):
    real = tool.split()[0]
    if real in peers.PEERS and not peers.path(real):
        return {"missing": peers.missing()[real]}
    folder = os.path.join(os.environ["WORK"], "truth")
    subprocess.run(["rm", "-rf", folder], check=True)
    os.mkdir(folder)
    own = [sys.executable, os.path.join(ROOT, "benches", "compare"), "--inside", "truth",
           json.dumps([what, tool])]
    try:
        done = subprocess.run([*namespace(alone=True), *own], cwd=folder, stdout=subprocess.PIPE,
                              text=True, check=True, timeout=120)
    except subprocess.SubprocessError as error:
        return {"missing": f"the run failed: {type(error).__name__}"}
    return json.loads(done.stdout)


def collect(repeat):
    runs = []
    loaders = ("sockscope", *LOADERS)
    for turn in range(repeat):
        for what, tools in (("never", loaders), ("few-fds", loaders),
                            ("waiting", tuple(LISTERS)), ("forked", tuple(LISTERS)),
                            ("own-table", tuple(LISTERS))):
            at = turn * 3 % len(tools)
            for tool in tools[at:] + tools[:at]:
                one = measure(what, tool)
                runs.append({"what": what, "tool": tool, **one})
                say(f"{what} {tool}: {json.dumps(one)[:150]}")
    return {"machine": machine(), "runs": runs,
            "versions": peers.versions((*LOADERS, "ss", "netstat", "lsof", "somo"))}


# --- the page ----------------------------------------------------------------------


def alike(values):
    """One text where all runs gave the same, else the least and the most."""
    least, most = min(values), max(values)
    return f"{least:,}" if least == most else f"{least:,}–{most:,}"


def dialed(data, what):
    yield ("\n| tool | runs | accepted | queued | says it had | right | names the limit "
           "| exit | what it said |\n|---|--:|--:|--:|--:|---|---|--:|---|")
    for tool in ("sockscope", *LOADERS):
        runs = [r for r in data["runs"] if (r["what"], r["tool"]) == (what, tool)]
        done = [r for r in runs if "code" in r]
        if not done:
            yield f"| {tool} | 0 | not run: {runs[0]['missing'] if runs else ''} | | | | | | |"
            continue
        said = [r for r in done if r["claims"] is not None]
        near = lambda r: abs(r["claims"] - r["accepted"]) <= NEAR * r["accepted"]
        right = sum(map(near, said))
        verdict = f"in {right} of {len(done)} runs" if said else "does not say"
        limits = sorted({r["limit"] for r in done if r["limit"]})
        codes = ", ".join(sorted({str(r["code"]) for r in done}))
        yield (f"| `{done[0]['words']}` | {len(done)} | {alike([r['accepted'] for r in done])} | "
               f"{alike([r['queued'] for r in done])} | "
               f"{alike([r['claims'] for r in said]) if said else '–'} | {verdict} | "
               f"{', '.join(limits) or 'no'} | {codes} | {done[-1]['said']} |")


def listed(data, what, right, says):
    yield "\n| tool | runs | says | right |\n|---|--:|---|---|"
    for tool, words in LISTERS.items():
        runs = [r for r in data["runs"] if (r["what"], r["tool"]) == (what, tool)]
        done = [r for r in runs if "missing" not in r]
        if not done:
            yield f"| {tool} | 0 | not run: {runs[0]['missing'] if runs else ''} | |"
            continue
        said = sorted({says(r) for r in done})
        yield (f"| `{' '.join(words)}` | {len(done)} | {'; '.join(said)} | "
               f"in {sum(map(right, done))} of {len(done)} runs |")


def pages(data, _folder):
    yield "\n## Whether what they say is so\n"
    yield ("Each statement beside what is so, which comes from the server itself and from "
           "/proc/net/tcp. Accepted and queued\nare the most that the server had at once. A "
           f"number of a report is right within {NEAR:.0%}; wrk and h2load repeat\nwhat they "
           "were asked for, siege's is a mean.")
    yield (f"\n### A server that listens with a backlog of {BACKLOG} and accepts nobody, "
           f"{DIALS} dials")
    yield from dialed(data, "never")
    yield f"\n### A server that may open {FEW_FDS} descriptors and answers those it accepted, {DIALS} dials"
    yield from dialed(data, "few-fds")
    yield f"\n### {WAITING} connections that wait in an accept queue"
    yield from listed(
        data, "waiting", lambda r: r["marked"] >= r["queued"],
        lambda r: (f"{r['marked']} of {r['queued']} rows marked as waiting; its listener's row "
                   f"{'has' if r['length'] else 'lacks'} the number"))
    yield "\n### A listener of two processes, by fork()"
    named = lambda r: f"{r['named']} of {r['wanted']} owners"
    all_named = lambda r: r["named"] == r["wanted"]
    yield from listed(data, "forked", all_named, named)
    yield "\n### A listener in the fd table of one thread, by unshare(CLONE_FILES)"
    yield from listed(data, "own-table", all_named, named)
    yield f"\n- {data['machine']}"
    yield f"- {data['versions']}"


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "serve" or sys.argv[2] not in SERVERS:
        sys.exit(__doc__)
    SERVERS[sys.argv[2]]()
