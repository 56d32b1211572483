"""How reports look: colours by theme, type, tables, charts.

In: nothing. Out: one style sheet.
Must not know: what a report says. Rule: colours are named once per theme; a phone of 320 pixels shows everything
without scrolling sideways.
"""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark;
  --page: #ffffff; --card: #f6f7f9; --text: #1c2127; --soft: #59636e; --rule: #d5dae0; --grid: #e6e9ed;
  --model: #1f5fb4; --band: #1f5fb44d; --wide: #1f5fb424; --actual: #24292f; --other: #a35a00; --harm: #b3382c; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12161b; --card: #1a2027; --text: #e4e8ec; --soft: #9ba6b2; --rule: #38424d; --grid: #28303a;
  --model: #7db2ff; --band: #7db2ff52; --wide: #7db2ff29; --actual: #f0f3f6; --other: #e5a44b; --harm: #ff8f80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 3rem; max-width: 76rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; text-size-adjust: 100%; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .25rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 0 0 .1rem; overflow-wrap: anywhere; }
p { margin: .25rem 0 .75rem; max-width: 52rem; }
.soft, figcaption, small { color: var(--soft); }
small { display: block; font-size: .84rem; line-height: 1.4; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.25rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem 1.25rem .35rem 0; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--grid); }
th { font-weight: 600; } tbody th { font-weight: 400; } thead th { border-color: var(--rule); white-space: nowrap; }
td { white-space: nowrap; }
th:first-child { text-align: left; overflow-wrap: anywhere; min-width: 8rem; max-width: 28rem; }
.figures td:nth-child(2) { font-weight: 600; }
.beside { display: flex; flex-wrap: wrap; gap: 1rem 3rem; }
.notes { font-size: .88rem; color: var(--soft); align-content: start; flex: 1 1 18rem; max-width: 34rem; }
time { white-space: nowrap; }
.sold { fill: var(--actual); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1rem;
  margin: .75rem 0; }
figure { margin: 0; padding: .9rem .9rem .7rem; background: var(--card); border-radius: .5rem; min-width: 0; }
figcaption { font-size: .88rem; line-height: 1.45; }
figure table { font-size: .8rem; } figure th, figure td { padding: .25rem .6rem .25rem 0; white-space: normal; }
figure th:first-child { min-width: 0; overflow-wrap: normal; } th:last-child, td:last-child { padding-right: 0; }
details { margin: .6rem 0 0; font-size: .88rem; } summary { cursor: pointer; color: var(--soft); }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.25rem; list-style: none; padding: 0; margin: .5rem 0;
  font-size: .88rem; color: var(--soft); }
.legend svg { width: 1.6rem; height: .75rem; margin-right: .4rem; vertical-align: -.05rem; }
svg.chart { display: block; width: 100%; height: auto; margin-top: .4rem; }
svg.bar { width: 7.75rem; height: .75rem; vertical-align: middle; }
svg text { font-size: 12px; fill: var(--soft); }
.end { text-anchor: end; } .middle { text-anchor: middle; }
.grid { stroke: var(--grid); } .axis, .tick { stroke: var(--rule); }
.cutoff { stroke: var(--soft); stroke-dasharray: 3 3; }
.ideal { stroke: var(--soft); stroke-dasharray: 3 3; }
.band { fill: var(--band); stroke: none; } .band.wide { fill: var(--wide); }
path { fill: none; stroke-linejoin: round; stroke-linecap: round; stroke-width: 1.7; }
.median, .line.model { stroke: var(--model); } .median { stroke-width: 2; }
.actual { stroke: var(--actual); stroke-width: 1.2; }
.line.other { stroke: var(--other); stroke-dasharray: 5 4; }
.line.third { stroke: var(--actual); stroke-dasharray: 2 3; } .mark.third { fill: var(--actual); }
.mark.model, .share, .gain { fill: var(--model); } .mark.other { fill: var(--other); } .harm { fill: var(--harm); }
@media (max-width: 30rem) {
  body { padding: 1.25rem .9rem 2rem; } figure { padding: .7rem; } dl { column-gap: .9rem; }
  th, td { padding-right: .6rem; } th:first-child { min-width: 4rem; }
  .beside .scroll, .figures { width: 100%; } .figures { font-size: .9rem; } thead th { white-space: normal; }
  section > .scroll table, details table, figure table { font-size: .75rem; }
  figure th, figure td { padding-right: .4rem; }
  svg.bar { width: 4.5rem; } }
@media print { figure { break-inside: avoid; } }
"""
