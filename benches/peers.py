"""The tools that benches/compare measures against: where each comes from, and which
of them are here. Names only: where packages are fetched from is the machine's affair."""

import os
import shutil
import subprocess

from shared import first_line, say, target_dir


# tool: (kind, package, words that print its version)
PEERS = {
    "ss": ("debian", "iproute2", ["-V"]),
    "netstat": ("debian", "net-tools", ["--version"]),
    "lsof": ("debian", "lsof", ["-v"]),
    "somo": ("crate", "somo", ["--version"]),
    "netstat2": ("library", "netstat2", []),
    "wrk": ("debian", "wrk", ["-v"]),
    "ab": ("debian", "apache2-utils", ["-V"]),
    "h2load": ("debian", "nghttp2-client", ["--version"]),
    "siege": ("debian", "siege", ["-V"]),
    "hey": ("debian", "hey", []),
    "oha": ("crate", "oha", ["--version"]),
    "vegeta": ("debian", "vegeta", ["-version"]),
    "tcpkali": ("debian", "tcpkali", ["--version"]),
}
# What the BPF floor is linked with: its reader of BTF.
LIBRARIES = ["libbpf-dev"]
CRATES = os.path.join(target_dir(), "compare-peers")


def path(tool):
    own = os.path.join(CRATES, "bin", tool)
    return own if os.access(own, os.X_OK) else shutil.which(tool)


def quiet(words, seconds):
    """Whether a command succeeded, and the last line it said."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", check=False, timeout=seconds,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    said = done.stdout.strip().splitlines()
    return done.returncode == 0, said[-1] if said else ""


def candidate(package):
    """The version that this Debian has of a package, or nothing."""
    done = subprocess.run(["apt-cache", "policy", package], capture_output=True, text=True,
                          check=False)
    for line in done.stdout.splitlines():
        if "Candidate:" in line and "(none)" not in line:
            return line.split()[-1]
    return None


def install():
    """Installs what is missing. Returns for each tool that is still missing, why."""
    wanted = [package for tool, (kind, package, _) in PEERS.items()
              if kind == "debian" and not path(tool)]
    if not os.path.exists("/usr/include/bpf/btf.h"):
        wanted += LIBRARIES
    if wanted and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet(["apt-get", "update"], 120)
        found = [package for package in wanted if candidate(package)]
        if found:
            say(f"installing {' '.join(found)}")
            quiet(["apt-get", "install", "-y", "--no-install-recommends", *found], 300)
    for tool, (kind, package, _) in PEERS.items():
        if kind == "crate" and not path(tool):
            say(f"installing the crate {package} (minutes)")
            quiet(["nice", "-n", "10", "cargo", "install", "--locked", "--quiet", "--root",
                   CRATES, package], 900)
    return missing()


def missing():
    reasons = {}
    for tool, (kind, package, _) in PEERS.items():
        if path(tool):
            continue
        if kind == "library":
            reasons[tool] = "a crate without a command of its own"
        elif kind == "crate":
            reasons[tool] = f"the crate {package} could not be installed in time"
        elif not candidate(package):
            reasons[tool] = "neither a Debian package of this release nor a crate"
        else:
            reasons[tool] = f"the package {package} is not installed; apt-get needs root"
    return reasons


def version(tool):
    kind, package, words = PEERS[tool]
    said = ""
    if words and path(tool):
        said = first_line([path(tool), *words])
    if kind == "debian" and shutil.which("dpkg-query"):
        asked = ["dpkg-query", "-W", "-f", "${Version}", package]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return f"{tool} ({package} {done.stdout})"
    return said if said.startswith(tool) else f"{tool} {said}".strip()


def versions(tools):
    return "; ".join(version(tool) for tool in tools if path(tool))
