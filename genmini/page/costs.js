// What a request costs, from the addresses of its lanes: the rules of csrc/emulator/count_request.h, which counted all
// requests; here they say what to draw. docs/counting.md explains them.

const SECTOR = 32; // bytes of global memory
const BANKS = 32; // of shared memory, 4 bytes each

/** [{lane, at}] of an example, from the lowest lane on. */
function lanesOf(example) {
  const lanes = [];
  for (let lane = 0; lane < 32; lane++) if ((example.active >>> lane) & 1) lanes.push(lane);
  return lanes.map((lane, i) => ({
    lane,
    at: example.at ? example.at[i] : example.start + example.step * (lane - lanes[0]),
  }));
}

/** The sectors that lanes touch, in order: [number]. */
function sectorsOf(lanes, size) {
  const found = new Set();
  for (const { at } of lanes)
    for (let s = Math.floor(at / SECTOR); s <= Math.floor((at + size - 1) / SECTOR); s++) found.add(s);
  return [...found].sort((a, b) => a - b);
}

/** As few sectors as could hold the distinct bytes. */
function leastSectors(lanes, size) {
  let count = 0, end = -Infinity;
  for (const at of lanes.map((lane) => lane.at).sort((a, b) => a - b)) {
    count += at + size - Math.max(at, Math.min(end, at + size));
    end = Math.max(end, at + size);
  }
  return Math.ceil(count / SECTOR);
}

/** Lanes that are served together: groups of [lane]. 32 of 4 bytes, 16 of 8, 8 of 16; twice as many where pairs of
 * lanes read the same; of ldmatrix the 8 rows of a matrix. */
function groupsOf(row, lanes) {
  let size = row.what === "ldmatrix" ? 8 : row.size <= 4 ? 32 : row.size === 8 ? 16 : 8;
  const at = new Map(lanes.map((lane) => [lane.lane, lane.at]));
  const agree = (bit) => lanes.every(({ lane, at: own }) => !at.has(lane ^ bit) || at.get(lane ^ bit) === own);
  if (row.what === "load" && size < 32 && (agree(1) || agree(2))) size *= 2;
  const groups = [];
  for (let start = 0; start < 32; start += size) {
    const group = lanes.filter(({ lane }) => lane >= start && lane < start + size);
    if (group.length) groups.push(group);
  }
  return groups;
}

/** For each group and bank the words that meet there: [[{word, lanes}] of 32 banks]. As many wavefronts as the busiest
 * bank has words. */
function banksOf(row, group) {
  const banks = Array.from({ length: BANKS }, () => []);
  for (const { lane, at } of group)
    for (let word = Math.floor(at / 4); word <= Math.floor((at + row.size - 1) / 4); word++) {
      const bank = banks[((word % BANKS) + BANKS) % BANKS];
      const same = row.what === "atomic" ? null : bank.find((cell) => cell.word === word);
      if (same) same.lanes.push(lane);
      else bank.push({ word, lanes: [lane] });
    }
  return banks;
}

/** What a request costs: {sectors, sectorsLeast, wavefronts, wavefrontsLeast}. */
function costOf(row, example) {
  const lanes = lanesOf(example);
  if (row.space === "global")
    return { sectors: sectorsOf(lanes, row.size).length, sectorsLeast: leastSectors(lanes, row.size),
             wavefronts: 0, wavefrontsLeast: 0 };
  const groups = groupsOf(row, lanes);
  const wavefronts = groups.reduce((sum, g) => sum + Math.max(...banksOf(row, g).map((bank) => bank.length)), 0);
  return { sectors: 0, sectorsLeast: 0, wavefronts, wavefrontsLeast: groups.length };
}
