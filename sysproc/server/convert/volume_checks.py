"""Checks of volumes: what was found. The verb and its values are in `sysproc.volume_checks`."""

from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc.volume_checks import Checked

RESULTS = {
    "clean": service.CHECK_RESULT_CLEAN,
    "repaired": service.CHECK_RESULT_REPAIRED,
    "damaged": service.CHECK_RESULT_DAMAGED,
    "failed": service.CHECK_RESULT_FAILED,
}


def checked_to_proto(one: Checked) -> service.CheckVolumeResponse:
    """A filesystem that was looked at."""
    return service.CheckVolumeResponse(filesystem=one.filesystem, result=RESULTS[one.result], output=one.output)
