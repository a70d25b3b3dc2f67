"""The doctor's answers as a web page of one file, which asks nobody for anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from cluster.doctor.catalogue import Finding, count
from cluster.doctor.check import Verdict

_ORDER = tuple(Verdict)
_TITLES = {
    Verdict.FAIL: ("Fail", "Repair these first; what site.py itself puts right is marked."),
    Verdict.WARN: ("Warn", "It works, but not well or not for long."),
    Verdict.UNKNOWN: ("Unknown", "Nobody could say: a program or a file is missing."),
    Verdict.PASS: ("Pass", "As it should be."),
}
AREAS = (
    "hardware", "firmware", "boot", "cgroups", "kernel", "disks", "network", "system", "fleet",
)  # fmt: skip
_IGNORED = (
    "ignored",
    "unknown",
    "Ignored",
    "It fails, and nodes.ignore_preflight says that it may.",
)
_SIGNS = {Verdict.FAIL: "✕", Verdict.WARN: "!", Verdict.UNKNOWN: "?", Verdict.PASS: "✓"}

_STYLE = """
:root { color-scheme: light dark; --bg: #f6f7f9; --card: #fff; --text: #1d2430; --soft: #5b6675;
  --line: #dfe3e9; --fail: #c62828; --warn: #a15c00; --unknown: #5b6675; --pass: #2e7d32;
  --code: #eef1f5; }
@media (prefers-color-scheme: dark) { :root { --bg: #12161c; --card: #1b212a; --text: #e6eaf0;
  --soft: #9aa6b5; --line: #2d3643; --fail: #ff7b72; --warn: #f0b354; --unknown: #9aa6b5;
  --pass: #6cc67a; --code: #252d38; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.25rem 0 .25rem; }
p { margin: .25rem 0; } .soft { color: var(--soft); }
.counts { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.25rem 0; }
.counts a { flex: 1 1 8rem; background: var(--card); border: 1px solid var(--line);
  border-top: 3px solid var(--c); border-radius: .5rem; padding: .6rem .9rem; color: inherit;
  text-decoration: none; }
.counts b { display: block; font-size: 1.7rem; line-height: 1.2; color: var(--c); }
.fail { --c: var(--fail); } .warn { --c: var(--warn); } .unknown { --c: var(--unknown); }
.pass { --c: var(--pass); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .4rem .6rem; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; }
tr:last-child > * { border-bottom: 0; } thead th { color: var(--soft); font-weight: 600; }
.hosts td { text-align: center; } .hosts thead th + th { text-align: center; }
.mark { color: var(--c); font-weight: 700; }
article { background: var(--card); border: 1px solid var(--line);
  border-left: 4px solid var(--c); border-radius: .5rem; padding: .8rem 1rem; margin: .75rem 0; }
article h3 { margin: 0; font-size: 1rem; display: flex; flex-wrap: wrap; gap: .5rem;
  align-items: baseline; }
.tag { font-size: .8rem; font-weight: 500; color: var(--soft); border: 1px solid var(--line);
  border-radius: 1rem; padding: 0 .55rem; }
.row { display: grid; grid-template-columns: minmax(6rem, 11rem) 1fr; gap: .1rem 1rem;
  margin: .35rem 0 0; } .row dt { color: var(--soft); } .row dd { margin: 0;
  overflow-wrap: anywhere; }
code { background: var(--code); border-radius: .3rem; padding: .1rem .4rem;
  font: .9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
details { margin-top: 2.25rem; } summary { cursor: pointer; font-weight: 600;
  font-size: 1.15rem; }
details .scroll { margin-top: .75rem; }
@media (max-width: 40rem) { .row { grid-template-columns: 1fr; } }
"""


def page(name: str, when: str, found: Sequence[Finding], hosts: Sequence[str]) -> str:
    """The page; every value is escaped. name: of the cluster. when: date and time, for people."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{escape(name)}: doctor</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>{escape(name)}</h1>",
        f'<p class="soft">{len(hosts)} hosts, looked at on {escape(when)}</p>',
        *_counts(found),
        *_matrix(found, hosts),
        *_cards([one for one in found if not one.forgiven], Verdict.FAIL),
        *_cards(found, Verdict.WARN),
        *_cards([one for one in found if one.forgiven], Verdict.FAIL),
        *_list(found, Verdict.UNKNOWN),
        *_list(found, Verdict.PASS),
        "</main></body></html>\n",
    ]
    return "\n".join(parts)


def _counts(found: Sequence[Finding]) -> Iterator[str]:
    yield '<nav class="counts">'
    for verdict, number in count(found).items():
        title = _TITLES[verdict][0]
        yield f'<a class="{verdict}" href="#{verdict}"><b>{number}</b>{title}</a>'
    yield "</nav>"


def _matrix(found: Sequence[Finding], hosts: Sequence[str]) -> Iterator[str]:
    """The worst answer of each area by host."""
    heads = "".join(f"<th>{area}</th>" for area in AREAS)
    yield '<div class="scroll"><table class="hosts"><thead><tr><th>Host</th>'
    yield f"{heads}</tr></thead><tbody>"
    for host in hosts:
        cells = []
        for area in AREAS:
            own = [one for one in found if one.check.area == area and host in one.hosts]
            cells.append(f"<td>{_mark(one.verdict for one in own if not one.forgiven)}</td>")
        yield f"<tr><th>{escape(host)}</th>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"


def _mark(verdicts: Iterable[Verdict]) -> str:
    worst = min(verdicts, key=_ORDER.index, default=None)
    if worst is None:
        return '<span class="soft">–</span>'
    return f'<span class="mark {worst}" title="{worst}">{_SIGNS[worst]}</span>'


def _cards(found: Sequence[Finding], verdict: Verdict) -> Iterator[str]:
    """What has to be explained: one card a check, with a row for each value that was seen."""
    same = [one for one in found if one.verdict is verdict]
    if not same:
        return
    name, colour, title, text = str(verdict), str(verdict), *_TITLES[verdict]
    if same[0].forgiven:
        name, colour, title, text = _IGNORED
    yield f'<h2 id="{name}">{title}</h2><p class="soft">{text}</p>'
    for check in dict.fromkeys(one.check for one in same):
        own = [one for one in same if one.check is check]
        yield f'<article class="{colour}"><h3><span class="mark">{escape(check.id)}</span>'
        mended = any(one.answer.mended for one in own)
        tags = [check.area, *(["site.py puts it right"] if mended else [])]
        yield "".join(f'<span class="tag">{escape(tag)}</span>' for tag in tags) + "</h3>"
        yield f"<p>Expected: {escape(check.what)}</p>"
        yield f'<p class="soft">{escape(check.why[:1].upper() + check.why[1:])}.</p>'
        yield '<dl class="row">'
        for seen, hosts in merged(own):
            yield f"<dt>{escape(hosts)}</dt><dd>{escape(seen)}</dd>"
        yield "</dl>"
        for remedy in dict.fromkeys(one.remedy for one in own):
            yield f"<p><code>{escape(remedy)}</code></p>"
        yield "</article>"


def _list(found: Sequence[Finding], verdict: Verdict) -> Iterator[str]:
    """What needs no explanation: a table that opens when it is clicked."""
    same = [one for one in found if one.verdict is verdict]
    if not same:
        return
    title, text = _TITLES[verdict]
    yield f'<details id="{verdict}"><summary>{title} ({len(same)})</summary>'
    yield f'<p class="soft">{text}</p><div class="scroll"><table>'
    yield "<thead><tr><th>Check</th><th>Hosts</th><th>Seen</th></tr></thead><tbody>"
    for check in dict.fromkeys(one.check for one in same):
        for seen, hosts in merged([one for one in same if one.check is check]):
            yield f'<tr><td title="{escape(check.what)}">{escape(check.id)}</td>'
            yield f"<td>{escape(hosts)}</td><td>{escape(seen)}</td></tr>"
    yield "</tbody></table></div></details>"


def merged(found: Iterable[Finding]) -> list[tuple[str, str]]:
    """What was seen, and on which hosts, for people: equal values once."""
    hosts: dict[str, list[str]] = {}
    for one in found:
        hosts.setdefault(one.answer.seen, []).extend(one.hosts)
    return [(seen, ", ".join(names) or "cluster") for seen, names in hosts.items()]
