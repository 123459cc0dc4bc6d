"""The page on which texts are labelled, with the keyboard or the mouse: one HTML document, which loads nothing from anywhere."""

import html
from collections.abc import Sequence


def page(name: str, classes: Sequence[str]) -> str:
    """name: of the file, as it stands above. The first nine classes have the keys 1 to 9."""
    buttons = []
    for i, label in enumerate(map(html.escape, classes), 1):
        key, mark = (f" aria-keyshortcuts={i}", f"<kbd>{i}</kbd>") if i < 10 else ("", "")
        buttons.append(f'<button class="class" data-label="{label}" aria-pressed="false"{key}>{mark}{label}</button>')
    return PAGE.replace("{{BUTTONS}}", "\n".join(buttons)).replace("{{NAME}}", html.escape(name))


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{NAME}}</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; --back: #f6f6f4; --card: #fff; --ink: #1c1c1a; --soft: #5c5c57; --line: #d8d8d2; --own: #0b57a4; --on-own: #fff;
  --bad: #a3200d; }
@media (prefers-color-scheme: dark) {
  :root { --back: #161615; --card: #21211f; --ink: #ecece8; --soft: #a8a8a1; --line: #3d3d39; --own: #8fc0f5; --on-own: #10202f; --bad: #ff9c8a; }
}
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; background: var(--back); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
header, main, footer { max-width: 46rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 1.5rem; display: flex; flex-wrap: wrap; justify-content: space-between; align-items: baseline; gap: 0 1rem; }
h1 { font-size: 1rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
header p { margin: 0; color: var(--soft); font-variant-numeric: tabular-nums; }
#bar { flex-basis: 100%; height: .375rem; margin-top: .625rem; border-radius: 1rem; background: var(--line); overflow: hidden; }
#bar div { height: 100%; width: 0; background: var(--own); transition: width .15s; }
#place { margin: 1.75rem 0 .5rem; color: var(--soft); font-size: .875rem; overflow-wrap: anywhere; }
#text { background: var(--card); border: 1px solid var(--line); border-radius: .75rem; padding: 1.5rem; min-height: 9rem; max-height: 55vh;
  overflow: auto; font: 1.375rem/1.55 Georgia, "Times New Roman", serif; white-space: pre-wrap; overflow-wrap: anywhere; }
#classes, nav { display: flex; flex-wrap: wrap; gap: .625rem; margin-top: 1rem; }
button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: .625rem; padding: .625rem 1rem;
  cursor: pointer; }
button.class { flex: 1 1 9rem; font-size: 1.0625rem; font-weight: 600; }
button:hover { border-color: var(--own); }
button:focus-visible, #text:focus-visible { outline: 3px solid var(--own); outline-offset: 2px; }
button[aria-pressed=true] { background: var(--own); border-color: var(--own); color: var(--on-own); }
button:disabled { opacity: .45; cursor: default; border-color: var(--line); }
nav button { padding: .375rem .75rem; font-size: .875rem; color: var(--soft); }
kbd { font: 600 .8125em ui-monospace, monospace; border: 1px solid currentColor; border-radius: .3rem; padding: .05rem .4rem; margin-right: .55rem;
  opacity: .75; }
#said { min-height: 1.5rem; margin: 1rem 0 0; color: var(--soft); font-size: .875rem; }
#error { margin: .25rem 0 0; color: var(--bad); font-weight: 600; }
@media (prefers-reduced-motion: reduce) { #bar div { transition: none; } }
</style>
</head>
<body>
<header>
<h1>{{NAME}}</h1>
<p id="count"></p>
<div id="bar" role="progressbar" aria-label="Labelled" aria-valuemin="0"><div></div></div>
</header>
<main>
<p id="place"></p>
<article id="text" tabindex="0" aria-label="Text" aria-live="polite" dir="auto"></article>
<div id="classes" role="group" aria-label="Label">
{{BUTTONS}}
</div>
<nav aria-label="Other texts">
<button id="back" aria-keyshortcuts="ArrowLeft Backspace"><kbd>&larr;</kbd>Back</button>
<button id="forward" aria-keyshortcuts="ArrowRight"><kbd>&rarr;</kbd>Forward</button>
<button id="skip" aria-keyshortcuts="s"><kbd>s</kbd>Skip: no label</button>
</nav>
<p id="said" role="status"></p>
<p id="error" role="alert"></p>
</main>
<script>
"use strict";
const at = id => document.getElementById(id);
const classes = [...document.querySelectorAll("button.class")];
let here = null, busy = false;

async function ask(path, options) {
  const answer = await fetch(path, options).catch(() => {
    throw new Error("The server does not answer: start it again. What you labelled before is in the file.");
  });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

async function alone(act) {  // one thing at a time: a key pressed meanwhile does nothing
  if (busy) return;
  busy = true;
  try { await act(); at("error").textContent = ""; }
  catch (error) { at("error").textContent = error.message; }
  busy = false;
}

async function go(place) {
  here = await ask(place === null ? "/example" : "/example?place=" + place);
  const over = here.place === here.total, left = here.total - here.labelled;
  at("count").textContent = `${here.labelled} of ${here.total} labelled`;
  at("bar").setAttribute("aria-valuemax", here.total);
  at("bar").setAttribute("aria-valuenow", here.labelled);
  at("bar").firstElementChild.style.width = 100 * here.labelled / here.total + "%";
  at("place").textContent = over ? "The end" : `Text ${here.place + 1} of ${here.total} \\u00b7 ${here.key}`;
  at("text").textContent = over ? `That was the last text. ${left ? `${left} without a label.` : "All have a label."}` : here.text;
  at("text").scrollTop = 0;
  for (const button of classes) { button.disabled = over; button.setAttribute("aria-pressed", !over && button.dataset.label === here.label); }
  at("back").disabled = here.place === 0;
  at("forward").disabled = at("skip").disabled = over;
}

async function give(label) {
  await ask("/label", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ key: here.key, label }) });
  at("said").textContent = `Text ${here.place + 1}: ${label || "no label"}.`;
  await go(here.place + 1);
}

const over = () => !here || here.place === here.total;
const back = () => here && here.place > 0 && alone(() => go(here.place - 1));
const forward = () => over() || alone(() => go(here.place + 1));
const label = name => over() || alone(() => give(name));
at("back").onclick = back;
at("forward").onclick = forward;
at("skip").onclick = () => label("");
for (const button of classes) button.onclick = () => label(button.dataset.label);
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const chosen = /^[1-9]$/.test(event.key) && classes[event.key - 1];
  const skip = () => label(""), others = { ArrowLeft: back, Backspace: back, ArrowRight: forward, s: skip, S: skip };
  const act = chosen ? () => label(chosen.dataset.label) : others[event.key];
  if (act) { event.preventDefault(); act(); }
});
alone(() => go(null));
</script>
</body>
</html>
"""
