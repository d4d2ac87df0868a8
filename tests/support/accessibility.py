"""Violations of axe-core's rules (https://github.com/dequelabs/axe-core) on the page that a browser shows."""

from __future__ import annotations

import json

from support.browser import Page, read_axe

RUN = """
axe.run(document, {resultTypes: ["violations"]}).then((found) => JSON.stringify({
  passed: found.passes.length,
  violations: found.violations.map((rule) => `${rule.id}: ${rule.help}: ` + rule.nodes.slice(0, 3).map(
    (node) => `${node.target} (${node.any.concat(node.all, node.none).map((one) => one.message).join("; ")})`).join(", ")),
}))
"""


def list_violations(browser: Page) -> list[str]:
    """One line per rule that is broken: the rule, and where."""
    browser.evaluate(f"{read_axe()}; 0")
    found = json.loads(browser.evaluate(RUN))
    assert found["passed"] > 5, "axe-core has checked nothing"
    return found["violations"]
