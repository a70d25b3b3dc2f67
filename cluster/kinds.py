"""Kinds of values the inputs are made of: their syntax, and what to say of a wrong one."""

from __future__ import annotations

import base64
import binascii
import re
import zoneinfo
from collections.abc import Callable
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator

from cluster import versions


class Unfit(ValueError):
    """A value of the wrong form: what is allowed, and what was probably meant."""

    def __init__(self, allowed: str, suggestion: str = "") -> None:
        super().__init__(allowed)
        self.allowed = allowed
        self.suggestion = suggestion


class AddressRange(NamedTuple):
    """First and last IPv4 address of a range, both included."""

    first: IPv4Address
    last: IPv4Address

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def holds(self, address: IPv4Address) -> bool:
        """Whether the address lies in the range."""
        return self.first <= address <= self.last

    def overlaps(self, other: AddressRange) -> bool:
        """Whether the two ranges share an address."""
        return self.first <= other.last and other.first <= self.last


def address_range(value: object) -> AddressRange:
    """Read `10.0.0.100-10.0.0.200` or a CIDR; raises Unfit."""
    if isinstance(value, AddressRange):
        return value
    allowed = "a range such as 10.0.0.100-10.0.0.200, or a CIDR"
    if not isinstance(value, str):
        raise Unfit(allowed)
    try:
        if "/" in value:
            network = IPv4Network(value)
            return AddressRange(network[0], network[-1])
        first, _, last = value.partition("-")
        result = AddressRange(IPv4Address(first.strip()), IPv4Address(last.strip()))
    except ValueError:
        raise Unfit(allowed, _short_range(value)) from None
    if result.last < result.first:
        raise Unfit("a range whose first address comes first", f"{result.last}-{result.first}")
    return result


def _short_range(value: str) -> str:
    """What `10.0.0.100-200` stands for."""
    found = re.fullmatch(r"((?:\d+\.){3})(\d+)\s*-\s*(\d{1,3})", value)
    return f"{found[1]}{found[2]}-{found[1]}{found[3]}" if found else ""


def address(value: object) -> IPv4Address:
    """Read an IPv4 address; raises Unfit, also for the numbers that ipaddress accepts."""
    if isinstance(value, IPv4Address):
        return value
    try:
        return IPv4Address(value if isinstance(value, str) else "")
    except ValueError:
        raise Unfit("an IPv4 address such as 10.0.0.11") from None


def is_address(text: str) -> bool:
    """Whether a text is an IPv4 address rather than a name."""
    try:
        address(text)
    except Unfit:
        return False
    return True


def network(value: object) -> IPv4Network:
    """Read a CIDR; raises Unfit, for host bits with the network that was meant."""
    if isinstance(value, IPv4Network):
        return value
    text = value if isinstance(value, str) else ""
    try:
        return IPv4Network(text)
    except ValueError:
        try:
            meant = str(IPv4Network(text, strict=False))
        except ValueError:
            meant = ""
    raise Unfit("a network such as 10.0.0.0/24", meant)


def _no_truth(value: Any) -> Any:
    """Refuse True where a number stands: Python, and pydantic with it, takes it for 1."""
    if isinstance(value, bool):
        raise Unfit("a whole number")
    return value


def _of_hosts(value: IPv4Network) -> IPv4Network:
    """A network that hosts are in: one of a single address is a forgotten mask."""
    if value.prefixlen == 32:
        raise Unfit("a network such as 10.0.0.0/24", str(value.supernet(new_prefix=24)))
    return value


def _matching(pattern: str, allowed: str, repair: Callable[[str], str] = str) -> AfterValidator:
    """Texts of one form; `repair` turns a common mistake into what was meant."""
    form = re.compile(pattern)

    def check(value: str) -> str:
        if form.fullmatch(value):
            return value
        meant = repair(value)
        raise Unfit(allowed, meant if form.fullmatch(meant) else "")

    return AfterValidator(check)


_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_DNS_NAME = rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*"
_ADDRESS = r"\d{1,3}(?:\.\d{1,3}){3}"
# Source: Kubernetes' documentation of labels; the prefix is a DNS name.
_NAME_63 = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_QUALIFIED = rf"(?:{_DNS_NAME}/)?{_NAME_63}"


def _lower(value: str) -> str:
    return value.lower().replace("_", "-")


def _without_scheme(value: str) -> str:
    return re.sub(r"^[a-z0-9]+://", "", value).rstrip("/")


def _mac(value: str) -> str:
    allowed = "the address of a network card such as dc:a6:32:00:00:01"
    digits = re.sub(r"[-:.]", "", value.lower())
    if not re.fullmatch(r"[0-9a-f]{12}", digits):
        raise Unfit(allowed)
    whole = ":".join(digits[i : i + 2] for i in range(0, 12, 2))
    if value.lower() != whole:
        raise Unfit(allowed, whole)
    if int(digits[:2], 16) & 1 or not int(digits, 16):
        raise Unfit("the address of one network card, no group or empty address")
    return whole


def _timezone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = zoneinfo.available_timezones()
        if known:  # a machine without the database cannot tell
            meant = get_close_matches(value, known, n=1)
            raise Unfit("a time zone such as Europe/Madrid", *meant) from None
    return value


def _k3s_version(value: str) -> str:
    if re.fullmatch(r"v\d+\.\d+\.\d+\+k3s\d+", value):
        return value
    meant = get_close_matches(value, versions.K3S_RELEASES, n=1)
    raise Unfit(f"a release of K3s such as {versions.K3S_DEFAULT}", *meant)


def _ports(value: str) -> str:
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", value)
    if found:
        first, last = int(found[1]), int(found[2] or found[1])
        if 1 <= first <= last <= 65535 and (not found[2] or first < last):
            return value
    raise Unfit("a port from 1 to 65535, or a range such as 8000-8010")


def _public_key(value: str) -> str:
    allowed = "one public SSH key such as 'ssh-ed25519 AAAA... ada@laptop'"
    if "PRIVATE KEY" in value:
        raise Unfit("a public SSH key, never a private one")
    kind, _, rest = value.strip().partition(" ")
    if "\n" in value.strip() or not rest:
        raise Unfit(allowed)
    try:
        blob = base64.b64decode(rest.split()[0], validate=True)
    except binascii.Error:
        raise Unfit(allowed) from None
    # Source: RFC 4253 §6.6: the key begins with its kind, after its length in four bytes.
    if blob[4 : 4 + int.from_bytes(blob[:4])] != kind.encode():
        raise Unfit(allowed)
    return value.strip()


def taint_parts(value: Any) -> Any:
    """A taint as kubectl writes it, `key=value:Effect`, into its parts."""
    if not isinstance(value, str):
        return value
    name, colon, effect = value.rpartition(":")
    if not colon:
        raise Unfit("a taint such as dedicated=storage:NoSchedule")
    key, _, content = name.partition("=")
    return {"key": key, "value": content, "effect": effect}


Address = Annotated[IPv4Address, BeforeValidator(address)]
Whole = Annotated[int, BeforeValidator(_no_truth)]
Range = Annotated[AddressRange, BeforeValidator(address_range)]
Cidr = Annotated[IPv4Network, BeforeValidator(network)]
Lan = Annotated[IPv4Network, BeforeValidator(network), AfterValidator(_of_hosts)]
HostName = Annotated[
    str,
    _matching(_LABEL, "a host name of a-z, 0-9 and -, at most 63 characters", _lower),
]
DnsName = Annotated[str, _matching(_DNS_NAME, "a DNS name such as home.example.com", _lower)]
DnsNameOrAddress = Annotated[
    str, _matching(rf"{_ADDRESS}|{_DNS_NAME}", "a DNS name or an address", _without_scheme)
]
Endpoint = Annotated[
    str,
    _matching(
        rf"(?:{_ADDRESS}|{_DNS_NAME})(?::\d{{1,5}})?",
        "host[:port] without a scheme, such as s3.example.com:9091",
        _without_scheme,
    ),
]
Url = Annotated[
    str, _matching(r"https?://[^\s/]+(?:/\S*)?", "a URL that starts with http:// or https://")
]
Mac = Annotated[str, AfterValidator(_mac)]
Disk = Annotated[str, _matching(r"/dev/[^\s]+", "a device such as /dev/sda", lambda v: f"/dev/{v}")]
Timezone = Annotated[str, AfterValidator(_timezone)]
Locale = Annotated[
    str, _matching(r"C|POSIX|[A-Za-z]+(?:_[A-Z]{2})?\.UTF-8", "a locale such as en_US.UTF-8")
]
LabelKey = Annotated[
    str, _matching(_QUALIFIED, "a label name such as storage or example.com/storage")
]
LabelValue = Annotated[
    str,
    _matching(
        rf"(?:{_NAME_63})?", "at most 63 letters, digits, - _ . with a letter or digit at both ends"
    ),
]
# Source: apimachinery's resource.Quantity, without its exponents.
Quantity = Annotated[
    str, _matching(r"\d+(?:\.\d+)?(?:m|[kKMGTPE]i?)?", "a quantity such as 200m, 300Mi or 1Gi")
]
Threshold = Annotated[
    str,
    _matching(r"\d+(?:\.\d+)?(?:%|[kKMGTPE]i?)?", "a quantity such as 200Mi, or a percentage"),
]
Size = Annotated[str, _matching(r"\d+[KMGT]?", "a size such as 200M", lambda v: v.rstrip("iB"))]
# Source: robfig/cron's parser, which etcd snapshots in K3s are scheduled with.
Cron = Annotated[
    str,
    _matching(
        r"@(?:yearly|annually|monthly|weekly|daily|midnight|hourly|every \S+)"
        r"|(?:[-\d*,/A-Za-z?]+ ){4}[-\d*,/A-Za-z?]+",
        "a cron schedule of five fields such as '0 */12 * * *'",
    ),
]
Sysctl = Annotated[str, _matching(r"[a-z0-9_]+(?:[./][\w*-]+)+", "a key such as vm.swappiness")]
# Source: Documentation/admin-guide/kernel-parameters.txt; a blank would make two of it.
KernelToken = Annotated[
    str,
    _matching(
        r'[!#-~]+(?:="[ !#-~]*")?', "a parameter of the kernel such as usbcore.autosuspend=-1"
    ),
]
ConfigSection = Annotated[
    str, _matching(r"[\w+=:.-]+", "a section of config.txt such as all, pi4 or pi5", _lower)
]
# Source: raspberrypi.com "config.txt": at most 98 characters, no blanks around `=`.
ConfigLine = Annotated[
    str,
    _matching(
        r"(?=.{3,98}$)[\w:]+=[!-~]*|(?=.{3,98}$)(?:initramfs|include) [ -~]+",
        "a line of config.txt such as dtparam=pciex1_gen=3, at most 98 characters",
        lambda value: re.sub(r"\s*=\s*", "=", value, count=1).strip(),
    ),
]
VidPid = Annotated[
    str, _matching(r"[0-9a-f]{4}:[0-9a-f]{4}", "the ids of a USB device such as 152d:0578", _lower)
]
# Source: kernel-parameters.txt, usb-storage.quirks.
QuirkFlags = Annotated[
    str, _matching(r"[a-z]*", "flags of usb-storage.quirks such as u, or nothing")
]
# Source: Debian Policy 5.6.1.
Package = Annotated[str, _matching(r"[a-z0-9][a-z0-9+.-]+", "the name of a package such as htop")]
UserName = Annotated[
    str, _matching(r"[a-z_][-a-z0-9_]{0,31}", "a login name of a-z, 0-9, - and _", _lower)
]
Sha256 = Annotated[str, _matching(r"[0-9a-f]{64}", "a sha256 of 64 hex digits", _lower)]
# Source: RFC 3720 §3.2.6.3.1.
Iqn = Annotated[
    str,
    _matching(
        rf"iqn\.\d{{4}}-\d\d\.{_DNS_NAME}",
        "the begin of an iSCSI name such as iqn.2024-01.com.example",
    ),
]
Fingerprint = Annotated[
    str,
    _matching(
        r"[0-9A-F]{40}",
        "the fingerprint of an OpenPGP key, 40 hex digits",
        lambda value: value.replace(" ", "").upper(),
    ),
]
Pem = Annotated[
    str,
    _matching(
        r"\s*(?:-----BEGIN CERTIFICATE-----[\s\w+/=]+-----END CERTIFICATE-----\s*)+",
        "one or more certificates in PEM format",
    ),
]
Folder = Annotated[
    str, _matching(r"(?:/[\w.-]+)+", "an absolute path such as /storage", lambda v: f"/{v}")
]
# Source: Amazon's rules for names of buckets, without those for what is hosted there.
Bucket = Annotated[
    str,
    _matching(
        r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
        "3 to 63 of a-z, 0-9, . and - with a letter or digit at both ends",
        _lower,
    ),
]
# Source: restic's manual, preparing a new repository; a plain folder must be absolute.
Repository = Annotated[
    str,
    _matching(
        r"(?:/[\w.-]+)+|(?:s3|sftp|rest|rclone|b2|azure|gs|swift):[^\s\"'$\\]+",
        "an absolute folder, or what restic takes, such as sftp:user@host:/folder",
    ),
]
# Source: systemd.time(7), as far as this; systemd itself judges the rest on the host.
Calendar = Annotated[
    str,
    _matching(
        r"(?:minutely|hourly|daily|weekly|monthly|quarterly|yearly)|[A-Za-z0-9*:,./~ -]+",
        "a calendar event of systemd such as '*-*-* 02:00:00' or 'Sun *-*-* 05:00:00'",
    ),
]
Instant = Annotated[
    str,
    _matching(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)",
        "a moment such as 2026-03-31T04:00:00Z",
        lambda value: value.replace(" ", "T") + "Z",
    ),
]
# Source: the kernel's dev_valid_name, without what a shell or nft would have to quote.
Interface = Annotated[
    str, _matching(r"[A-Za-z][A-Za-z0-9_.-]{0,14}", "a network interface such as eth0")
]
Ports = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),
    AfterValidator(_ports),
]
Duration = Annotated[str, _matching(r"[1-9]\d*[mhd]", "a time such as 12h, 30m or 1d", _lower)]
CertificateName = Annotated[
    str,
    _matching(
        rf"(?:\*\.)?{_DNS_NAME}", "a DNS name such as s3.example.com or *.example.com", _lower
    ),
]
Release = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9][\w.-]*==[0-9][\w.+!-]*", "one release of a package such as certbot==5.8.0"
    ),
]
Service = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9@:_.-]+\.(?:service|socket|timer|target)",
        "a systemd unit such as haproxy.service",
        lambda value: f"{value}.service",
    ),
]
Email = Annotated[str, _matching(r"[^@\s]+@[^@\s]+\.[^@\s]+", "an e-mail address")]
PublicKey = Annotated[str, AfterValidator(_public_key)]
K3sVersion = Annotated[str, AfterValidator(_k3s_version)]
