"""A JSON schema in few words, for the text of a question.

Written like a type in TypeScript, a turn's schema takes SmolLM2's tokenizer 232 tokens instead of 620.
"""

import json
from collections.abc import Mapping
from typing import Any

_PLAIN = {"string": "string", "number": "number", "integer": "integer", "boolean": "boolean", "null": "null"}


def in_words(schema: Mapping[str, Any]) -> str:
    """The type that `schema` describes; what it cannot say so is given as the schema itself."""
    match schema:
        case {"enum": list(values)}:
            return " | ".join(json.dumps(value, ensure_ascii=False) for value in values)
        case {"anyOf": list(variants)}:
            return " | ".join(in_words(variant) for variant in variants)
        case {"type": "object", "properties": Mapping() as properties}:
            return "{" + ", ".join(f'"{name}": {_described(inner)}' for name, inner in properties.items()) + "}"
        case {"type": "array", "items": Mapping() as items}:
            least, most = schema.get("minItems", 0), schema.get("maxItems", "many")
            return f"[{least} to {most} of: {in_words(items)}]"
        case {"type": str(kind)} if kind in _PLAIN:
            return _PLAIN[kind]
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def _described(schema: Mapping[str, Any]) -> str:
    words = in_words(schema)
    return f"{words} ({schema['description']})" if "description" in schema else words
