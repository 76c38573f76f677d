"""grpc.reflection: tools ask the service for its API (grpcurl, ghz, Postman).

grpcio's own servicer answers, called as ours are, and told of methods: protobuf's pool knows only what has a
descriptor by its own name. Who may ask is in `sysproc.server.access`.
"""

from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import Default
from grpc_reflection.v1alpha._async import ReflectionServicer

from sysproc.server.call import Call


class Symbols:
    """protobuf's pool, in which `package.Service.Method` is found as well, as the protocol of reflection has it."""

    def __init__(self) -> None:
        self._pool = Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        """The file that a symbol is of. Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            found = self._pool.FindServiceByName(service)
            return found.methods_by_name[method].containing_service.file


class Reflection:
    """Its one method."""

    def __init__(self, names: Sequence[str]) -> None:
        self._servicer = ReflectionServicer(names, pool=Symbols())

    def ServerReflectionInfo(self, requests: Any, call: Call) -> Any:
        """See grpc.reflection.v1alpha."""
        return self._servicer.ServerReflectionInfo(requests, call.context)
