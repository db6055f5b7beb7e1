"""The look of a page: fonts, sizes and colors, in light and dark mode, on paper and on a phone. It uses only installed fonts."""

# The colors s0, s1, ... are Okabe and Ito's (jfly.uni-koeln.de/color), which color-blind readers can tell apart. They are lighter
# in dark mode.
CSS = """
:root {
  color-scheme: light dark;
  --paper: #fdfdfb; --ink: #1d1d1b; --soft: #6a6a64; --rule: #dcdcd6; --faint: #ecece7; --wrong: #c04a00;
  --s0: #0072b2; --s1: #d55e00; --s2: #009e73; --s3: #cc79a7; --s4: #e69f00; --s5: #56b4e9; --s6: #8a8a84;
  --serif: Charter, "Bitstream Charter", "Iowan Old Style", "Source Serif 4", Georgia, "Liberation Serif", serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #161615; --ink: #e4e4df; --soft: #9c9c95; --rule: #3a3a37; --faint: #2a2a28; --wrong: #f08a4b;
    --s0: #56b4e9; --s1: #e8853a; --s2: #2fbf95; --s3: #dd9cc0; --s4: #f0c04a; --s5: #2f8fd0; --s6: #8a8a84;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 17px/1.5 var(--serif); }
main { max-width: 948px; margin: 0 auto; padding: 56px 24px 40px; }
h1 { font-size: 34px; line-height: 1.15; font-weight: 600; margin: 0 0 12px; text-wrap: balance; }
h2 { font-size: 22px; line-height: 1.25; font-weight: 600; margin: 0 0 4px; }
p { margin: 0 0 12px; max-width: 42em; overflow-wrap: break-word; }
.lead { font-size: 20px; line-height: 1.45; color: var(--soft); margin-bottom: 28px; text-wrap: pretty; }
section { margin-top: 44px; padding-top: 18px; border-top: 1px solid var(--rule); }
figure { margin: 0; }
code, pre { font: 13px/1.5 var(--mono); }
.missing { color: var(--soft); font-style: italic; }

table { border-collapse: collapse; font: 14px/1.4 var(--sans); font-variant-numeric: tabular-nums lining-nums; }
caption { text-align: left; font: 600 17px/1.4 var(--serif); padding-bottom: 6px; }
thead th { border-bottom: 1px solid var(--ink); color: var(--soft); font-weight: 400; vertical-align: bottom; }
th, td { padding: 6px 0 6px 28px; text-align: left; vertical-align: top; }
th:first-child, td:first-child { padding-left: 0; }
tbody td { border-bottom: 1px solid var(--faint); }
tbody tr:last-child td { border-bottom: 1px solid var(--rule); }
.num { text-align: right; white-space: nowrap; }
.best td { font-weight: 650; }
.scroll { overflow-x: auto; margin-bottom: 8px; }
.notes { font: 13.5px/1.5 var(--sans); color: var(--soft); margin: 0 0 20px; max-width: 52em; }
.notes p { margin: 0 0 2px; max-width: none; }

.facts { display: flex; flex-wrap: wrap; gap: 6px 36px; margin: 14px 0 20px; font: 14px/1.35 var(--sans); }
.facts dt { color: var(--soft); font-size: 12.5px; }
.facts dd { margin: 0; font-variant-numeric: tabular-nums; }

.charts { display: flex; flex-wrap: wrap; gap: 20px 15px; margin-bottom: 22px; }
.chart { max-width: 100%; font: 13px/1.4 var(--sans); }
.chart figcaption, .bar figcaption { margin-bottom: 4px; color: var(--soft); font: 13px/1.4 var(--sans); }
.chart figcaption b, .bar figcaption b { color: var(--ink); font-weight: 600; }
svg { display: block; max-width: 100%; overflow: visible; }
svg text { font: 11px var(--sans); font-variant-numeric: tabular-nums; fill: var(--soft); }
svg text.y { text-anchor: end; }
svg text.x { text-anchor: middle; }
svg path { fill: none; stroke: currentColor; stroke-width: 1.75; stroke-linejoin: round; stroke-linecap: round; }
svg circle { fill: currentColor; opacity: 0; }
svg .dots circle { r: 2.5px; opacity: 1; }
svg circle:hover, svg .dots circle:hover { r: 4px; opacity: 1; }
svg rect { fill: currentColor; stroke: var(--paper); stroke-width: 1; }
.grid { stroke: var(--faint); }
.axis { stroke: var(--soft); }
.s0 { color: var(--s0); } .s1 { color: var(--s1); } .s2 { color: var(--s2); } .s3 { color: var(--s3); }
.s4 { color: var(--s4); } .s5 { color: var(--s5); } .s6 { color: var(--s6); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 20px; margin: 6px 0 0; padding: 0; }
.legend { font: 13px/1.4 var(--sans); }
.chart .legend { padding-left: 46px; }
.legend i { display: inline-block; width: 12px; height: 9px; margin-right: 6px; background: currentColor; }
.chart .legend i { height: 3px; vertical-align: 3px; }
.legend b { font-weight: 400; color: var(--soft); font-variant-numeric: tabular-nums; }

img { display: block; border-radius: 2px; }
.sharp { image-rendering: pixelated; }
.sheet { display: flex; flex-wrap: wrap; gap: 14px 12px; margin: 12px 0 20px; }
.sheet figure { width: min-content; min-width: 64px; padding-top: 3px; }
.sheet figcaption { font: 12.5px/1.3 var(--sans); color: var(--soft); margin-top: 4px; text-align: center; }
.sheet figcaption { overflow-wrap: anywhere; }
.sheet b { color: var(--wrong); font-weight: 600; }
.sheet img { margin: 0 auto; }
.wrong img { outline: 2px solid var(--wrong); outline-offset: 1px; }
.pairs { display: flex; flex-wrap: wrap; gap: 12px 14px; margin: 12px 0 20px; }
.pairs span { display: flex; gap: 4px; }
.pairs img { border-radius: 0; }

details { margin: 0 0 8px; font: 14px/1.5 var(--sans); }
summary { cursor: pointer; padding: 4px 0; }
summary span { color: var(--soft); }
details > :not(summary) { margin-left: 18px; }
details table { margin: 4px 0 14px; }
details td { font: 13px/1.4 var(--mono); overflow-wrap: anywhere; min-width: 5em; }
details dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; }
details > dl, details > pre { margin: 4px 0 16px 18px; }
details dt { color: var(--soft); }
details dd { margin: 0; overflow-wrap: anywhere; }
pre { columns: 2; column-gap: 32px; white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 44px; padding-top: 14px; border-top: 1px solid var(--rule); }
footer { font: 13px/1.5 var(--sans); color: var(--soft); }

@media (max-width: 640px) {
  body { font-size: 16px; }
  main { padding: 28px 16px; }
  h1 { font-size: 27px; }
  .lead { font-size: 18px; }
  th, td { padding-left: 18px; }
  pre { columns: 1; }
}
@media print {
  @page { margin: 15mm; }
  :root { color-scheme: light; --paper: #fff; }
  body { zoom: 0.72; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { padding: 0; }
  h1, h2, section > p, summary { break-after: avoid; }
  figure, tr, .pairs span, .facts, .charts { break-inside: avoid; }
}
"""
