"""Make, check and edit a cluster's file of secrets; refuse plaintext in files to be committed."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from cluster import k3s_token, secret_table, secret_text
from cluster.model import Cluster
from cluster.read import Problems
from cluster.services import s3
from runtime import age, sops


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 done, 1 a problem was printed, 2 usage."""
    options = _options(arguments)
    try:
        if options.check_files is not None:
            return _report(check_files(options.check_files))
        cluster = _cluster(options.inventory)
        if options.edit:
            return edit(cluster)
        if options.check:
            return _report(check(cluster))
        done = make(cluster, k3s_token.FILES.values() if options.new_tokens else ())
        if done:
            print(
                f"edit them: python -m commands.secrets {options.inventory} --edit", file=sys.stderr
            )
        return done
    except sops.SopsError as error:
        return _report([str(error)])
    except Problems as error:
        return _report(map(str, error.problems))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m commands.secrets", description=__doc__)
    parser.add_argument("inventory", nargs="?", help="e.g. inventories/home.py")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="only say what is missing")
    action.add_argument("--edit", action="store_true", help="open the file in $EDITOR")
    action.add_argument(
        "--new-tokens",
        action="store_true",
        help=f"make other join tokens, which {k3s_token.DEPLOY} then puts in force",
    )
    action.add_argument(
        "--check-files",
        nargs="*",
        metavar="FILE",
        help="refuse *.sops.* files that are not encrypted; without FILE, what git would commit",
    )
    options = parser.parse_args(arguments)
    if options.check_files is None and not options.inventory:
        parser.error("an inventory is needed, e.g. inventories/home.py")
    return options


def _cluster(path: str) -> Cluster:
    # pyinfra is needed here only: the check of files before a commit starts without it.
    from pyinfra.api.exceptions import PyinfraError

    from runtime import inventory

    try:
        return inventory.cluster_of(inventory.load(path), secrets_needed=False)
    except PyinfraError as error:
        raise sops.SopsError(str(error)) from None


def make(cluster: Cluster, anew: Collection[str] = ()) -> int:
    """Make the key, the rule in .sops.yaml and the missing secrets; what is there is kept.

    anew: names of secrets that are made although they are there.
    """
    path, keys = Path(cluster.secrets_file), sops.key_file(cluster.age_key_file)
    exists = path.exists()
    own, new_key = age.recipient(keys)
    if new_key and exists:
        raise sops.SopsError(
            f"{path}: no age key was in {keys}, and the new one does not open it: put yours there, "
            f"or let who can open it add {own} to {age.CONFIG} and run this command"
        )
    if new_key:
        print(f"{keys}: new age key, keep a copy in a safe place: without it nothing opens {path}")
    if warning := age.too_open(keys):
        print(warning, file=sys.stderr)
    text = sops.decrypt(path, keys) if exists else secret_text.header(cluster.name)
    before = sops.readers(path.read_text()) if exists else {}
    try:
        filled = secret_text.fill(text, secret_table.wanted(cluster), anew)
    except ValueError as error:
        raise sops.SopsError(f"{path}: {error}") from None
    readers = age.readers(path, own)
    if filled.made or filled.blank or before != {"age": readers}:
        if other := set(before) - {"age"}:
            raise sops.SopsError(
                f"{path} has readers by {', '.join(sorted(other))} besides age, which `make "
                "secrets` would drop: add what is missing with --edit"
            )
        age.replace(path, sops.encrypt(filled.text, path, keys, readers), 0o600)
    for name in filled.made:
        print(f"{path}: {name}: made")
    if exists and before.get("age") != readers:
        print(f"{path}: encrypted anew for {', '.join(readers)}")
    if not filled.made:
        print(f"{path}: nothing to make")
    _write_ca(cluster, keys)
    return _report(check(cluster))


def _write_ca(cluster: Cluster, keys: Path) -> None:
    """Keep the certificate of the CA beside the secrets: it is public, and plans need it."""
    if not s3.signed_by_us(cluster):
        return
    certificate = sops.flat(sops.load(Path(cluster.secrets_file), keys)).get("ca.certificate", "")
    file = Path(s3.ca_file(cluster.secrets_file))
    if certificate and (not file.exists() or file.read_text() != certificate):
        age.replace(file, certificate, 0o644)
        print(f"{file}: the CA's certificate, commit it too")


def check(cluster: Cluster) -> list[str]:
    """What is missing or malformed in the file, one line each."""
    path, keys = Path(cluster.secrets_file), sops.key_file(cluster.age_key_file)
    values = sops.flat(sops.load(path, keys))
    return [f"{path}: {line}" for line in secret_table.problems(cluster, values)]


def edit(cluster: Cluster) -> int:
    """Open the file in $EDITOR; sops encrypts it again. What is then missing is said."""
    path, keys = Path(cluster.secrets_file), sops.key_file(cluster.age_key_file)
    sops.load(path, keys)  # says in one line why it cannot be opened; sops would make a new file
    command = [sops.program(), "edit", str(path)]
    code = subprocess.run(command, env=sops.environment(keys), check=False).returncode
    if code not in (0, sops.UNCHANGED):
        return 1
    return _report(check(cluster))


def check_files(paths: Sequence[str]) -> list[str]:
    """Files that must not be committed: `*.sops.*` with plaintext, anything with an age key."""
    texts = (
        ((name, Path(name).read_text(errors="replace")) for name in paths) if paths else _staged()
    )
    found = []
    for name, text in texts:
        if ".sops." in Path(name).name.lstrip("."):  # .sops.yaml itself holds no secret
            found += secret_text.unencrypted(name, text)
        if secret_text.holds_age_key(text):
            found.append(f"{name}: holds a private age key")
    return found


def _staged() -> Iterable[tuple[str, str]]:
    names = _git("diff", "--cached", "--name-only", "--diff-filter=d", "-z").split("\0")
    for name in filter(None, names):
        yield name, _git("show", f":{name}")


def _git(*arguments: str) -> str:
    found = subprocess.run(["git", *arguments], capture_output=True, check=False)
    if found.returncode != 0:
        reason = found.stderr.decode(errors="replace").strip()
        raise sops.SopsError(f"git {arguments[0]}: {reason}")
    return found.stdout.decode(errors="replace")


def _report(lines: Iterable[str]) -> int:
    lines = list(lines)
    for line in lines:
        print(line, file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
