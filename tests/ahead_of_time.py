"""Compile Triton kernels for a GPU that is not there, and say what they would occupy.

Run as a program it reads cases from standard input and prints what it found, as JSON: a process of
its own, since Triton decides when it is imported whether kernels are compiled or interpreted.
"""

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Case:
    """A kernel, by module and name, with the types of its arguments and its constants."""

    module: str
    kernel: str
    types: dict[str, str]
    constants: dict[str, Any]
    capability: int
    warps: int = 4

    @property
    def name(self) -> str:
        """What the tests call it."""
        kinds = dict.fromkeys(kind[1:] for kind in self.types.values() if kind[0] == "*")
        sizes = [str(v) for v in self.constants.values() if not isinstance(v, bool)]
        return "-".join((self.kernel, f"sm{self.capability}", *kinds, *sizes))


@dataclass(frozen=True)
class Resources:
    """What a program of a kernel occupies, what of its registers spills into memory, and its code.

    A loop counts once, however often its body runs.
    """

    registers: int
    spilled_bytes: int
    shared_bytes: int
    instructions: int
    barriers: int


def compile_all(cases: list[Case]) -> list[Resources]:
    """Compile all cases in one process without Triton's interpreter."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
        environment |= {"TRITON_CACHE_DIR": cache, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, __file__],
            input=json.dumps([dataclasses.asdict(case) for case in cases]),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [Resources(**each) for each in json.loads(done.stdout.splitlines()[-1])]


def compile_one(case: Case) -> Resources:
    """Compile a case, and read its resources from the assembler's report."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(case.module), case.kernel)
    signature = {name: case.types.get(name, "constexpr") for name in kernel.arg_names}
    # As a launch finds it: torch aligns tensors, and 16 divides most widths.
    aligned = [i for i, name in enumerate(kernel.arg_names) if is_aligned(name, case)]
    attributes: dict[Any, Any] = {(i,): [["tt.divisibility", 16]] for i in aligned}
    source = ASTSource(kernel, signature, constexprs=case.constants, attrs=attributes)
    target, options = GPUTarget("cuda", case.capability, 32), {"num_warps": case.warps}
    compiled = triton.compile(source, target=target, options=options)
    return dataclasses.replace(usage(compiled.asm["cubin"]), shared_bytes=compiled.metadata.shared)


def is_aligned(name: str, case: Case) -> bool:
    """Whether a launch at the paper's sizes tells Triton that 16 divides an argument."""
    return case.types.get(name, "").startswith("*") or name in ("P", "N")


CALL_FRAME = 16
"""Bytes of stack that a call takes, such as that to divide float64 numbers, without any spill."""


def usage(cubin: bytes) -> Resources:
    """Read registers, stack and code of a compiled kernel, by the tool that Triton brings."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", "--dump-sass", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    code = re.findall(r"^ +/\*[0-9a-f]{4,}\*/ +(.*?);", text, re.MULTILINE)
    # Behind the end stands a jump to itself, and what fills a line up.
    code = [line for line in code if not re.match(r"NOP|BRA `?\(?\.?L?_?\w*\)?$", line)]
    spilled = found["LOCAL"] + max(0, found["STACK"] - CALL_FRAME)
    return Resources(found["REG"], spilled, 0, len(code), sum("BAR." in line for line in code))


if __name__ == "__main__":
    read = [Case(**case) for case in json.load(sys.stdin)]
    print(json.dumps([dataclasses.asdict(compile_one(case)) for case in read]))
