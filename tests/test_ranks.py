"""Test what the processes of a run tell each other."""

import weakref

import pytest
import torch.distributed as dist
from several import in_processes, needs_fork

from transformer.ranks import Ranks, current, is_lost, joined, restarts


def test_a_process_that_was_started_alone_has_rank_0_of_1() -> None:
    with joined() as ranks:
        assert ranks == Ranks(0, 1) == current()
        assert ranks.is_first
        ranks.wait()
        assert ranks.largest(True, 2.5) == [True, 2.5]
        assert ranks.from_first({"a": 1}) == {"a": 1}
        assert ranks.from_all("é") == ["é"]
        assert ranks.may_say("x") and ranks.may_say("x")


@needs_fork
def test_processes_tell_each_other_numbers_and_values() -> None:
    def work() -> list:
        with joined() as ranks:
            assert (current().rank, current().world) == (ranks.rank, ranks.world)
            ranks.wait()
            own = ["é" * ranks.rank, None]
            return [
                ranks.rank,
                ranks.largest(ranks.rank == 1, -float(ranks.rank)),
                ranks.from_first({"first": ranks.rank}),
                ranks.from_all(own),
            ]

    expected = [[1.0, 0.0], {"first": 0}, [["", None], ["é", None], ["éé", None]]]
    assert in_processes(3, work) == [[rank, *expected] for rank in range(3)]
    assert current() == Ranks()


@needs_fork
def test_what_all_have_to_say_is_said_once() -> None:
    def work() -> list[bool]:
        with joined() as ranks:
            said = [ranks.may_say("the same"), ranks.may_say(f"from {ranks.rank}")]
            ranks.wait()
            return [*said, ranks.may_say("gone", only_if_silent=True)]

    found = in_processes(2, work)
    assert sorted(row[0] for row in found) == [False, True]
    assert [row[1:] for row in found] == [[True, False]] * 2


@needs_fork
def test_no_process_waits_for_one_that_has_failed() -> None:
    def work() -> str:
        with joined() as ranks:
            if ranks.rank == 1:
                return "failed"
            try:
                ranks.wait()
            except RuntimeError as error:
                return "lost" if is_lost(error) else str(error)
            return "waited for nobody"

    assert in_processes(2, work) == ["lost", "failed"]


@needs_fork
def test_a_group_that_was_left_is_not_freed_by_what_was_trained_in_it() -> None:
    def work() -> bool:
        with joined():
            group = weakref.ref(dist.group.WORLD)
        return group() is not None

    assert in_processes(2, work) == [True, True]


@pytest.mark.parametrize(("text", "expected"), [("Connection closed by peer", True), ("x", False)])
def test_other_errors_are_not_taken_for_a_lost_process(text: str, expected: bool) -> None:
    assert is_lost(RuntimeError(text)) == expected
    assert not is_lost(ValueError(text))


def test_restarts_are_those_that_torchrun_counts(monkeypatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    assert restarts() == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert restarts() == 2
