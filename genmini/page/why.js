// Why a rung is faster than the one before, said from what is counted and predicted of both: no word here is of a room.

const CARD = "H100";
const OF_RESOURCE = { DRAM: "the bytes of DRAM", L2: "the sectors of L2", shared: "the wavefronts of shared memory",
  shuffle: "the shuffles of warps", tensor: "the products on tensor cores", issue: "the instructions that warps issue",
  fp32: "the operations in float32", fp64: "the operations in float64" };

/** At least so many seconds of a resource, over all launches of a rung. */
function needs(rung, resource) {
  return rung.launches.reduce((sum, launch) => sum + (launch.predicted[CARD]?.by[resource] ?? 0), 0);
}

/** Sentences above the table of changes. */
function why(room, before, after) {
  const a = before.predicted[CARD], b = after.predicted[CARD], counts = countsOf(before, after);
  const said = a && b ? ofCeilings(before, after, a, b) : [];
  const fell = counts.filter((c) => c.b < 0.97 * c.a).slice(0, 3).map(inWords);
  const equal = counts.filter((c) => same(c.a, c.b)).map((c) => c.m.name);
  if (fell.length) said.push(`What falls: ${fell.join("; ")}.`);
  else said.push("None of the counts below fell at these sizes.");
  if (equal.length) said.push(`The same: ${equal.join(", ")}.`);
  const title = room.call === undefined ? "Why " : "Compared ";
  return element("p", { class: "why" }, element("strong", { text: title }), said.join(" "));
}

function lower(a, b) {
  return b.seconds < 0.97 * a.seconds;
}

/** What binds before, how much less of it is needed, and what binds then. */
function ofCeilings(before, after, a, b) {
  const [leads, leadsThen] = [before, after].map((rung) => rung.launches.reduce(
    (x, y) => (y.predicted[CARD].seconds > x.predicted[CARD].seconds ? y : x)));
  const most = leads.predicted[CARD], resource = most.binds;
  const now = needs(after, resource), was = needs(before, resource);
  const of = before.launches.length > 1 ? `, ${microseconds(most.seconds)} of it in ${leads.kernel.split("<")[0]}` : "";
  const said = [`${before.name} takes at least ${microseconds(a.seconds)} on an ${CARD}${of}, where `
    + `${OF_RESOURCE[resource]} bind${busy(leads)}.`];
  const others = busy(leadsThen) === busy(leads) ? "" : busy(leadsThen);
  const then = b.binds === resource ? others : `; now ${OF_RESOURCE[b.binds]} bind${others}`;
  if (lower(a, b))
    said.push(`${after.name} takes at least ${microseconds(b.seconds)}, ${factor(a.seconds, b.seconds)}: for `
      + `${OF_RESOURCE[resource]} ${microseconds(now)} in place of ${microseconds(was)}${then}.`);
  else
    said.push(`${after.name} takes at least ${microseconds(b.seconds)}${then}: this ceiling `
      + `${b.seconds > 1.03 * a.seconds ? "rises" : "does not fall"}. It knows no waiting, nor which warps stand `
      + `idle${waits(before, after)}.${sharedOut(before, after)}`);
  return said;
}

/** A launch of few blocks leaves most of a card idle. */
function busy({ grid, predicted }) {
  const blocks = grid.reduce((x, y) => x * y, 1), { sms } = predicted[CARD];
  return blocks < sms ? `, on ${blocks} of ${sms} SMs` : `, on all ${sms} SMs`;
}

/** What a warp, or a program in Triton, has to wait for in turn: requests and barriers. */
function waits(before, after) {
  const said = [], [a, b] = [before, after].map(inTurn), [c, d] = [before, after].map(barriersInTurn);
  const one = before.unit === "tile" ? "program" : "warp", what = before.unit === "tile" ? "tiles" : "requests";
  const both = (now, was) => `${short(round(now))} in place of ${short(round(was))}`;
  if (b < 0.97 * a) said.push(`the ${what} that a ${one} makes in turn are ${both(b, a)}`);
  if (d < 0.97 * c) said.push(`the barriers of a warp are ${both(d, c)}`);
  return said.length ? `. There is less to wait for: ${said.join(", and ")}` : "";
}

/** Of the busiest line that both run as often, and of which one warp of a block made all requests that are kept. */
function sharedOut(before, after) {
  const of = (row) => [row.file, row.line, row.what, row.space, row.size].join(" ");
  const then = new Map(after.rows.map((row) => [of(row), row]));
  const warps = (row) => new Set(row.examples.map((example) => example.warp)).size;
  const [most] = before.rows.map((row) => [row, then.get(of(row))])
    .filter(([a, b]) => b && same(a.requests, b.requests) && warps(a) === 1 && warps(b) > 1)
    .sort(([a], [b]) => b.requests - a.requests);
  return most ? ` Line ${most[0].line} is run as often, but by other warps: the requests that are kept of it (below) `
    + `are all of warp ${most[0].examples[0].warp} of a block, then of several, which share the work.` : "";
}

/** Requests that a warp makes, or tiles that a program moves, on average, one launch after the other. */
function inTurn(rung) {
  return rung.launches.reduce((sum, launch, i) => {
    const requests = rung.rows.filter((row) => row.launch === i && row.space).reduce((n, row) => n + row.requests, 0);
    return sum + requests / workers(rung, launch);
  }, 0);
}

function barriersInTurn(rung) {
  return rung.launches.reduce((sum, launch) => sum + launch.barriers / workers(rung, launch), 0);
}

/** Warps of a launch, or programs in Triton. */
function workers(rung, { grid, block }) {
  const product = (v) => v.reduce((a, b) => a * b, 1);
  return product(grid) * (rung.unit === "tile" ? 1 : Math.ceil(product(block) / 32));
}

/** Counted measures of both rungs, what fell most first. */
function countsOf(before, after) {
  return MEASURES.filter((m) => m.word === "counted").map((m) => ({ m, a: m.of(before), b: m.of(after) }))
    .filter(({ a, b }) => a !== null && b !== null && (a || b))
    .sort((p, q) => p.b / (p.a || 1e-9) - q.b / (q.a || 1e-9));
}

function inWords({ m, a, b }) {
  return `${m.name} ${short(a)} → ${short(b)} (${m.unit}${b ? `, ${factor(a, b)}` : ""})`;
}

/** "÷ 3.5" */
function factor(a, b) {
  const times = b < a ? a / b : b / a;
  return `${b < a ? "÷" : "×"} ${short(times < 10 ? round(times) : Math.round(times))}`;
}

/** Lines that both rungs run and whose requests changed, with both counts; and of one source the arguments that did. */
function countsByLine(room, i) {
  const [before, after] = [room.rungs[i], room.rungs[i + 1]], of = [before, after].map((rung) => byLine(rung).found);
  const rows = Object.keys(room.files).flatMap((file) => room.files[file].flatMap((text, n) => {
    const [a, b] = of.map((found) => found[file]?.[n + 1]?.requests ?? 0);
    const both = [before, after].every((rung) => rung.items[file]?.some(([x, y]) => x <= n + 1 && n + 1 <= y));
    return both && !same(a, b) ? [{ file, line: n + 1, text, a, b }] : [];
  }));
  if (!rows.length) return null;
  return element("details", { class: "difference", open: !room.differences[i].length },
    element("summary", { text: `What changed in the counts of ${many(rows.length, "line")} that both run` }),
    element("div", { class: "listing" }, element("div", { class: "lines" }, rows.map(({ file, line, text, a, b }) =>
      element("div", { class: "line both" },
        element("span", { class: `figures ${b < a ? "fell" : "more"}`, text: `${whole(a)} → ${whole(b)}` }),
        element("span", { class: "number", text: line, title: file }),
        element("code", {}, highlighted(text, languageOf(file))))))));
}

/** "convolve: T=9 → 5", of launches that both rungs make in the same order: extents and switches, not strides. */
function otherArguments(before, after) {
  const found = after.launches.flatMap((launch, i) => {
    const old = before.launches[i];
    if (!launch.arguments || old?.kernel !== launch.kernel) return [];
    const changed = Object.entries(launch.arguments).filter(([name, value]) => /^[A-Z]/.test(name) && old.arguments[name] !== value);
    const each = changed.map(([name, value]) => `${name}=${old.arguments[name]} → ${value}`).join(", ");
    return each ? [`${launch.kernel}: ${each}`] : [];
  });
  return [...new Set(found)].join("; ");
}
