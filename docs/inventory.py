"""Small inventories of the names in other projects that these pages link to.

Sphinx reads each project's own inventory from its site. If the site cannot be reached, Sphinx uses
the inventory made here from the lists below, so that a build without a network gives the same links
and no warning. Only the names that our pages use need to be listed.
"""

import zlib
from pathlib import Path

TORCH = {
    "py:class": (
        "torch.Tensor torch.device torch.dtype torch.nn.Linear torch.nn.Module"
        " torch.nn.CrossEntropyLoss torch.nn.parallel.DistributedDataParallel"
        " torch.nn.parameter.Parameter torch.optim.Optimizer torch.cuda.graph"
    ),
    "py:function": (
        "torch.cdist torch.compile torch.cuda.make_graphed_callables torch.export.export"
        " torch.export.register_dataclass"
        " torch.func.vmap torch.nn.functional.cross_entropy torch.nn.functional.linear"
        " torch.nn.init.kaiming_uniform_ torch.use_deterministic_algorithms"
    ),
    "py:method": (
        "torch.Tensor.to torch.nn.Module.load_state_dict torch.nn.Module.state_dict"
        " torch.nn.parallel.DistributedDataParallel.no_sync"
    ),
}
TORCH_PAGES = {
    "torch.Tensor": "tensors",
    "torch.device": "tensor_attributes",
    "torch.dtype": "tensor_attributes",
    "torch.optim.Optimizer": "optim",
}
PYTHON = {
    "py:class": (
        "bool collections.abc.Callable collections.abc.Iterator collections.abc.Mapping"
        " contextlib.AbstractContextManager"
        " collections.abc.Sequence dict float int list pathlib.Path str tuple typing.Literal"
        " typing.NamedTuple"
    ),
    "py:data": "None typing.Any typing.Literal",
    "py:exception": "FileNotFoundError ImportError RuntimeError TypeError ValueError",
    "py:method": "object.__init__",
}


def write_inventory(path: Path, project: str, names: dict[str, str]) -> str:
    """Write an intersphinx inventory (format 2) that maps every name to `#name` of its page."""
    lines = [
        f"{name} {role} 1 {_page(project, name)} -"
        for role, listed in names.items()
        for name in listed.split()
    ]
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head.encode() + zlib.compress("\n".join([*lines, ""]).encode()))
    return str(path)


def _page(project: str, name: str) -> str:
    if project == "torch":
        return f"{TORCH_PAGES.get(name, f'generated/{name}')}.html#$"
    if name == "object.__init__":
        return "reference/datamodel.html#$"
    module, _, _ = name.rpartition(".")
    page = module or ("exceptions" if name.endswith("Error") else "functions")
    return f"library/{page}.html#$"
