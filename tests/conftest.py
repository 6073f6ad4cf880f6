"""Fixtures: one module per real server, each started once per test run."""

pytest_plugins = [
    "tests.fixtures.postgres",
    "tests.fixtures.prefect",
    "tests.fixtures.valkey",
    "tests.fixtures.vault",
    "tests.fixtures.model_server",
    "tests.fixtures.language_model",
    "tests.fixtures.receiver",
    "tests.driving",
    "tests.watching",
    "tests.terminals",
    "tests.command",
    "tests.fixtures.vault_attempts",
    "tests.fixtures.api",
    "tests.fixtures.served",
    "tests.fixtures.browser",
]
