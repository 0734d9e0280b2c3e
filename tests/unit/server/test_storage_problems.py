"""A database file that cannot be used: the error names the setting of this file."""

from __future__ import annotations

import pytest

from beaconfire.base.errors import EngineUnavailable, StorageUnusable
from beaconfire.config import Config, ConfigError
from beaconfire.engines.options import EngineOptions, MigrationOptions
from beaconfire.server.process_setup import storage_problems


@pytest.mark.parametrize(
    ("engine", "path", "key"),
    [
        (EngineOptions(type="sqlite", path="a.db"), "a.db", "engine.path"),
        (EngineOptions(type="sqlite", path="a.db"), "b.db", "migration.path"),
        (EngineOptions(path="b.db"), "b.db", "migration.path"),
    ],
)
def test_the_setting_is_that_of_the_file(engine: EngineOptions, path: str, key: str) -> None:
    """Also if the path of an engine that is not used is the same."""
    config = Config(engine=engine, migration=MigrationOptions(to="sqlite", path="b.db"))
    with pytest.raises(ConfigError) as caught, storage_problems(config):
        raise StorageUnusable(path, "is in use")
    assert [problem.key for problem in caught.value.problems] == [key]


def test_the_setting_is_that_of_the_servers() -> None:
    """The message says what the servers have answered. An engine without servers has no such setting."""
    with pytest.raises(ConfigError) as caught, storage_problems(Config(engine=EngineOptions(type="redis"))):
        raise EngineUnavailable("no answer")
    assert str(caught.value) == "redis.url (engine.type = 'redis'): no answer"
    with pytest.raises(EngineUnavailable), storage_problems(Config()):
        raise EngineUnavailable("no answer")
