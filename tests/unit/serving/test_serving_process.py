import gc
import sys
from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from serving.resilience import event_loop as process


@pytest.fixture
def as_before() -> Iterator[None]:
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    with threadpool_limits():
        yield
    sys.setswitchinterval(interval)
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("as_before")
def test_a_thread_of_the_background_gives_the_interpreter_back_soon_and_takes_one_core() -> None:
    process.share_fairly()
    assert sys.getswitchinterval() == pytest.approx(process.SWITCH_S)
    assert {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"} <= {1}


@pytest.mark.usefixtures("as_before")
def test_what_was_loaded_is_out_of_the_sight_of_the_garbage_collector() -> None:
    process.settle()
    assert gc.get_freeze_count() > 0
