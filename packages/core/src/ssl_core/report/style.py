"""The report's style sheet: light and dark, readable on paper and on a telephone."""

CSS = """
:root { color-scheme: light dark; --ground:#fbfbfa; --card:#ffffff; --ink:#1d2329; --muted:#6a737d;
  --edge:#e3e6e8; --accent:#2563c9; --soft:#c9d3df;
  --c0:#2563c9; --c1:#d9822b; --c2:#2f9e6e; --c3:#c73e54; --c4:#7d55c7; --c5:#8a6d3b; --c6:#c2569f;
  --c7:#6a737d; --c8:#a3a51f; --c9:#1f9fb5; }
@media (prefers-color-scheme: dark) {
  :root { --ground:#14171a; --card:#1c2024; --ink:#e6e9ec; --muted:#98a2ac; --edge:#2e343a;
    --accent:#6ea1f2; --soft:#46515d;
    --c0:#6ea1f2; --c1:#f0a45c; --c2:#5cc99a; --c3:#f0788a; --c4:#ab8cf0; --c5:#c9a86a;
    --c6:#e68bc8; --c7:#98a2ac; --c8:#cfd05a; --c9:#5cc8db; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1040px; padding: 40px 20px 64px; background: var(--ground);
  color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 1.05rem; margin: 40px 0 12px; }
.sub { color: var(--muted); margin: 0 0 24px; }
.verdict { font-size: 1.15rem; border-left: 4px solid var(--accent); padding: 4px 0 4px 16px;
  margin: 24px 0; max-width: 62ch; }
.card, figure { background: var(--card); border: 1px solid var(--edge); border-radius: 10px;
  padding: 16px 18px; margin: 0; }
.grid2 { display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
.facts { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr));
  margin-top: 16px; }
.facts div { background: var(--card); border: 1px solid var(--edge); border-radius: 10px;
  padding: 12px 16px; }
.facts b { display: block;
  font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.facts span { color: var(--muted); font-size: 0.85rem; }
.bar { display: grid; grid-template-columns: 9.5em 1fr 5em; gap: 12px; align-items: center;
  padding: 5px 0; font-variant-numeric: tabular-nums; }
.bar > div { position: relative; height: 16px; border-radius: 4px; background: var(--ground);
  border: 1px solid var(--edge); overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--soft); }
.bar b { position: absolute; top: 0; bottom: 0; width: 2px; background: var(--c1); }
.bar span:last-child { text-align: right; }
.bar.strong { font-weight: 600; } .bar.strong i { background: var(--accent); }
figcaption { font-weight: 600; font-size: 0.95rem; margin-bottom: 6px; }
svg { width: 100%; height: auto; display: block; }
svg text { font-size: 11px; fill: var(--muted); font-variant-numeric: tabular-nums; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .grid { stroke: var(--edge); }
circle { fill-opacity: 0.75; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 0.8rem; color: var(--muted); }
.legend i { display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin-right: 6px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--edge);
  vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 500; color: var(--muted); }
.scroll { overflow-x: auto; }
pre { background: var(--card); border: 1px solid var(--edge); border-radius: 10px;
  padding: 14px 16px;  overflow-x: auto; font: 13px/1.5 ui-monospace, Menlo, Consolas, monospace; }
summary { cursor: pointer; font-weight: 600; padding: 6px 0; }
@media print { body { max-width: none; padding: 0; } figure, .card { break-inside: avoid; } }
"""
