from collections.abc import Mapping
from typing import Any

from trilogue.dashboard.scene import Scene


def alpha(scene: Scene) -> Mapping[str, Any]:
    del scene
    return {}


def beta(scene: Scene) -> Mapping[str, Any]:
    del scene
    return {}
