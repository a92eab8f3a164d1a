"""What tests/project/test_page.py lets a browser do on the page: scripts, which leave what they find in an element."""

WATCH = """<script>const mistakes = [];
addEventListener("error", (event) => mistakes.push(event.message));
console.error = (...words) => mistakes.push(words.join(" "));</script>"""
# Presses keys, draws all accesses, and compares what is drawn with what was counted.
# Contrast is that of WCAG 2: of a text's colour to all that lies behind it; of a text in a picture to its own shape.
CHECK = """<script>
const ink = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const over = (colours) => {
  ink.clearRect(0, 0, 1, 1);
  for (const [colour, opacity] of colours) {
    ink.globalAlpha = opacity;
    ink.fillStyle = colour;
    ink.fillRect(0, 0, 1, 1);
  }
  return [...ink.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const chain = (at) => at ? [...chain(at.parentElement), at] : [];
const layers = (at) => [["white", 1], ...chain(at).map((each) => [getComputedStyle(each).backgroundColor, 1])];
const behind = (at) => over(layers(at));
const light = (rgb) => rgb.map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const ratioOf = (a, b) => {
  const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};
const contrast = (at) => {
  const style = getComputedStyle(at), drawn = at instanceof SVGElement, shape = at.previousElementSibling;
  const own = drawn && at.closest(".picture") && shape?.tagName === "rect";
  const back = own ? [...layers(at), [getComputedStyle(shape).fill, 1]] : layers(at);
  const opacity = chain(at).reduce((product, each) => product * getComputedStyle(each).opacity, 1);
  return ratioOf(over([...back, [drawn ? style.fill : style.color, opacity]]), over(back));
};
const found = {}, key = (at, key) => at.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
try {
  const sideways = () => document.documentElement.scrollWidth - document.documentElement.clientWidth;
  found.width = innerWidth;
  found.sideways = [sideways()];
  found.curves = document.querySelectorAll(".picture svg .curve").length;
  found.charts = document.querySelectorAll(".card svg").length;
  found.formulae = document.querySelectorAll("math").length;
  const all = (active) => ({ active: 0xffffffff, ...active });
  const costs = (space, what, size, at) => Object.values(costOf({ space, what, size }, all(at))).filter((n) => n);
  found.known = [
    costs("global", "load", 4, { start: 0, step: 4 }), costs("global", "load", 4, { start: 4, step: 4 }),
    costs("global", "load", 4, { start: 0, step: 128 }), costs("global", "load", 16, { start: 0, step: 16 }),
    costs("shared", "load", 4, { start: 0, step: 128 }), costs("shared", "load", 4, { start: 0, step: 132 }),
    costs("shared", "store", 16, { start: 0, step: 16 }), costs("shared", "load", 16, { start: 0, step: 0 }),
    costs("shared", "ldmatrix", 16, { start: 0, step: 64 }), costs("shared", "ldmatrix", 16, { start: 0, step: 80 }),
    costs("shared", "atomic", 4, { start: 0, step: 0 })];
  const by = (...warps) => ({ rows: [{ line: 7, requests: 9, examples: warps.map((warp) => ({ warp })) }] });
  found.shared = [sharedOut(by(3, 3), by(0, 1)), sharedOut(by(0, 1), by(0, 2)), sharedOut(by(0, 0), by(1, 1))];
  found.compared = 0;
  found.differ = [];
  for (const rung of content.rooms[0].rungs)
    for (const row of rung.rows.filter((row) => row.space && row.examples.length === row.requests)) {
      found.compared++;
      for (const name of ["sectors", "sectorsLeast", "wavefronts", "wavefrontsLeast"])
        if (row.examples.reduce((sum, e) => sum + costOf(row, e)[name], 0) !== row[name])
          found.differ.push([row.line, name]);
    }
  const tabs = document.querySelectorAll('[role="tab"]');
  key(tabs[0], "ArrowRight");
  found.tab = document.activeElement === tabs[1] && tabs[1].getAttribute("aria-selected");
  document.querySelector(".access .close").click();
  found.lines = document.querySelectorAll("button.number").length;
  for (const number of document.querySelectorAll("button.number")) number.click();
  found.panels = document.querySelectorAll(".access svg").length;
  const numbers = document.querySelectorAll("button.number");
  numbers[0].focus();
  key(numbers[0], "ArrowDown");
  found.down = document.activeElement === numbers[1];
  const panel = document.querySelector(".access"), slider = panel.querySelector("input");
  slider.value = 1;
  slider.dispatchEvent(new Event("input"));
  found.where = panel.querySelector(".where").textContent;
  key(panel, "Escape");
  found.closed = !panel.isConnected && document.activeElement.classList.contains("number");
  for (const details of document.querySelectorAll("details")) details.open = true;
  found.headings = [...document.querySelectorAll("h2")].map((each) => each.textContent);
  tabs[tabs.length - 1].click();
  found.hazards = [...document.querySelectorAll(".hazards")].map((each) => each.textContent);
  found.sideways.push(sideways());
  found.why = document.querySelector(".why").textContent;
  found.dark = matchMedia("(prefers-color-scheme: dark)").matches;
  found.texts = 0;
  found.faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const at = walker.currentNode.parentElement, style = getComputedStyle(at);
    if (!walker.currentNode.data.trim() || !at.getClientRects().length || style.visibility === "hidden") continue;
    found.texts++;
    const ratio = contrast(at);
    if (ratio < 4.5) found.faint.push([ratio, at.getAttribute("class"), walker.currentNode.data]);
  }
  const heats = [...document.querySelectorAll(".heat[style]")].map((cell) => ({
    share: +cell.style.getPropertyValue("--share"),
    ratio: ratioOf(behind(cell), behind(cell.parentElement)) })).sort((a, b) => a.share - b.share);
  found.heat = [heats[0].ratio, heats[heats.length - 1].ratio];
  location.hash = "%FF";  // no room, and no character
  show();
} catch (error) { mistakes.push(String(error)); }
found.mistakes = mistakes;
parent.document.getElementById("found").textContent = JSON.stringify(found);
</script>"""
TILES = """<script>
const texts = (words) => [...document.querySelectorAll(words)].map((each) => each.textContent);
parent.document.getElementById("found").textContent = JSON.stringify({
  mistakes, figures: texts(".listing .line:not(.head) .figures.global").filter((text) => text), files: texts(".file"),
  buttons: texts("button.number").length, launches: texts(".launches p"),
  head: texts(".line.head .figures, .head code"),
  charts: texts(".card strong"), idle: texts(".line.idle").length, formulae: document.querySelectorAll("math").length,
  sideways: document.documentElement.scrollWidth - document.documentElement.clientWidth });
</script>"""
