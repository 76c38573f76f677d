"""Kept results of benchmarks: read back whole, compared with care, and shown by a page that is up to date."""

import json
import random
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from benchmarks import compare, contenders, left_out, page, picture
from benchmarks.cascade import Cascade, Floor
from benchmarks.idle import Idle
from benchmarks.load import Load
from benchmarks.measure import Timing
from benchmarks.results import NoResults, Results, read
from benchmarks.volume_io import PLACES, TITLE, Io

DOCS = Path(__file__).parents[2] / "docs"


def times(middle: float, spread: float = 0.1, count: int = 30) -> tuple[float, ...]:
    chance = random.Random(0)
    return tuple(middle * (1 + spread * (chance.random() - 0.5)) for _ in range(count))


def results(ours: float = 10, peer: float = 20) -> Results:
    return Results(
        timings={"exec /bin/true": [Timing("sysproc", times(ours)), Timing("crun exec", times(peer))]},
        loads=[Load("SystemService/WhoAmI", 8, 3000.0, times(2))],
        io=[Io("sequential read", True, 900.0, 1000.0, "MB/s")],
        idle=Idle(10, 30.0, 31.0, 40.0, 800.0, 0.5),
        trees=[Cascade(10, 40.0, 90.0, 40.0)],
        trees_by_hand=Floor(10, 20.0, 20.0, 30.0, 10.0),
    )


def kept(directory: Path, name: str, one: Results) -> str:
    one.write(directory / name)
    return str(directory / name)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    one = results()
    kept(tmp_path, "a.json", one)
    assert read(tmp_path / "a.json") == one


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 0}', '{"schema": 1}', '{"schema": 1, "timings": []}'])
def test_what_is_no_result_is_said_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "no.json").write_text(text)
    with pytest.raises(NoResults, match=r"no\.json"):
        read(tmp_path / "no.json")


@pytest.mark.parametrize(("after", "verdict"), [(10.1, ""), (12, "slower"), (8, "quicker")])
def test_only_what_is_certain_is_called_slower(after: float, verdict: str) -> None:
    one, _, _ = compare.changes(results(10), results(after))
    assert one.verdict == verdict and one.low <= one.ratio <= one.high


def test_few_and_scattered_times_are_certain_of_nothing() -> None:
    before, after = Timing("sysproc", times(10, 3, 5)), Timing("sysproc", times(13, 3, 5))
    assert compare.change("exec", before, after).verdict == ""


@pytest.mark.parametrize(("ours", "peer", "status"), [(10, 20, 0), (10, 40, 0), (20, 20, 1)])
def test_a_comparison_fails_for_what_is_ours_only(tmp_path: Path, ours: float, peer: float, status: int) -> None:
    files = kept(tmp_path, "a.json", results()), kept(tmp_path, "b.json", results(ours, peer))
    done = CliRunner().invoke(compare.main, [*files, "--fail"])
    assert done.exit_code == status, done.output
    assert f"the peers took {peer / 20:.2f} times as long" in done.output


def test_what_took_no_time_is_compared_as_well() -> None:
    nothing = Timing("open", (0.0,) * 30)
    assert compare.change("making a filter", nothing, nothing).ratio == 1
    assert compare.change("making a filter", nothing, Timing("open", times(2))).verdict == "slower"


def test_a_slower_peer_is_never_ours(tmp_path: Path) -> None:
    """Each contender of the kept run that is a peer's, ten times as slow."""
    whole = read(DOCS / "benchmarks.json").timings
    timings = {title: found for title, found in whole.items() if has_peers(title, found)}
    slower: dict[str, Sequence[Timing]] = {
        title: [tenfold(one) if contenders.is_peer(title, one.contender) else one for one in several]
        for title, several in timings.items()
    }
    files = kept(tmp_path, "a.json", Results(timings)), kept(tmp_path, "b.json", Results(slower))
    done = CliRunner().invoke(compare.main, [*files, "--fail"])
    assert done.exit_code == 0, done.output
    assert "the peers took 10.00 times as long" in done.output


def has_peers(title: str, timings: Sequence[Timing]) -> bool:
    return any(contenders.is_peer(title, one.contender) for one in timings)


def tenfold(one: Timing) -> Timing:
    return Timing(one.contender, tuple(10 * time for time in one.times_ms))


def test_every_contender_of_the_kept_run_is_ours_or_a_peers() -> None:
    kept_run = compare.all_timings(read(DOCS / "benchmarks.json"))
    found = [(title, one.contender) for title, several in kept_run for one in several]
    assert [one for one in found if not contenders.is_classified(*one)] == []
    peers = {name for title, name in found if contenders.is_peer(title, name)}
    assert {"nsenter into crun's", "mount -o loop, umount", "cp --sparse=always", "spawn on the host"} <= peers
    assert not peers & {"sysproc", "mount, umount", "snapshot", "create"}


def test_what_is_measured_once_is_shown_beside_what_it_was(tmp_path: Path) -> None:
    other = results()
    other.io = [Io("sequential read", True, 450.0, 1000.0, "MB/s")]
    files = kept(tmp_path, "a.json", results()), kept(tmp_path, "b.json", other)
    done = CliRunner(env={"COLUMNS": "200"}).invoke(compare.main, [*files, "--fail"])
    lines = [line for line in done.output.splitlines() if "sequential read, direct, volume, MB/s" in line]
    assert len(lines) == 1 and "0.50" in lines[0] and done.exit_code == 0


def test_a_comparison_says_what_was_different_around_it(tmp_path: Path) -> None:
    other = results()
    other.machine["kernel"], other.versions["crun"] = "5.14", "0.1"
    files = kept(tmp_path, "a.json", results()), kept(tmp_path, "b.json", other)
    said = CliRunner().invoke(compare.main, [*files]).output
    assert "5.14 after" in said and "0.1 after" in said


MANY_PLACES = Io("sequential read", True, 900.0, 1000.0, "MB/s", direct_io=450.0, encrypted=90.0)


def test_what_is_measured_of_io_is_on_the_page_and_what_is_not_is_not() -> None:
    old, new = results(), results()
    new.io, new.decrypted_by = [MANY_PLACES], "dm-crypt"
    before, after = page.page(old), page.page(new)
    assert "| sequential read, direct | 900 MB/s | 450 MB/s | 1000 MB/s | 0.50 | 0.45 |" in after
    assert "| sequential read, direct | 900 MB/s | 90 MB/s | 1000 MB/s | 0.10 |" in after
    assert "Decrypted by dm-crypt." in after and "podman volume |" not in after
    assert "### Encrypted" not in before and "### With `--direct-io`" not in before


def test_io_of_each_place_is_compared() -> None:
    one = results()
    one.io = [MANY_PLACES]
    found = dict(compare.once_only(one))
    assert found["sequential read, direct, volume, --direct-io, MB/s"] == 450
    assert found["sequential read, direct, volume, encrypted, MB/s"] == 90


def test_who_is_left_out_is_named_on_the_page_with_the_reason_and_compared_with_nobody(tmp_path: Path) -> None:
    one = results()
    one.left_out_of("exec /bin/true")["runc exec"] = "it says `no`"
    one.left_out_of("copying 1 GiB, 200 MiB used, with reflink")["all of it"] = "no xfs"
    one.left_out_of("load")["ghz"], one.loads = "not installed", []
    files = kept(tmp_path, "a.json", one), kept(tmp_path, "b.json", results())
    assert read(tmp_path / "a.json").left_out == one.left_out
    shown = page.page(one)
    assert "\n- runc exec: `it says 'no'`\n" in shown and "with reflink\n" in shown and "- all of it: `no xfs`" in shown
    assert shown.index("## Unary calls under load") < shown.index("- ghz: `not installed`") < shown.index("## Idle")
    assert "Left out" not in page.page(results())
    done = CliRunner().invoke(compare.main, [*files, "--fail"])
    assert done.exit_code == 0 and "runc exec" not in done.output, done.output


def test_a_peer_that_does_not_run_is_left_out_with_what_it_says() -> None:
    def says(*command: str) -> left_out.Work:
        return lambda: subprocess.run(command, check=True, capture_output=True)

    missing: left_out.LeftOut = {}
    works = {
        "runs": says("true"),
        "fails": says("sh", "-c", "echo first >&2; echo last >&2; exit 3"),
        "is silent": says("false"),
        "is not there": says("no-such-peer"),
    }
    assert [*left_out.usable(works, missing)] == ["runs"]
    assert missing == {
        "fails": "last",
        "is silent": "it ends with 1",
        "is not there": "no-such-peer is not installed",
    }


@contextmanager
def made_by(command: str, ended: list[str]) -> Iterator[str]:
    subprocess.run([command], check=True)
    yield command
    ended.append(command)


def test_what_cannot_be_made_is_left_out_and_what_can_is_there_until_the_end() -> None:
    missing: left_out.LeftOut = {}
    ended: list[str] = []
    with ExitStack() as stack:
        assert left_out.entered(stack, "broken", made_by("no-such-peer", ended), missing) is None
        assert left_out.entered(stack, "whole", made_by("true", ended), missing) == "true"
        assert ended == [] and missing == {"broken": "no-such-peer is not installed"}
    assert ended == ["true"]


def test_every_peer_of_the_kept_run_is_measured_or_left_out_with_a_reason() -> None:
    found = read(DOCS / "benchmarks.json")
    if not found.left_out:
        pytest.skip("the kept run is from before who is left out was kept: `make bench bench-page` makes another")
    for title, sides in contenders.BESIDE_PEERS.items():
        measured = {one.contender for one in found.timings.get(title, ())}
        missing = found.left_out.get(title, {})
        assert measured or "all of it" in missing
        assert not measured or sides.ours | sides.theirs <= measured | {*missing}, title
    missing = found.left_out.get(TITLE, {})
    assert [name for field, name in PLACES.items() if found.io[0].of(field) is None and name not in missing] == []


def test_the_picture_has_a_bar_for_each_figure() -> None:
    drawn = ElementTree.fromstring(picture.drawing(results()))
    texts = [one.text for one in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"sysproc", "crun exec", "sequential read, direct", "0.90"} <= {*texts}


def test_the_page_and_the_picture_are_those_of_the_kept_run() -> None:
    """Whoever measures again, or changes how it is shown, runs `make bench-page`."""
    found = read(DOCS / "benchmarks.json")
    assert (DOCS / page.PAGE).read_text() == page.page(found)
    assert (DOCS / page.PICTURE).read_text() == picture.drawing(found)


def test_units_keep_their_capitals_in_a_heading() -> None:
    assert page.heading("copying 1 GiB, 200 MiB used") == "Copying 1 GiB, 200 MiB used"


@pytest.mark.parametrize(("count", "p90"), [(3, ""), (30, "10.00")])
def test_there_is_no_tenth_of_a_few_times(count: int, p90: str) -> None:
    (row,) = page.timing_rows([Timing("create 100", (10.0,) * count)])
    assert row == ("create 100", "10.00", p90, "1.00")


def test_the_kept_run_is_whole() -> None:
    found = json.loads((DOCS / "benchmarks.json").read_text())
    assert {*page.SHOWN} <= {*found["timings"]} and found["io"] and found["loads"] and found["machine"]["kernel"]
