"""Findings of `lora-bench doctor`, and their table."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        ok: None for a fact that is neither good nor bad.
        essential: whether nothing runs without it.
        mend: what to do if the check failed.
    """

    topic: str
    name: str
    ok: bool | None
    detail: str
    mend: str = ""
    essential: bool = False


def format_findings(findings: list[Finding]) -> str:
    """Format findings by topic, with a mark in front and the mend below."""
    lines: list[str] = []
    topic = ""
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            lines.append(topic)
        mark = {True: "ok     ", False: "MISSING" if finding.essential else "missing", None: "       "}[
            finding.ok
        ]
        lines.append(f"  {mark}  {finding.name:<{width}}  {finding.detail}".rstrip())
        if finding.ok is False and finding.mend:
            lines.append(f"  {'':7}  {'':<{width}}  -> {finding.mend}")
    return "\n".join(lines)
