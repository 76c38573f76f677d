"""The words for what a job of the launcher says when it fails."""

import errno

import pytest

from sysproc.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, SysprocError, Unavailable
from sysproc.images import job_failed
from sysproc.isolation.jail import with_its_limit
from sysproc.isolation.launcher_client import ChildFailed


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EBADMSG, InvalidArgument),
        (errno.EINVAL, InvalidArgument),
        (errno.EDQUOT, InvalidArgument),
        (errno.ENOSPC, ResourceExhausted),
        (errno.ENOMEM, ResourceExhausted),
        (errno.ETIME, ResourceExhausted),
        (errno.ECHILD, Unavailable),
        (errno.ENOPKG, FailedPrecondition),
    ],
)
def test_what_a_job_says_is_told_with_what_to_do(number: int, kind: type[SysprocError]) -> None:
    failure = job_failed("unpack the archive", ChildFailed(number, "these were the words"))
    assert isinstance(failure, kind)
    assert "these were the words" in failure.details and failure.resolution


@pytest.mark.parametrize(("number", "figure"), [(errno.ENOMEM, "1024 MiB of memory"), (errno.ETIME, "processor time")])
def test_a_limit_of_the_jail_is_told_with_its_figure_and_with_what_meets_it(number: int, figure: str) -> None:
    failure = with_its_limit(OSError(number, "a limit", "it has too many entries"))
    assert figure in failure.filename and "too many entries" in failure.filename


def test_another_failure_in_the_jail_is_told_as_it_is() -> None:
    failure = OSError(errno.EBADMSG, "broken", "these words")
    assert with_its_limit(failure) is failure
