"""One Ray cluster for the tests of cluster/ and e2e/, and how pytest-xdist deals the tests to its processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from actors.placement import Resources

# A shell that starts pytest in the background makes it and its children ignore Ctrl-C, which some tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).resolve().parent
# Directories whose tests share costly processes, and so run in one pytest process. They start first: they take longest.
GROUPS = {"cluster": "cluster", "e2e": "cluster", "engine": "engine"}

settings.register_profile("long", max_examples=500, deadline=None)  # `make test-all`, where a test names no number of its own


class ByGroup(LoadScopeScheduling):
    """Deals whole groups, and of other directories whole files, to pytest-xdist's processes."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return GROUPS.get(Path(file).parts[1], file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByGroup:
    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.relative_to(TESTS).parts[0] not in GROUPS)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Resources]:
    """A Ray cluster, connected in this process, for all tests that do not test how a cluster starts: what it has. Runs in this
    process use it."""
    from actors.cluster import cluster  # here, for the unit tests need no Ray

    with cluster(None, "cpu") as resources:
        yield resources
