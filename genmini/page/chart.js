// The ladder as small charts, one for each number, and what changes from a rung to the next.

/** What is compared: of a rung -> a number, or null where it has none. `least`: the best that is possible. */
const MEASURES = [
  { word: "counted", name: "DRAM", unit: "MB read and written", of: (r) => scaled(r.dram, 1e-6) },
  { word: "counted", name: "L2", unit: "MB read and written", of: (r) => scaled(r.l2, 1e-6) },
  { word: "counted", name: "sectors", unit: "times the least possible", least: 1, of: (r) => r.sectors },
  { word: "counted", name: "wavefronts", unit: "times the least possible", least: 1, of: (r) => r.wavefronts },
  { word: "counted", name: "requests of global memory", unit: "by warps", of: (r) => of("request", r, "global") },
  { word: "counted", name: "requests of shared memory", unit: "by warps", of: (r) => of("request", r, "shared") },
  { word: "counted", name: "tiles", unit: "that are read or written", of: (r) => of("tile", r) },
  { word: "counted", name: "elements", unit: "of these tiles", of: (r) => elementsOf(r) },
  { word: "counted", name: "requests of a warp", unit: "on average, in turn",
    of: (r) => (r.unit === "request" ? inTurn(r) : null) },
  { word: "counted", name: "tiles of a program", unit: "on average, in turn",
    of: (r) => (r.unit === "tile" ? inTurn(r) : null) },
  { word: "counted", name: "products", unit: "MFLOP in tl.dot", of: (r) => products(r) },
  { word: "counted", name: "collisions", unit: "of atomic operations", of: (r) => r.collisions },
  { word: "counted", name: "barriers", unit: "arrivals of warps", of: (r) => r.barriers },
  { word: "counted", name: "divergent branches", unit: "of warps", of: (r) => r.divergent },
  { word: "compiled", name: "registers", unit: "of a thread, at most", of: (r) => r.registers },
];

function scaled(number, by) {
  return number === null ? null : number * by;
}

/** Accesses of memory that are counted in this unit; null where another one is. */
function of(unit, rung, space) {
  if (rung.unit !== unit) return null;
  const rows = rung.rows.filter((row) => row.space && (!space || row.space === space));
  return rows.reduce((sum, row) => sum + row.requests, 0);
}

function elementsOf(rung) {
  return rung.unit === "tile" ? rung.rows.reduce((sum, row) => sum + (row.space ? row.lanes : 0), 0) : null;
}

function products(rung) {
  return rung.unit === "tile" ? rung.launches.reduce((sum, launch) => sum + launch.flop / 1e6, 0) : null;
}

/** All charts that have something to show. */
function charts(room) {
  const shown = MEASURES.filter((m) => room.rungs.some((r) => m.of(r)));
  return element("div", { class: "charts" }, shown.map((m) => bars(room, m)), cardsChart(room));
}

/** A bar for each rung; the part beyond the least possible has another colour. */
function bars(room, measure) {
  const values = room.rungs.map(measure.of), most = Math.max(...values.filter((v) => v !== null), measure.least ?? 0);
  const height = 30 * values.length + 4, width = 230;
  const bar = (kind, x, y, long) => svg("rect", { class: `bar ${kind}`, x, y, width: long, height: 8, rx: 1.5 });
  const parts = values.flatMap((value, i) => {
    const y = 30 * i, long = value === null ? 0 : (width * value) / most;
    const least = measure.least ? Math.min(long, (width * measure.least) / most) : long;
    return [
      svg("text", { class: "name", x: 0, y: y + 12, text: room.rungs[i].name }),
      bar(measure.word, 0, y + 17, Math.max(least, value ? 1 : 0)),
      long > least + 0.5 && bar("more", least, y + 17, long - least),
      svg("text", { class: "value", x: 300, y: y + 25, text: short(value) }),
    ];
  });
  return element("figure", { class: "card" },
    element("figcaption", {}, tag(measure.word), element("strong", { text: measure.name }),
      element("span", { text: measure.unit })),
    svg("svg", { viewBox: `0 0 300 ${height}`, role: "img",
      "aria-label": `${measure.name}: `
        + room.rungs.map((rung, i) => `${rung.name} ${short(values[i])}`).join(", ") }, parts));
}

/** For each card a line from the slowest rung to the fastest, on a logarithmic axis of microseconds. */
function cardsChart(room) {
  const seconds = room.rungs.flatMap((rung) => Object.values(rung.predicted).map((p) => p.seconds));
  if (!seconds.length) return null;
  const low = Math.log10(Math.min(...seconds)) - 0.15, high = Math.log10(Math.max(...seconds)) + 0.15;
  const x = (s) => 92 + (640 * (Math.log10(s) - low)) / (high - low);
  const row = 72, height = row * room.cards.length + 24;
  const inWords = (card) => `${card}: ` + room.rungs.filter((rung) => rung.predicted[card])
    .map((rung) => `${rung.name} at least ${microseconds(rung.predicted[card].seconds)}`).join(", ");
  const parts = [];
  for (const tick of ticks(10 ** low, 10 ** high))
    parts.push(svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: 0, y2: height - 20 }),
      svg("text", { class: "axis", x: x(tick), y: height - 6, text: microseconds(tick) }));
  room.cards.forEach((card, i) => {
    const y = row * i + 38;
    const points = room.rungs.map((rung) => ({ rung, p: rung.predicted[card] })).filter(({ p }) => p), taken = [];
    parts.push(svg("text", { class: "name", x: 0, y: y + 4, text: card }));
    parts.push(svg("polyline", { class: "path", points: points.map(({ p }) => `${x(p.seconds)},${y}`).join(" ") }));
    points.forEach(({ rung, p }, j) => {
      const last = j === points.length - 1;
      parts.push(svg("circle", { class: last ? "last" : "point", cx: x(p.seconds), cy: y, r: last ? 6 : 5 },
        svg("title", { text: `${rung.name} on ${card}: at least ${microseconds(p.seconds)}, ${p.binds}` })));
      const text = `${rung.name} ${short(1e6 * p.seconds)}, ${p.binds}`;
      parts.push(svg("text", { class: "point", x: x(p.seconds), y: y + free(taken, x(p.seconds), text, j), text }));
    });
  });
  return element("figure", { class: "card wide" },
    element("figcaption", {}, tag("predicted"), element("strong", { text: "at least so long on a card" }),
      element("span", { text: "all launches, in µs, and what binds" })),
    element("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "chart of predicted times" },
      svg("svg", { viewBox: `0 0 760 ${height}`, role: "img",
        "aria-label": room.cards.map(inWords).join("; ") }, parts)));
}

/** How far from its point a name stands, so that it hides no other one: above and below in turn, then further off. */
function free(taken, x, text, j) {
  const half = 3.3 * text.length + 2, [one, other] = j % 2 ? [[20, 33], [-10, -23]] : [[-10, -23], [20, 33]];
  const hides = (dy) => taken.some((each) => each.dy === dy && Math.abs(each.x - x) < each.half + half);
  const dy = [one[0], other[0], one[1], other[1]].find((level) => !hides(level)) ?? one[0];
  taken.push({ x, dy, half });
  return dy;
}

/** 1, 2 and 5 times powers of ten between two numbers; 1 alone where these are far apart. */
function ticks(low, high) {
  const steps = high / low < 50 ? [1, 2, 5] : [1], found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    found.push(...steps.map((step) => step * 10 ** power).filter((tick) => tick >= low && tick <= high));
  return found;
}

/** Rows of a table: each number before and after, and by how much it fell or rose; what fell most comes first. */
function changes(before, after) {
  const predicted = { word: "predicted", name: "at least, on an H100", unit: "µs",
    of: (r) => (r.predicted[CARD] ? 1e6 * r.predicted[CARD].seconds : null) };
  const rows = [...MEASURES, predicted].map((m) => ({ m, a: m.of(before), b: m.of(after) }))
    .filter(({ m, a, b }) => a !== null && b !== null && (m === predicted || !same(a, b)))
    .sort((p, q) => (p.m === predicted) - (q.m === predicted) || p.b / (p.a || 1e-9) - q.b / (q.a || 1e-9));
  return element("table", { class: "changes" },
    element("thead", {}, element("tr", {},
      ["", "", before.name, after.name, ""].map((text) => element("th", { scope: "col", text })))),
    element("tbody", {}, rows.map(({ m, a, b }) => element("tr", {},
      element("td", {}, tag(m.word)), element("th", { scope: "row" }, m.name, element("small", { text: ` ${m.unit}` })),
      element("td", { text: short(a) }), element("td", { text: short(b) }), change(a, b)))));
}

/** Within half a hundredth. */
function same(a, b) {
  return Math.abs(a - b) <= 0.005 * Math.max(a, b);
}

function change(a, b) {
  if (same(a, b)) return element("td", { text: "the same" });
  if (!b || !a) return element("td", { class: b < a ? "fell" : "rose", text: b < a ? "to none" : "from none" });
  return element("td", { class: b < a ? "fell" : "rose", text: factor(a, b) });
}
