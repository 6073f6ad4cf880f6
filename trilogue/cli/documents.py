"""What users hand over on the command line as files and pairs."""

from collections.abc import Sequence
from pathlib import Path

from trilogue.agent import Role
from trilogue.errors import Invalid
from trilogue.spec import LONGEST_CONTEXT


def read_documents(paths: Sequence[Path]) -> list[dict[str, str]]:
    """Context documents from files, named after them.

    Raises:
        Invalid: a file cannot be read, is too long, or is not text in UTF-8.
    """
    return [{"name": str(path), "text": _text(path)} for path in paths]


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LONGEST_CONTEXT:
            raise Invalid(
                f"--context {str(path)!r} has {path.stat().st_size:,} bytes; at most {LONGEST_CONTEXT:,}",
                code="invalid_context",
            )
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Invalid(f"--context {str(path)!r} cannot be read: {error.strerror}", code="invalid_context") from None
    except UnicodeDecodeError:
        raise Invalid(f"--context {str(path)!r} is not text in UTF-8", code="invalid_context") from None


def read_models(pairs: Sequence[str]) -> dict[str, str] | None:
    """`ROLE=MODEL` pairs. Raises `Invalid` for any other form."""
    models = {}
    for pair in pairs:
        role, separator, model = pair.partition("=")
        if not separator or role.upper() not in set(Role) or not model:
            raise Invalid(
                f"--model-for takes ROLE=MODEL with ALPHA, BETA or GAMMA, not {pair!r}", code="invalid_models"
            )
        models[role.upper()] = model
    return models or None
