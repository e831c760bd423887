"""Fixtures that every test may use; whoever needs more takes it from `tests.support`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.certificates import Authority
from tests.support.clock import FakeClock
from tests.support.peers import App
from tests.support.process import LOOPS

# No deadline: shared machines pause. Examples are few by default and many in a run of their own
# (`pytest --hypothesis-profile=long`).
settings.register_profile(
    "default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", deadline=None, max_examples=5000)
settings.load_profile("default")


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The CA that everybody trusts."""
    return Authority("test CA")


@pytest.fixture(scope="session")
def stranger() -> Authority:
    """A CA with the same name that nobody trusts."""
    return Authority("test CA")


@pytest.fixture
def app() -> Iterator[App]:
    """An application that answers 200 `ok`."""
    with App() as running:
        yield running


@pytest.fixture(params=LOOPS)
def loop_name(request: pytest.FixtureRequest) -> str:
    """Every loop that we run on, for `running_ambassador`."""
    return str(request.param)


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Give what shows a text at the end of the run, of tests that measure something: also when they pass."""
    return lambda text: request.node.user_properties.append(("figures", text))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures; they have come from the workers of xdist as well."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "figures":
                terminalreporter.section(report.nodeid.rpartition("::")[2], sep="-")
                terminalreporter.write_line(str(text))
