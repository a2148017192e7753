"""Generates the stubs from the contract. Hatch runs this hook before it builds or installs."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CONTRACT = Path("../../proto")


class StubsHook(BuildHookInterface[Any]):
    """Writes `passbook/v1/*_pb2.py`. A source distribution has them already."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Run by hatch."""
        del version, build_data
        root = Path(self.root)
        contract = root / CONTRACT
        if contract.is_dir():
            generate(contract, root / "src")


def generate(contract: Path, to: Path) -> None:
    """Compile the protos of `passbook.v1`. `google.rpc` comes from googleapis-common-protos."""
    from grpc_tools import protoc  # noqa: PLC0415 (a source distribution needs no compiler)

    protos = sorted(str(path) for path in (contract / "passbook" / "v1").glob("*.proto"))
    arguments = [
        "protoc",
        f"--proto_path={contract}",
        f"--proto_path={resources.files('grpc_tools') / '_proto'}",
        f"--python_out={to}",
        f"--pyi_out={to}",
        f"--grpc_python_out={to}",
        *protos,
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError(f"protoc failed: {' '.join(arguments)}")
    (to / "passbook" / "v1" / "__init__.py").write_text('"""The generated contract."""\n')
