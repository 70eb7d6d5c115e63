"""A page as headless Chromium renders it, measured from inside."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
]
DARK = "--blink-settings=preferredColorScheme=0"

FRAME = """<!doctype html>
<style>body {{ margin: 0 }} iframe {{ border: 0; width: {width}px; height: 2000px }}</style>
<iframe srcdoc="{page}"></iframe>
<script>
const frame = document.querySelector("iframe");
frame.onload = async () => {{
  const found = await measure(frame.contentWindow, frame.contentDocument).catch((error) => error.stack);
  const told = document.createElement("pre");
  told.id = "found";
  told.textContent = JSON.stringify(found);
  document.body.replaceChildren(told);
}};
{script}
</script>
"""

MEASURE = """
async function measure(view, page) {
  const colour = (element, part = "color") => view.getComputedStyle(element)[part];
  for (const each of page.querySelectorAll("details")) each.open = true;
  const visible = [...page.querySelectorAll("body *")].filter((each) => each.getClientRects().length);
  const texts = visible.filter((each) => [...each.childNodes].some((node) => node.nodeType == 3 && node.data.trim()));
  const cut = [...page.querySelectorAll("figure svg text")].filter((each) => {
    const own = each.getBoundingClientRect(), whole = each.ownerSVGElement.getBoundingClientRect();
    return own.left < whole.left - 1 || own.right > whole.right + 1 || own.bottom > whole.bottom + 1;
  });
  const copied = [];
  Object.defineProperty(view.navigator, "clipboard", { value: { writeText: (text) => copied.push(text) } });
  const saved = [];
  view.HTMLAnchorElement.prototype.click = () => {};
  view.URL.createObjectURL = (blob) => (saved.push(blob), "#");
  for (const button of page.querySelectorAll("button")) button.click();
  return {
    width: page.documentElement.clientWidth,
    needed: page.documentElement.scrollWidth,
    paper: colour(page.body, "backgroundColor"),
    inks: [...new Set(texts.map((each) => colour(each)))],
    small: texts.filter((each) => each.closest("svg")).map((each) => each.getBoundingClientRect().height),
    cut: cut.map((each) => each.textContent),
    clipped: visible.filter((each) => each.getBoundingClientRect().right > view.innerWidth + 1).map(String),
    buttons: visible.filter((each) => each.matches("button")).length,
    charts: [...page.querySelectorAll("figure svg")].map((each) => each.getBoundingClientRect().width),
    fetched: view.performance.getEntriesByType("resource").map((each) => each.name),
    headings: [...page.querySelectorAll("h1, h2")].map((each) => each.textContent),
    copied,
    saved: await Promise.all(saved.map((each) => each.text())),
  };
}
"""


def look(page: Path, scratch: Path, *, width: int, dark: bool = False) -> dict[str, Any]:
    """Render a page at a width and tell what is seen: sizes in pixels, colours, what its buttons give."""
    frame = scratch / "frame.html"
    inner = html.escape(page.read_text(encoding="utf-8"), quote=True)
    frame.write_text(FRAME.format(width=width, page=inner, script=MEASURE), encoding="utf-8")
    seen = _run(scratch, ["--dump-dom", "--virtual-time-budget=5000", *([DARK] if dark else []), frame.as_uri()])
    found = re.search(r'<pre id="found">(.*?)</pre>', seen, re.DOTALL)
    assert found, seen[-2000:]
    return dict(json.loads(html.unescape(found[1])))


def printed(page: Path, scratch: Path) -> bytes:
    """The page as PDF."""
    _run(scratch, [f"--print-to-pdf={scratch / 'page.pdf'}", "--no-pdf-header-footer", page.as_uri()])
    return (scratch / "page.pdf").read_bytes()


def _run(scratch: Path, arguments: Sequence[str]) -> str:
    assert CHROMIUM
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={scratch / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout


def contrast(one: str, other: str) -> float:
    """Ratio of WCAG 2 between two colours as computed styles tell them."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
