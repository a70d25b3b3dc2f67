"""A file of secrets that can be opened, for plans that compare them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyrage
import yaml

from runtime import sops


def planted(folder: Path, secrets: Mapping[str, str]) -> dict[str, str]:
    """Write the secrets (by dotted name) and the key to them; the group_data that names both."""
    identity = pyrage.x25519.Identity.generate()
    keys, file = folder / "age.txt", folder / "planted.sops.yaml"
    keys.write_text(f"{identity}\n")
    sections: dict[str, dict[str, str]] = {}
    for name, value in secrets.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = value
    text = yaml.safe_dump(sections)
    file.write_text(sops.encrypt(text, file, keys, [str(identity.to_public())]))
    return {"secrets_file": str(file), "age_key_file": str(keys)}
