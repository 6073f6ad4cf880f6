"""Governed multi-agent pipelines on Prefect."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("trilogue")
except PackageNotFoundError:  # a source tree that nobody installed
    __version__ = "0.0.0"
