// The source of a rung, with what was counted beside each line, and the differences between two rungs.

/** What was counted on each line: {file: {line: {rows, sectors, ...}}}, and the most of any line. */
function byLine(rung) {
  const found = {}, most = { sectors: 1, wavefronts: 1, unit: rung.unit };
  for (const row of rung.rows) {
    const lines = (found[row.file] ??= {});
    const at = (lines[row.line] ??= { rows: [], requests: 0, lanes: 0, sectors: 0, sectorsLeast: 0, globals: 0,
      wavefronts: 0, wavefrontsLeast: 0, shareds: 0 });
    at.rows.push(row);
    for (const name of ["lanes", "sectors", "sectorsLeast", "wavefronts", "wavefrontsLeast"]) at[name] += row[name];
    at.requests += row.requests;
    if (row.space === "global") at.globals += row.requests;
    if (row.space === "shared") at.shareds += row.requests;
    most.sectors = Math.max(most.sectors, at.sectors);
    most.wavefronts = Math.max(most.wavefronts, at.wavefronts);
  }
  return { found, most };
}

/** The two cells of the heat strip, and the counters of a request beside the least possible. */
function heat(counts, most) {
  const cell = (name, of, word) => {
    const share = counts ? Math.sqrt(counts[name] / most[name]) : 0;
    const title = share ? `${whole(counts[name])} ${name} in ${many(of, most.unit)}` : null;
    return element("span", { class: `heat ${word}`, title, style: share ? `--share:${share.toFixed(3)}` : null });
  };
  const figures = (sum, least, of, word) => of
    ? element("span", { class: `figures ${word}${sum > least * 1.0001 ? " more" : ""}` }, short(round(sum / of)),
      element("i", { text: ` / ${short(round(least / of))}` }))
    : element("span", { class: "figures" });
  const c = counts ?? { sectors: 0, wavefronts: 0, globals: 0, shareds: 0 };
  return [cell("sectors", c.globals, "global"), cell("wavefronts", c.shareds, "shared"),
    figures(c.sectors, c.sectorsLeast, c.globals, "global"),
    figures(c.wavefronts, c.wavefrontsLeast, c.shareds, "shared")];
}

/** The items of the source that a rung runs. A line with accesses is a button that opens their drawing below it. */
function listing(room, rung) {
  const { found, most } = byLine(rung), open = new Map();
  const body = element("div", { class: "lines", onkeydown: arrows });
  const wrap = element("div", { class: "listing" }, head(rung.unit), body);
  for (const [file, items] of Object.entries(rung.items)) {
    body.append(element("div", { class: "file", text: file }));
    items.forEach(([first, last], i) => {
      const after = i ? items[i - 1][1] : 0;
      if (first > after + 2) body.append(gap(`⋯ ${many(first - after - 1, "line")} that do not run here`));
      for (let line = first; line <= last; line++) body.append(lineOf(file, line));
    });
  }
  function lineOf(file, line) {
    const counts = found[file]?.[line], text = room.files[file][line - 1];
    const drawn = counts?.rows.filter((row) => row.examples.length) ?? [];
    const number = drawn.length
      ? element("button", { type: "button", class: "number", "aria-expanded": "false", text: line,
        "aria-label": `line ${line}: draw its accesses` })
      : element("span", { class: "number", text: line });
    const executed = rung.executed[file]?.[line];
    const idle = !counts && !executed && rung.unit === "request"; // which lines a program in Triton ran nobody counted
    const made = element("div", { class: `line${drawn.length ? " drawn" : ""}${idle ? " idle" : ""}`,
      title: executed ? `warps ran it ${whole(executed[0])} times, with `
        + `${short(round(executed[1] / executed[0]))} of 32 lanes` : null },
      heat(counts, most), number, element("code", {}, highlighted(text, languageOf(file))));
    if (drawn.length) {
      made.addEventListener("click", () => !String(getSelection()) && toggle(made, number, drawn));
      open.set(`${file}:${line}`, () => toggle(made, number, drawn));
    }
    return made;
  }
  function toggle(made, number, drawn) {
    const shown = made.nextElementSibling?.classList.contains("access");
    if (shown) return made.nextElementSibling.querySelector(".close").click();
    number.setAttribute("aria-expanded", "true");
    made.classList.add("open");
    const panel = accessPanel(room, rung, drawn, () => {
      number.setAttribute("aria-expanded", "false");
      made.classList.remove("open");
      number.focus({ preventScroll: true });
    });
    made.after(panel);
    return panel;
  }
  const worst = worstOf(rung, open);
  if (!worst) return wrap;
  const panel = open.get(worst.key)();
  const why = excess(worst.row) ? "costs most above the least possible" : "costs most";
  return element("div", {}, element("p", {}, `What ${why} is open: `, element("button", { type: "button",
      text: `line ${worst.row.line} of ${worst.row.file}`,
      onclick: () => panel.previousElementSibling.scrollIntoView({ block: "start" }) })), wrap);
}

function gap(text) {
  return element("div", { class: "gap", text });
}

function languageOf(file) {
  return file.endsWith(".py") ? "python" : "cuda";
}

function head(unit) {
  const span = (kind, text) => element("span", { class: kind, text });
  return element("div", { class: "line head", "aria-hidden": "true" }, span("heat"), span("heat"),
    span("figures global", "sectors"), span("figures shared", unit === "request" && "wavefronts"), span("number"),
    element("code", { text: `of a ${unit} / the least possible` }));
}

/** {row, key}: the row that costs most above the least possible, or else most, among the lines that can be opened. */
function worstOf(rung, open) {
  const keyed = rung.rows.filter((row) => row.examples.length).map((row) => ({ row, key: `${row.file}:${row.line}` }));
  const worth = ({ row }) => excess(row) * 1e6 + row.sectors + row.wavefronts;
  return keyed.filter(({ key }) => open.has(key)).sort((a, b) => worth(b) - worth(a))[0];
}

/** Arrow keys go from one line with accesses to the next. */
function arrows(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || !event.target.classList.contains("number")) return;
  const all = [...event.currentTarget.querySelectorAll("button.number")];
  const next = all[all.indexOf(event.target) + step];
  if (next) next.focus();
  event.preventDefault();
}

/** What the sources of two rungs do not share: lines that are gone and lines that are new, with their counters. */
function difference(room, i) {
  const parts = room.differences[i], of = [byLine(room.rungs[i]), byLine(room.rungs[i + 1])];
  const count = (sign) => parts.filter((part) => part[0] === sign).length;
  const kernelsOf = (rung) => rung.launches.map((launch) => launch.kernel).join(", ");
  if (!parts.length) {
    const [before, after] = [room.rungs[i], room.rungs[i + 1]], other = otherArguments(before, after);
    return element("p", { class: "note", text: "Both run the same lines of the source, with other "
      + (other ? `arguments. ${other}.`
        : `${inTriton(room) ? "" : "template "}arguments: ${kernelsOf(before)}, then ${kernelsOf(after)}.`) });
  }
  return element("details", { class: "difference" },
    element("summary", {}, "What changed in the source: ",
      element("span", { class: "gone", text: `−${count("-")}` }), " ",
      element("span", { class: "new", text: `+${count("+")}` }), " lines"),
    element("div", { class: "listing" }, element("div", { class: "lines" }, parts.map(([sign, file, line, text]) => {
      if (sign === ".") return gap("⋯");
      const { found, most } = of[sign === "-" ? 0 : 1];
      const [kind, mark] = { "-": ["gone", "−"], "+": ["new", "+"], " ": ["same", ""] }[sign];
      return element("div", { class: `line ${kind}` }, heat(found[file]?.[line], most),
        element("span", { class: "number", text: `${mark} ${line}` }),
        element("code", {}, highlighted(text, languageOf(file))));
    }))));
}
