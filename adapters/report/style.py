"""How the page looks: one style sheet, for screens light and dark, phones and paper."""

CSS = """
:root {
  --paper: #ffffff; --ink: #1b1d21; --soft: #5c6370; --rule: #e2e4e8; --wash: #f6f7f9; --accent: #0072b2;
  color-scheme: light dark;
}
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #14161a; --ink: #e6e8ec; --soft: #9aa1ad; --rule: #30343b; --wash: #1c1f25; --accent: #56b4e9; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 62rem; margin: 0 auto; padding: clamp(1.5rem, 6vw, 5rem) clamp(1rem, 4vw, 2.5rem); }
header { margin-bottom: 3rem; }
.kicker { margin: 0 0 .75rem; color: var(--soft); font-size: .8125rem; letter-spacing: .04em; }
h1 {
  margin: 0; max-width: 46rem; font-size: clamp(1.375rem, 1rem + 2vw, 2rem); font-weight: 600; line-height: 1.3;
  letter-spacing: -.012em; text-wrap: balance; overflow-wrap: anywhere;
}
h2 { margin: 0 0 1rem; font-size: 1.125rem; font-weight: 600; letter-spacing: -.005em; }
section { margin-top: 3.5rem; }
p, li, dd { max-width: 44rem; overflow-wrap: anywhere; }
p { margin: 0 0 .75rem; }
ul { margin: 0; padding-left: 1.15rem; }
li + li { margin-top: .4rem; }
.soft, figcaption { color: var(--soft); font-size: .875rem; line-height: 1.5; }
dl {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(14rem, 100%), 1fr)); gap: 1.1rem 2rem;
  margin: 0;
}
dt { color: var(--soft); font-size: .8125rem; }
dd { margin: 0; }
.scroll { overflow-x: auto; margin: 0 calc(-1 * clamp(1rem, 4vw, 2.5rem)); padding: 0 clamp(1rem, 4vw, 2.5rem); }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
.full { min-width: 100%; }
.scroll + h3 { margin: 2rem 0 .5rem; font-size: .9375rem; font-weight: 600; }
th, td { padding: .5rem .75rem; text-align: right; border-bottom: 1px solid var(--rule); vertical-align: baseline; }
thead th { color: var(--soft); font-weight: 500; font-size: .8125rem; vertical-align: bottom; }
th.text { text-align: left; }
th:first-child, td:first-child { padding-left: 0; text-align: left; }
th:last-child, td:last-child { padding-right: 0; }
tbody th { font-weight: 500; }
tr.group > * { border-top: 2px solid var(--rule); }
td.best { font-weight: 700; }
td.text { text-align: left; white-space: normal; min-width: 14rem; }
.key {
  display: inline-block; width: .7em; height: .7em; margin-right: .5em; border-radius: 50%; background: var(--hue);
  print-color-adjust: exact; -webkit-print-color-adjust: exact;
}
.key.dashed {
  width: 1.1em; height: 0; border-top: 2px dashed var(--hue); border-radius: 0; background: none;
  vertical-align: .25em;
}
.legend {
  display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 0 0 .75rem; padding: 0; list-style: none;
  font-size: .875rem;
}
.legend li { margin: 0; }
.charts { display: grid; gap: 2.5rem; align-items: start; }
@media (min-width: 52rem) { .charts { grid-template-columns: 1fr 1fr; } .charts .tall { grid-row: span 2; } }
figure { margin: 0; min-width: 0; }
figure h3 { margin: 0 0 .5rem; font-size: .9375rem; font-weight: 600; }
figure svg { display: block; width: 100%; height: auto; max-width: 44rem; overflow: visible; }
figure svg * { stroke-linejoin: round; }
figure svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif !important; }
figcaption { margin-top: .6rem; max-width: 44rem; }
.case + .case { margin-top: 2rem; }
.case img { display: block; width: 100%; height: auto; border-radius: .375rem; background: #000; }
details { border-top: 1px solid var(--rule); padding-top: 1rem; }
summary { cursor: pointer; font-weight: 600; font-size: 1.125rem; }
summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; }
details .scroll { margin-top: 1rem; }
footer { margin-top: 4rem; color: var(--soft); font-size: .8125rem; }
@media (max-width: 34rem) {
  section { margin-top: 2.5rem; }
  th, td { padding: .4rem .5rem; }
  .case img { width: 44rem; }
}
@media print {
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  section { margin-top: 1.75rem; }
  figure, tr, .case { break-inside: avoid; }
  h1 { font-size: 16pt; }
  h2, h3, .legend, h2 + .soft { break-after: avoid; }
  .scroll { overflow: visible; margin: 0; padding: 0; }
  .case img { width: 100%; }
  table { font-size: 8pt; }
  thead th { white-space: normal; }
  th, td { padding: .25rem .4rem; }
  details:not([open])::details-content { content-visibility: visible; block-size: auto; }
  .charts { grid-template-columns: 1fr 1fr; gap: 1.5rem; }
  .charts .tall { grid-row: span 2; }
}
""".strip()
