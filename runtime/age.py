"""The operator's age keys, and who may read which file of secrets."""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import Any

import pyrage
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from runtime.sops import SopsError

CONFIG = Path(".sops.yaml")
FOLDER = Path("secrets")  # files elsewhere, as the lab's, are read by their own key alone


def recipient(keys: Path) -> tuple[str, bool]:
    """The public half of the operator's first age key, and whether the key was made just now.

    A new key gets mode 0600 in a folder with mode 0700. Raises SopsError when the file is
    unreadable or holds no key.
    """
    if text := os.environ.get("SOPS_AGE_KEY", ""):
        return _public(text, "SOPS_AGE_KEY"), False
    try:
        return _public(keys.read_text(), str(keys)), False
    except FileNotFoundError:
        return _make(keys), True
    except OSError as error:
        raise SopsError(f"{keys} cannot be read ({error.strerror})") from None


def too_open(keys: Path) -> str | None:
    """What is wrong with the mode of the key file, None when only its owner can read it."""
    with contextlib.suppress(FileNotFoundError):
        mode = keys.stat().st_mode & 0o777
        if mode & 0o077:
            return f"{keys} has mode {mode:04o}: expected 0600 (chmod 600 {keys})"
    return None


def _public(text: str, place: str) -> str:
    for line in text.splitlines():
        if line.startswith("AGE-SECRET-KEY-1"):
            try:
                return str(pyrage.x25519.Identity.from_str(line.strip()).to_public())
            except pyrage.IdentityError:
                break
    raise SopsError(f"{place} holds no age key: expected a line AGE-SECRET-KEY-1...")


def _make(keys: Path) -> str:
    identity = pyrage.x25519.Identity.generate()
    public = str(identity.to_public())
    try:
        keys.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(keys, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(f"# public key: {public}\n{identity}\n")
    except OSError as error:
        raise SopsError(f"{keys} cannot be written ({error.strerror})") from None
    return public


def readers(path: Path, own: str) -> list[str]:
    """The age recipients of a file of secrets: those .sops.yaml names for it.

    A file under secrets/ that no rule covers gets one with the operator's own recipient.
    """
    for rule in _config(YAML()).get("creation_rules") or ():
        if _covers(rule, path):
            found = rule.get("age") or ()
            if isinstance(found, str):
                found = found.split(",")
            names = [name.strip() for name in found if name.strip()]
            if not names:
                raise SopsError(f"{CONFIG}: the rule for {path} names no age key")
            return names
    if path.parent == FOLDER:
        _add_rule(own)
    return [own]


def _covers(rule: Any, path: Path) -> bool:
    """Whether a rule of .sops.yaml is for the file; raises SopsError when it is none."""
    try:
        return re.search(str(rule.get("path_regex", "")), path.as_posix()) is not None
    except (AttributeError, re.error):
        raise SopsError(f"{CONFIG}: creation_rules: {rule}: expected a rule of sops") from None


def _config(editor: YAML) -> Any:
    """The content of .sops.yaml, or of a new one; raises SopsError for one that cannot be read."""
    text = (
        CONFIG.read_text()
        if CONFIG.exists()
        else (
            "# Who can read the files of secrets: public age keys. After a change of them,\n"
            "# `make secrets INVENTORY=...` encrypts a cluster's file anew.\ncreation_rules: []\n"
        )
    )
    try:
        data = editor.load(text) or {}
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SopsError(f"{CONFIG}: line {line}: not YAML: {error.problem}") from None
    if not isinstance(data, dict):
        raise SopsError(f"{CONFIG}: no creation_rules: expected the settings of sops")
    return data


def _add_rule(own: str) -> None:
    editor = YAML()
    editor.indent(mapping=2, sequence=4, offset=2)
    data = _config(editor)
    rule = {"path_regex": rf"^{FOLDER}/[^/]+\.sops\.yaml$", "age": [own]}
    data["creation_rules"] = [*(data.get("creation_rules") or ()), rule]
    out = io.StringIO()
    editor.dump(data, out)
    replace(CONFIG, out.getvalue(), 0o644)


def replace(path: Path, text: str, mode: int) -> None:
    """Write a file in one step, so that nobody sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
