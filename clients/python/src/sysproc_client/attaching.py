"""Coming back to a process that was started before. Starting one is `sysproc_client.container.Container.exec`."""

from typing import TYPE_CHECKING

from nightos.sysproc.v1.process_service_pb2 import ExecRequest
from sysproc_client.process import Process

if TYPE_CHECKING:
    from sysproc_client.container import Container


def attach(box: "Container", exec_id: str) -> Process:
    """The process of this exec id; its output comes from the first byte that is kept. NotFound when it is read."""
    process = Process(box._client._connection, ExecRequest.Start(container=box.ref, exec_id=exec_id))
    process._do(lambda machine: machine.only_attach())
    return process
