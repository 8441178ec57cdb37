"""Part C of benches/compare: statements that tools make, beside what is so."""

import json
import os
import re
import socket
import subprocess
import sys
import time

import peers
from compare_hold import LOADERS, loader, start, stop, words_said
from shared import ROOT, loopback_up, machine, namespace, read, say, time_is_up, wait_until
from servers import BACKLOG, FEW_FDS, Server

DIALS, SECONDS = 300, 3
PATIENCE_S = 15
# What they say hardly varies.
MOST_RUNS = 3
WAITING = 50
# How far off a number may be that still counts as right: siege's is a mean.
NEAR = 0.05
LISTERS = {
    "sockscope": ["sockscope", "sockets", "-tanp"],
    "sockscope ndjson": ["sockscope", "sockets", "-tap", "--format", "ndjson"],
    "ss": ["ss", "-tanp"],
    "netstat": ["netstat", "-tanp"],
    "lsof": ["lsof", "-nP", "-iTCP"],
    "lsof -K": ["lsof", "-K", "-nP", "-iTCP"],
    "somo": ["somo", "-t", "--json"],
}


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
    if time_is_up():
        return {"missing": "the time for all was over"}
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
    for turn in range(min(repeat, MOST_RUNS)):
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
               f"{', '.join(limits) or 'no'} | {codes} | "
               f"{done[-1]['said'] or 'nothing'} |")


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
    yield (f"\n### A server that may open {FEW_FDS} descriptors and answers those it accepted, "
           f"{DIALS} dials")
    yield from dialed(data, "few-fds")
    yield f"\n### {WAITING} connections that wait in an accept queue"
    yield "\nRight is what says of each of their rows that it waits."
    yield from listed(
        data, "waiting", lambda r: r["marked"] >= r["queued"],
        lambda r: (f"{r['marked']} of {r['queued']} rows marked as waiting; its listener's row "
                   f"{'has' if r['length'] else 'lacks'} the number"))
    yield "\n### A listener of two processes, by fork()"
    yield "\nsockscope's text names one owner and counts the others (`1 more`)."
    named = lambda r: f"{r['named']} of {r['wanted']} owners"
    all_named = lambda r: r["named"] == r["wanted"]
    yield from listed(data, "forked", all_named, named)
    yield "\n### A listener in the fd table of one thread, by unshare(CLONE_FILES)"
    yield from listed(data, "own-table", all_named, named)
    yield f"\n- {data['machine']}"
    yield f"- {data['versions']}"
