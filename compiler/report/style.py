"""The page's style sheet: one measure of space, two colours, light and dark."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6675; --line: #dfe4ea;
  --paper: #ffffff; --panel: #f6f8fa; --baseline: #a9b4c0; --accent: #2f6fde; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa5b1; --line: #323a45;
  --paper: #14181e; --panel: #1b2027; --baseline: #5d6876; --accent: #6ea3ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 32px 24px 48px; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 40px 0 8px; padding-top: 16px; border-top: 1px solid var(--line); }
.machine, footer, .remarks { color: var(--soft); font-size: 13px; }
footer { margin-top: 40px; padding-top: 16px; border-top: 1px solid var(--line); }
.charts { display: grid;
  grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 8px 24px; }
figure { margin: 12px 0; max-width: 760px; }
figure svg { width: 100%; height: auto; }
svg text { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif !important; }
.scroll { overflow-x: auto; margin: 12px 0; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
th, td { padding: 5px 8px; text-align: right; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
.text { text-align: left; }
tbody tr:hover { background: var(--panel); }
td.text:last-child { white-space: normal; min-width: 16em; }
.remarks { margin: 4px 0; padding-left: 20px; }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--accent); }
"""
