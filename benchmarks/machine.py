"""Describe the machine of a measurement in enough detail to compare, without naming the host."""

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch


@dataclass(frozen=True)
class Machine:
    """Processor, accelerator and versions.

    Attributes:
        cpu: The processor's model.
        threads: Threads that PyTorch may use.
        gpu: The accelerator's model; empty if there is none.
        system: Operating system and architecture.
        python: Version of Python.
        torch: Version of PyTorch.
        triton: Version of Triton; empty if it is not installed.
        commit: The measured commit, with "+" if files in fdrl_layers, examples or
            benchmarks differed from it.
    """

    cpu: str
    threads: int
    gpu: str
    system: str
    python: str
    torch: str
    triton: str
    commit: str

    def slug(self) -> str:
        """Return the name of the folder with this machine's results."""
        name = self.gpu or f"cpu-{self.cpu}-{self.threads}t"
        return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def describe(device: str = "cpu") -> Machine:
    """Describe this machine."""
    return Machine(
        cpu=_cpu(),
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if device == "cuda" else "",
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        triton=_version("triton"),
        commit=_commit(),
    )


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(r"model name\s*: (.+)", info.read_text())
        if found:
            return found[1].strip()
    return platform.processor() or "unknown"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    """Return the short hash of the commit; empty outside a repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", os.path.dirname(__file__), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--short", "HEAD")
    changed = git("status", "--porcelain", "../fdrl_layers", "../examples", "*.py")
    return commit + ("+" if commit and changed else "")
