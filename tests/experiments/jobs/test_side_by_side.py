"""The same function for many arguments, in several processes."""

import os

import pytest

from timesformer.parallel import side_by_side


@pytest.mark.integration
@pytest.mark.parametrize("jobs", [1, 3])
def test_answers_come_in_the_order_of_what_is_asked(jobs: int) -> None:
    assert side_by_side(divmod, [(7, 2), (9, 4), (5, 5)], jobs) == [(3, 1), (2, 1), (1, 0)]
    assert side_by_side(divmod, [], jobs) == []


@pytest.mark.integration
def test_processes_are_others_only_where_there_is_more_than_one_thing_to_do() -> None:
    assert set(side_by_side(os.getpid, [(), (), ()], 1)) == {os.getpid()}
    assert side_by_side(os.getpid, [()], 2) == [os.getpid()]
    assert os.getpid() not in side_by_side(os.getpid, [(), ()], 2)


@pytest.mark.integration
@pytest.mark.parametrize("jobs", [1, 2])
def test_the_first_error_is_raised(jobs: int) -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side(divmod, [(7, 2), (9, 0), (1, 1)], jobs)
