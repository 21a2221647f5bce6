"""Fixtures of the cluster tests: a LAN of network namespaces, the test model, a limit on every test's time.

Where network namespaces cannot be made, the tests that need one are skipped and say why; set SHOAL_NEED_LAN=1 to fail
instead. Who is not root but may make user namespaces gets one for the whole run.
"""
import os
import signal
import sys

import pytest

import lan as lans
from nodes import PATIENCE
from on_this_machine import here, smollm2  # noqa: F401

LIMIT_S = 240


def pytest_configure(config):
    config.addinivalue_line("markers", f"limit(seconds): how long a test may take; {LIMIT_S} s when not given")
    config.addinivalue_line("markers", "unsanitized: of memory, or of instants of a fast start")
    capture = config.pluginmanager.getplugin("capturemanager")
    lans.enter_user_namespace("-m", "pytest", *sys.argv[1:], before=capture.stop_global_capturing if capture else None)


def pytest_terminal_summary(terminalreporter):
    reason = lans.why_not()
    if reason:
        terminalreporter.section("cluster tests were SKIPPED", bold=True, red=True)
        terminalreporter.line(reason)


def pytest_collection_modifyitems(items):
    for item in items:
        if PATIENCE > 1 and item.get_closest_marker("unsanitized"):
            item.add_marker(pytest.mark.skip(reason="a sanitized program's memory and speed are not the program's"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    mark = item.get_closest_marker("limit")
    seconds = (mark.args[0] if mark else LIMIT_S) * PATIENCE

    def too_long(_signal, _frame):
        raise TimeoutError(f"the test took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def namespaces():
    reason = lans.why_not()
    if reason is None:
        return
    if os.environ.get("SHOAL_NEED_LAN"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def make_lan(namespaces):
    """make_lan(**options of Lan): closed when the test ends."""
    made = []

    def make(**options):
        made.append(lans.Lan(**options))
        return made[-1]

    yield make
    for one in made:
        one.__exit__()


@pytest.fixture
def lan(make_lan):
    """IPv4 and IPv6, 1 ms each way."""
    return make_lan(delay_us=1000)
