import signal
import threading

from jaxattr.preemption import Preemption


def test_sigterm_is_noticed_and_the_handler_before_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with Preemption() as preemption:
        assert not preemption.after(1)
        signal.raise_signal(signal.SIGTERM)
        assert preemption.after(2)
        # None was there that could be called.
        preemption.pass_on()
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Preemption() as preemption:
            signal.raise_signal(signal.SIGTERM)
            assert not preemption.after(1)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_leave_signals_alone():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def run():
        with Preemption() as preemption:
            seen.extend([signal.getsignal(signal.SIGTERM), preemption.after(1)])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before, False]
