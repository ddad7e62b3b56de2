import pytest
from blkproof.harness.errors import Loss, MachineLost, WaitError
from blkproof.harness.waiting import wait_until


def test_it_returns_what_the_predicate_found():
    answers = iter([None, 0, "", "found"])
    assert wait_until(lambda: next(answers), 60, "an answer") == "found"


def test_a_predicate_is_asked_even_with_no_time_at_all():
    assert wait_until(lambda: "there", 0, "an answer") == "there"


def test_too_late_names_what_and_quotes_the_console():
    with pytest.raises(WaitError, match=r"the disk: did not happen within .* s; .*'last line'") as caught:
        wait_until(lambda: None, 0.02, "the disk", tail=lambda: "first\nlast line\n")
    assert caught.value.waited_s >= 0.02


def test_a_lost_machine_ends_the_wait():
    def check():
        raise MachineLost(Loss.XEN_PANIC, "boot", 1.0, "sign")

    with pytest.raises(MachineLost):
        wait_until(lambda: None, 60, "the disk", check=check)


def test_what_came_together_with_the_loss_still_counts():
    def check():
        raise AssertionError

    assert wait_until(lambda: "there", 60, "an answer", check=check) == "there"
