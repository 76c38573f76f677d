"""ProcessService: each method is proto in, one verb, proto out; Exec carries two streams at once.

    requests ──▶ `sysproc.server.exec_requests` ─┐ an error ends the events
    responses ◀── events of the handle ◀─────────┘

What a method means is said in `proto/nightos/sysproc/v1/process_service.proto`; the verbs are in
`sysproc.processes`.
"""

import asyncio
from collections.abc import AsyncIterator

from nightos.sysproc.v1 import process_service_pb2 as pb
from sysproc.containers import Containers
from sysproc.exec_handle import ExecHandle
from sysproc.processes import Processes
from sysproc.server.call import Call
from sysproc.server.convert import processes as convert
from sysproc.server.exec_requests import obey
from sysproc.server.starts import Starts


class ProcessService:
    """The servicer of ProcessService."""

    def __init__(self, containers: Containers, processes: Processes, starts: Starts) -> None:
        self._containers, self._processes, self._starts = containers, processes, starts

    async def Exec(self, requests: AsyncIterator[pb.ExecRequest], call: Call) -> AsyncIterator[pb.ExecResponse]:
        """See the proto."""
        first = await anext(requests)
        async with await self._opened(first, call) as handle:
            obeying = asyncio.create_task(obey(handle, requests))
            try:
                async for event in handle.events():
                    yield convert.event_to_proto(event)
            finally:
                obeying.cancel()
                await asyncio.wait({obeying})

    async def _opened(self, first: pb.ExecRequest, call: Call) -> ExecHandle:
        if first.HasField("attach"):
            attach = first.attach
            self._containers.check_lives(call.container)
            return await self._processes.attach(
                call.container.id,
                convert.exec_id_from_proto(attach.exec_id, "attach.exec_id"),
                *convert.offsets_from_proto(attach),
            )
        wanted = convert.wanted_from_proto(first.start)
        async with self._starts.turn(call.caller.container_id):
            return await self._processes.start(await self._containers.running(call.container), wanted, call.viewer)

    async def Wait(self, request: pb.WaitRequest, call: Call) -> pb.WaitResponse:
        """See the proto."""
        exec_id = convert.exec_id_from_proto(request.exec_id, "exec_id")
        exited = await self._processes.wait(call.container.id, exec_id)
        return pb.WaitResponse(exited=convert.exited_to_proto(exited))

    async def ListExecs(self, _: pb.ListExecsRequest, call: Call) -> pb.ListExecsResponse:
        """See the proto."""
        infos = await self._processes.list(call.container.id)
        return pb.ListExecsResponse(execs=map(convert.exec_to_proto, infos))

    async def ListProcesses(self, _: pb.ListProcessesRequest, call: Call) -> pb.ListProcessesResponse:
        """See the proto."""
        running = self._containers.held(call.container)
        found = [] if running is None else await self._processes.processes(running)
        for_host = call.caller.container_id is None
        return pb.ListProcessesResponse(processes=[convert.process_to_proto(one, for_host=for_host) for one in found])
