// Draws one request of a warp: 32 lanes above, and below them the sectors of global memory that they touch, or the
// banks of shared memory. A slider, buttons and keys step through the requests that were kept of a line.

const PICTURE = { lanes: 24, curves: 64, byte: 4, word: 18 }; // heights, in pixels

/** The colour of a lane: neighbours look alike. */
function laneColour(lane) {
  return `oklch(var(--lane-light) 0.13 ${Math.round(150 + lane * 7.5)})`;
}

/** A panel for the rows of one line: which access, which request, the picture, and what it says. */
function accessPanel(room, rung, rows, onclose) {
  let row = rows.reduce((worst, other) => (excess(other) > excess(worst) ? other : worst), rows[0]);
  let index = 0, timer = null;
  const button = (text, onclick, label) => element("button", { type: "button", text, onclick, "aria-label": label });
  const nameOf = (each) =>
    `${each.space} ${each.what}, ${each.size} bytes a lane — ${rung.launches[each.launch].kernel}`;
  const picture = element("div", { class: "picture" });
  const foot = element("p", { class: "foot" }), where = element("p", { class: "where" });
  const caption = element("p", { class: "says", "aria-live": "polite" });
  const slider = element("input", { type: "range", min: 0, step: 1, "aria-label": "which request",
    oninput: () => (stop(), go(+slider.value)) });
  const play = button("play", () => (timer ? stop() : start()));
  const choose = element("select", { "aria-label": "which access of this line",
    onchange: () => pick(rows[choose.value]) },
  rows.map((each, i) => element("option", { value: i, selected: each === row, text: nameOf(each) })));
  const panel = element("div", { class: `access ${row.space}`,
    onkeydown: (event) => event.key === "Escape" && close() },
    element("div", { class: "chooser" }, rows.length > 1 ? choose : element("strong", { text: nameOf(row) }),
      element("button", { type: "button", class: "close", "aria-label": "close the drawing", text: "×",
        onclick: () => close() })),
    caption, picture, foot,
    element("div", { class: "stepper" },
      button("◀", () => (stop(), go(index - 1)), "the request before"), slider,
      button("▶", () => (stop(), go(index + 1)), "the next request"), play),
    where);

  /** Another access of the line, at the request that costs most above the least possible. */
  function pick(other) {
    row = other;
    stop();
    const costs = row.examples.map((example) => costOf(row, example));
    const over = costs.map((c) => c.sectors - c.sectorsLeast + c.wavefronts - c.wavefrontsLeast);
    go(over.indexOf(Math.max(...over)));
  }
  function go(to) {
    index = Math.min(Math.max(to, 0), row.examples.length - 1);
    slider.max = row.examples.length - 1;
    slider.value = index;
    draw();
  }
  function start() {
    if (index === row.examples.length - 1) go(0);
    play.textContent = "stop";
    timer = setInterval(() => (index < row.examples.length - 1 ? go(index + 1) : stop()), 600);
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "play";
  }
  function close() {
    stop();
    watch.disconnect();
    panel.remove();
    onclose();
  }
  function draw() {
    const example = row.examples[index], width = Math.max(picture.clientWidth || 320, 280);
    const of = row.space === "global" ? [saysOfSectors, sectorsPicture] : [saysOfBanks, banksPicture];
    const says = of[0](row, example), [drawn, below] = of[1](row, index, width, room.arrays[example.array][0]);
    drawn.setAttribute("aria-label", says.map((part) => part.textContent ?? part).join(""));
    picture.replaceChildren(drawn);
    caption.replaceChildren(...says);
    foot.textContent = below;
    where.textContent = `Request ${index + 1} of the ${row.examples.length} that were kept, of ${whole(row.requests)}. `
      + `Block ${whole(example.block)}, warp ${example.warp}. ${elements(room, row, example)}`;
  }
  const watch = new ResizeObserver(() => draw());
  watch.observe(picture);
  pick(row);
  return panel;
}

/** By how much a row costs more than the least possible. */
function excess(row) {
  return row.sectors - row.sectorsLeast + row.wavefronts - row.wavefrontsLeast;
}

function verb(row, lanes) {
  const word = { atomic: "change", store: "write", "cp.async": row.space === "shared" ? "write" : "read" }[row.what];
  return `${word ?? "read"}${lanes.length === 1 ? "s" : ""}`;
}

function saysOfSectors(row, example) {
  const lanes = lanesOf(example), { sectors, sectorsLeast: least } = costOf(row, example);
  const same = lanes.length > 1 && new Set(lanes.map((lane) => lane.at)).size === 1;
  return [
    `${many(lanes.length, "lane")} ${verb(row, lanes)} ${many(row.size, "byte")} each${same ? ", all the same" : ""}. `
      + `${lanes.length === 1 ? "It touches" : "They touch"} `,
    element("strong", { class: sectors > least ? "more" : "least", text: many(sectors, "sector") }),
    sectors === least ? ", as few as can hold these bytes." : `, where ${least} could hold these bytes.`,
  ];
}

function saysOfBanks(row, example) {
  const lanes = lanesOf(example), { wavefronts, wavefrontsLeast: least } = costOf(row, example);
  return [
    row.what === "ldmatrix" ? `${lanes.length} lanes give the rows of ${lanes.length / 8} matrices, 16 bytes each. `
      : `${many(lanes.length, "lane")} ${verb(row, lanes)} ${many(row.size, "byte")} each. `,
    "That takes ",
    element("strong", { class: wavefronts > least ? "more" : "least", text: many(wavefronts, "wavefront") }),
    wavefronts === least ? ": no two words meet in a bank."
      : `, where ${least} would do if no two words met in a bank.`,
  ];
}

const BYTES = { float64: 8, int64: 8, float32: 4, int32: 4, float16: 2, bfloat16: 2, uint8: 1, int8: 1, bool: 1 };

/** "Lane 0: s[0, 0], lane 31: s[31, 0]": where lanes are in the array, if it has a name. */
function elements(room, row, example) {
  const [name, skew] = room.arrays[example.array], [word, dtype, ...shape] = name.split(" ");
  if (!word || row.space === "shared") return "";
  const place = (at) => {
    let number = Math.floor((at - skew) / (BYTES[dtype] ?? 1));
    const indices = [];
    for (const extent of shape.map(Number).reverse()) {
      indices.unshift(number % extent);
      number = Math.floor(number / extent);
    }
    return `${word}[${indices.join(", ")}]`;
  };
  const lanes = lanesOf(example), ends = new Set([lanes[0], lanes[1] ?? lanes[0], lanes[lanes.length - 1]]);
  const places = [...ends].map(({ lane, at }) => `lane ${lane} ${place(at)}`).join(", ");
  return `${word} is ${dtype} (${shape.join(", ")}): ${places}.`;
}

// ---- pictures -------------------------------------------------------------------------------------------------------

/** The row of lanes, and a curve from each that takes part to where it goes: target(address) -> x. */
function lanesAbove(lanes, width, target) {
  const step = width / 32, top = PICTURE.lanes, bottom = top + PICTURE.curves;
  const parts = lanes.map(({ lane, at }) => {
    const x = (lane + 0.5) * step, to = target(at);
    return svg("path", { class: "curve", stroke: laneColour(lane),
      d: `M${x},${top} C${x},${top + 34} ${to},${bottom - 34} ${to},${bottom}` });
  });
  const active = new Set(lanes.map(({ lane }) => lane));
  for (let lane = 0; lane < 32; lane++) {
    const on = active.has(lane);
    parts.push(svg("rect", { x: lane * step + 0.5, width: step - 1, height: top, rx: 3,
      class: on ? "lane" : "lane idle", fill: on ? laneColour(lane) : null }));
    if (step >= 17 || lane % 8 === 0)
      parts.push(svg("text", { x: (lane + 0.5) * step, y: 16, class: on ? "on" : "idle", text: lane }));
  }
  return parts;
}

function pictureOf(width, height, parts) {
  return svg("svg", { role: "img", width, height, viewBox: `0 0 ${width} ${height}` }, parts);
}

/** A request of global memory -> its picture and what stands below it. Each sector is a column of 32 bytes; what
 * earlier requests of this line touched in it stays faint. */
function sectorsPicture(row, index, width, array) {
  const example = row.examples[index], lanes = lanesOf(example), sectors = sectorsOf(lanes, row.size);
  const step = width / Math.max(32, sectors.length), y = PICTURE.lanes + PICTURE.curves;
  const slot = new Map(sectors.map((sector, i) => [sector, i]));
  const gap = (sector) => (slot.get(sector) && !slot.has(sector - 1) ? 2 : 0); // before one that is no neighbour
  const left = (sector) => slot.get(sector) * step + gap(sector), inner = (sector) => step - gap(sector) - 1;
  const middle = (at) => left(Math.floor(at / SECTOR)) + inner(Math.floor(at / SECTOR)) / 2;
  const rect = (sector, from, size, attributes) => svg("rect", { x: left(sector), width: inner(sector),
    y: y + from * PICTURE.byte, height: size * PICTURE.byte, ...attributes });
  const parts = lanesAbove(lanes, width, middle);
  for (const sector of sectors) parts.push(rect(sector, 0, SECTOR, { class: "sector", rx: 2 }));
  for (const earlier of row.examples.slice(0, index).filter((other) => other.array === example.array))
    for (const piece of piecesOf(lanesOf(earlier), row.size))
      if (slot.has(piece.sector)) parts.push(rect(piece.sector, piece.from, piece.size, { class: "earlier" }));
  const seen = new Set();
  for (const { lane, sector, from, size } of piecesOf(lanes, row.size)) {
    if (seen.has(`${sector} ${from}`)) continue; // another lane has the same bytes
    seen.add(`${sector} ${from}`);
    parts.push(rect(sector, from, size, { class: "byte", fill: laneColour(lane) }));
    if (step >= 17 && size >= 4)
      parts.push(svg("text", { class: "on", x: left(sector) + inner(sector) / 2,
        y: y + (from + size / 2) * PICTURE.byte + 4, text: lane }));
  }
  return [pictureOf(width, y + SECTOR * PICTURE.byte + 1, parts), footOf(sectors, array)];
}

/** The bytes of each lane, cut where a sector ends: [{lane, sector, from, size}]. */
function piecesOf(lanes, size) {
  const pieces = [];
  for (const { lane, at } of lanes)
    for (let byte = at; byte < at + size;) {
      const sector = Math.floor(byte / SECTOR), end = Math.min(at + size, (sector + 1) * SECTOR);
      pieces.push({ lane, sector, from: byte - sector * SECTOR, size: end - byte });
      byte = end;
    }
  return pieces;
}

function footOf(sectors, array) {
  const last = sectors[sectors.length - 1], step = sectors[1] - sectors[0];
  const even = sectors.every((sector, i) => i === 0 || sector - sectors[i - 1] === step);
  const which = sectors.length === 1 ? `number ${whole(last)}` : `numbers ${whole(sectors[0])} to ${whole(last)}`;
  return `A column is a sector of 32 bytes${array && `: ${which} of ${array.split(" ")[0]}`}`
    + (even && step > 1 ? `, ${bytes(SECTOR * step)} apart.` : ".");
}

/** A request of shared memory -> its picture and what stands below it. Each bank is a column; words that meet in a bank
 * stand below each other, and each row is a wavefront. */
function banksPicture(row, index, width) {
  const lanes = lanesOf(row.examples[index]), step = width / BANKS;
  const groups = groupsOf(row, lanes).map((group) => banksOf(row, group));
  const heights = groups.map((banks) => Math.max(...banks.map((bank) => bank.length)));
  const wavefronts = heights.reduce((a, b) => a + b, 0);
  const height = wavefronts > 16 ? Math.max(7, 288 / wavefronts) : PICTURE.word;
  const bankOf = (at) => ((Math.floor(at / 4) % BANKS) + BANKS) % BANKS;
  const parts = lanesAbove(lanes, width, (at) => (bankOf(at) + Math.max(row.size, 4) / 8) * step);
  let y = PICTURE.lanes + PICTURE.curves;
  groups.forEach((banks, i) => {
    for (let w = 0; w < heights[i]; w++)
      banks.forEach((bank, b) => parts.push(...cell(bank[w], b * step, y + w * height, step, height)));
    y += heights[i] * height + 4;
  });
  return [pictureOf(width, y, parts),
    "A column is a bank, from 0 to 31; a row is a wavefront, in which each bank gives one word of 4 bytes."];
}

/** A word that a bank gives in a wavefront, with its lane, or how many lanes want it; or nothing. */
function cell(word, x, y, width, height) {
  const rect = svg("rect", { class: word ? "byte" : "bank", fill: word ? laneColour(word.lanes[0]) : null,
    x: x + 0.5, y: y + 0.5, width: width - 1, height: height - 1, rx: 1.5 });
  if (!word || width < 17 || height < 14) return [rect];
  const text = word.lanes.length > 1 ? `×${word.lanes.length}` : word.lanes[0];
  return [rect, svg("text", { class: "on", x: x + width / 2, y: y + height / 2 + 4, text })];
}
