// The page: a list of rooms, and the room that the address names after #. The numbers stand in the element `counted`.

const content = JSON.parse(document.getElementById("counted").textContent);
const main = document.getElementById("main"), rooms = document.getElementById("rooms");

function section(number, title, ...children) {
  return element("section", {}, element("h2", {}, element("span", { class: "step", text: number }), title), children);
}

function show() {
  const name = location.hash.slice(1);
  const room = content.rooms.find((each) => each.name === name) ?? content.rooms[0];
  document.title = `${room.name}, counted`;
  for (const link of rooms.querySelectorAll("a")) {
    const here = link.textContent === room.name;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    if (here) link.scrollIntoView({ block: "nearest", inline: "center" });
  }
  main.replaceChildren(...(room.call === undefined ? ofRoom(room) : ofFile(room)));
  scrollTo(0, 0);
}

function ofRoom(room) {
  return [
    element("header", {}, element("p", { class: "name", text: room.name }), element("h1", { text: room.question }),
      element("p", { class: "about", text: room.about })),
    section(1, "The equation", element("div", { class: "equations" }, room.equations.map(equation)),
      element("details", { open: !room.equations.length },
        element("summary", { text: "All that the room has under Math" }), code(room.math))),
    section(2, "The definition", element("p", { text: `What every rung computes, in PyTorch, from ${room.module}:` }),
      code(room.definition),
      room.section === room.definition ? null : element("details", {},
        element("summary", { text: "All that the room has under reference" }), code(room.section))),
    section(3, "The ladder", element("p", {}, "Each rung computes the same and changes one idea. What fell most comes "
        + "first. Sizes: ", sizes(room), "; with the gradient, if the room has one. What is predicted knows no "
        + "latency, which decides at sizes as small as these."), ladder(room)),
    lines(4, room),
  ];
}

/** A user's .cu: what runs, one launch after the other, and its lines. */
function ofFile(room) {
  const printed = room.printed.trim();
  return [
    element("header", {}, element("h1", { text: `What the kernels of ${room.name} do to memory` })),
    section(1, "The call", room.call ? code(room.call, "cuda") : element("p", { text: "The main() of the file runs." }),
      printed ? [element("p", { text: "It printed" }), code(printed, "")] : null),
    section(2, "The launches, one after the other", element("p", { text: "Between neighbours stands what differs: what "
      + "is counted, and the lines of the source. Whether both compute the same is yours to say. What is predicted "
      + "knows no latency." }), ladder(room)),
    lines(3, room),
  ];
}

function ladder(room) {
  return [room.why ? element("p", { class: "note", text: `Nothing is compiled here: ${room.why}` }) : null,
    element("ol", { class: "ladder" }, room.rungs.flatMap((rung, i) => step(room, rung, i))), charts(room)];
}

function lines(number, room) {
  return section(number, "The kernels, line by line", element("p", {}, "The strip on the left is darker where a line "
      + "moves more: ", element("span", { class: "key global", text: "sectors of global memory" }),
    inTriton(room) ? null : [", ", element("span", { class: "key shared", text: "wavefronts of shared memory" })],
    ". Figures in ", element("span", { class: "more", text: "this colour" }), " are above the least possible. ",
    inTriton(room) ? "They are of whole tiles. Accesses are not drawn: on which lanes the elements of a tile lie is "
      + "up to Triton's compiler, and is not counted." : "Choose a line to draw its accesses."), kernels(room));
}

function inTriton(room) {
  return room.language === "triton";
}

function equation({ name, mathml }) {
  return element("div", { class: "equation" }, element("span", { text: name }),
    element("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": `equation: ${name}`, markup: mathml }));
}

/** A rung, and above it what changed since the one before. */
function step(room, rung, i) {
  const text = element("p", { text: rung.lesson
    ? `${rung.lesson[0].toUpperCase()}${rung.lesson.slice(1)}${rung.lesson.endsWith(".") ? "" : "."}` : "" });
  const hazards = rung.launches.reduce((sum, launch) => sum + launch.hazards.length, 0);
  const here = element("li", { class: "rung" }, element("h3", { text: rung.name }), text,
    hazards > 0 && element("p", { class: "more", text: `${many(hazards, "hazard")}, told below beside its counts.` }));
  if (!i) return [here];
  const before = room.rungs[i - 1];
  return [element("li", { class: "between" }, why(room, before, rung), changes(before, rung), difference(room, i - 1),
    countsByLine(room, i - 1)), here];
}

function sizes(room) {
  return element("code", { text: Object.entries(room.sizes).map(([name, size]) => `${name}=${size}`).join(" ") });
}

function code(text, language = "python") {
  return element("pre", { class: "scroll", tabindex: 0 }, element("code", {}, highlighted(text, language)));
}

/** A tab for each rung: its launches, and its source. */
function kernels(room) {
  const tabs = room.rungs.map((rung, i) => element("button", { type: "button", role: "tab", id: `tab-${i}`,
    text: rung.name, onclick: () => choose(i), onkeydown: (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (by) choose((i + by + tabs.length) % tabs.length, true);
    } }));
  const panel = element("div", { role: "tabpanel" });
  function choose(i, focus) {
    tabs.forEach((tab, j) => {
      tab.setAttribute("aria-selected", i === j);
      tab.tabIndex = i === j ? 0 : -1;
    });
    if (focus) tabs[i].focus();
    panel.setAttribute("aria-labelledby", `tab-${i}`);
    panel.replaceChildren(launches(room.rungs[i]), listing(room, room.rungs[i]));
  }
  choose(0);
  return element("div", {}, element("div", { role: "tablist", "aria-label": "rungs" }, tabs), panel);
}

function launches(rung) {
  return element("ul", { class: "launches" }, rung.launches.map((launch) => element("li", {},
    element("h4", {}, element("code", { text: launch.kernel })), grid(launch),
    launch.arguments ? ofTiles(launch) : ofCounts(launch), ofCompiler(launch), ofCard(launch, "H100"),
    ofHazards(launch))));
}

function grid({ launches, grid, block, arguments: given }) {
  const triple = (v) => v.filter((n, i) => i === 0 || v.slice(i).some((m) => m > 1)).join("×");
  const blocks = many(grid.reduce((a, b) => a * b, 1), given ? "program" : "block");
  const times = launches > 1 ? `${launches} launches of ` : "";
  if (!given) return element("p", { text: `${times}${blocks} of ${triple(block)} threads` });
  return element("p", {}, `${times}${blocks} of ${many(block[0] / 32, "warp")}, with `,
    element("code", { text: Object.entries(given).map(([name, value]) => `${name}=${value}`).join(" ") }));
}

function ofCounts(l) {
  return element("p", {}, tag("counted"), ` DRAM read ${bytes(l.dramRead)}, written ${bytes(l.dramWritten)}; `
    + `L2 ${bytes(l.l2)}; ${short(round(l.lanes))} of 32 lanes active; ${many(l.divergent, "divergent branch")}; `
    + `${whole(l.barriers)} arrivals at barriers`
    + (l.flop ? `; ${short(l.flop / 1e6)} MFLOP on tensor cores` : ""));
}

/** What is wrong whoever runs first: docs/counting.md says what each is. */
function ofHazards({ hazards }) {
  if (!hazards.length) return null;
  return element("div", { class: "hazards" }, element("strong", { text: many(hazards.length, "hazard") }),
    element("ul", {}, hazards.map((text) => element("li", { text }))));
}

function ofTiles(l) {
  return element("p", {}, tag("counted"), ` DRAM read ${bytes(l.dramRead)}, written ${bytes(l.dramWritten)}; `
    + `L2 ${bytes(l.l2)}; ${many(l.tiles, "tile")}, `
    + `${short(round((100 * l.masked) / (l.masked + l.elements || 1)))} % of their elements masked off`
    + (l.flop ? `; ${short(l.flop / 1e6)} MFLOP in tl.dot` : ""));
}

function ofCompiler(l) {
  return l.registers ? element("p", {}, tag("compiled"), ` ${l.registers} registers a thread, ${bytes(l.shared)} of `
    + `shared memory a block, ${l.spilled ? `${bytes(l.spilled)} of stack` : "nothing spilled"} (sm_${l.architecture})`)
    : null;
}

function ofCard(launch, card) {
  const at = launch.predicted[card];
  return at ? element("p", {}, tag("predicted"), ` ${card}: at least ${microseconds(at.seconds)}, ${at.binds} binds`
    + (at.occupancy ? `; ${Math.round(100 * at.occupancy)} % of an SM's warps, limited by ${at.limited}` : ""))
    : null;
}

rooms.append(...content.rooms.map((room) => element("a", { href: `#${room.name}`, text: room.name })));
document.getElementById("not-counted").textContent = content.notCounted.length
  ? `Not counted, because Triton does not interpret where this page was made: ${content.notCounted.join(", ")}.` : "";
addEventListener("hashchange", show);
show();
