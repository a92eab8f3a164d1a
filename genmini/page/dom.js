"use strict";
// Makes elements of the page, of MathML's markup and of pictures, and writes numbers as text.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes; those that begin with "on" are listeners, `text` and `markup` are what stands in it. */
function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same of a picture. */
function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "text") made.textContent = value;
    else if (key === "markup") made.innerHTML = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

const thinSpace = "\u202f";

/** 12288 as "12 288" */
function whole(number) {
  return String(Math.round(number)).replace(/\B(?=(\d{3})+(?!\d))/g, thinSpace);
}

/** Three digits, or all of a whole number below a thousand. */
function short(number) {
  if (number === null || number === undefined) return "–";
  if (Number.isInteger(number) && Math.abs(number) < 1000) return String(number);
  if (Math.abs(number) >= 1000) return whole(number);
  return String(Number(number.toPrecision(3)));
}

/** To hundredths. */
function round(number) {
  return Math.round(number * 100) / 100;
}

function bytes(number) {
  if (number < 1e4) return `${whole(number)} bytes`;
  return number < 1e6 ? `${short(number / 1e3)} kB` : `${short(number / 1e6)} MB`;
}

function microseconds(seconds) {
  return `${short(1e6 * seconds)} µs`;
}

function many(number, word) {
  return `${whole(number)} ${word}${number === 1 ? "" : /(s|ch)$/.test(word) ? "es" : "s"}`;
}

/** Which of the four words says where a number comes from. */
function tag(word) {
  return element("span", { class: `tag ${word}`, text: word });
}

/** A line of source as parts with a class: comments, words of the language, numbers, strings. */
function highlighted(text, language) {
  const comment = language === "python" ? "#.*" : "//.*|/\\*.*?\\*/";
  const words = language === "python"
    ? "def|return|for|in|if|else|not|and|or|while|class|with|lambda|None|True|False|import|from"
    : "template|class|struct|typename|const|constexpr|int|int64_t|float|double|bool|void|for|if|else|return|while|auto|"
      + "static|using|__global__|__device__|__shared__|__forceinline__|__syncthreads|__syncwarp|uint\\d+_t|unsigned";
  const pattern = new RegExp(`(${comment})|("[^"]*")|\\b(${words})\\b|\\b(\\d[\\w.]*)`, "g");
  const parts = [];
  let last = 0;
  for (const match of text.matchAll(pattern)) {
    parts.push(text.slice(last, match.index));
    const kind = ["comment", "string", "word", "number"][match.slice(1).findIndex((part) => part !== undefined)];
    parts.push(element("span", { class: kind, text: match[0] }));
    last = match.index + match[0].length;
  }
  parts.push(text.slice(last));
  return parts;
}
