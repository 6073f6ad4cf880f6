"""The pages for people: home, and a pipeline as it happens, on the same application as the API."""

from trilogue.dashboard.installing import install

__all__ = ["install"]
