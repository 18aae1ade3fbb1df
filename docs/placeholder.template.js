/* Decoder of vqcodec's placeholders for web pages: FORMAT-placeholders.md in plain JavaScript.

   <canvas data-placeholder="TEXT"></canvas> is drawn when the page is ready. From scripts:

     Placeholder.decode(text)                  {aspect, quality, symbols, coefficients}; throws Error
     Placeholder.pixels(text, width, height)   Uint8ClampedArray, RGBA
     Placeholder.draw(canvas, text, width)     sets the canvas's size too; width is 32 by default

   Numbers are integers below 2^53 up to the pixels, so they are the same as those of the Python package. */
"use strict";

const Placeholder = (() => {
  const WEIGHTS = "@WEIGHTS@";

  const COMPONENTS = 192, SIZE = 208, CUTOFFS = [16, 8, 8];
  const QUALITIES = 24, FINEST = 22, CLASSES = 29, LOWEST_CLASS = -10, ASPECTS = 48, TOTAL = 16384;
  const COMMON = { "7": 3072, "5": 3072, "0": 2116, "-5": 2048, "-7": 2048, "10": 1024, "-10": 1024 };
  const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const STEPS = [@STEPS@];

  function fail(what) {
    throw new Error(what);
  }

  const weights = (() => {
    const bytes = Uint8Array.from(atob(WEIGHTS), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    let at = 0;
    const take = (count, width, get) =>
      Array.from({ length: count }, () => ((at += width), view[get](at - width, true)));
    const basis = take(COMPONENTS * SIZE, 1, "getInt8");
    const mean = take(SIZE, 2, "getInt16");
    const scales = take(COMPONENTS, 2, "getInt16");
    const octaves = take(COMPONENTS, 1, "getUint8");
    const largest = take(CLASSES + QUALITIES, 1, "getUint8");
    const cumulative = largest.map((most) => sums(take(2 * most + 1, 2, "getInt16")));
    return { basis, mean, scales, octaves, largest, cumulative };
  })();

  function sums(frequencies) {
    let total = 0;
    return [0, ...frequencies.map((frequency) => (total += frequency))];
  }

  const ASPECT_SUMS = sums(Array.from({ length: 2 * ASPECTS + 1 }, (_, n) => COMMON[n - ASPECTS] || 22));
  const QUALITY_SUMS = Array.from({ length: QUALITIES + 1 }, (_, n) => Math.floor((n * TOTAL) / QUALITIES));

  /* Payload of a text whose checksum is right. */
  function unpack(text) {
    if (!/^[A-Za-z0-9_-]{2,86}$/.test(text) || text.length % 4 === 1) fail("not a placeholder");
    const bits = [];
    for (const character of text) {
      const value = ALPHABET.indexOf(character);
      for (let n = 5; n >= 0; n--) bits.push((value >> n) & 1);
    }
    const whole = bits.length - (bits.length % 8);
    if (bits.slice(whole).includes(1)) fail("damaged placeholder");
    let register = 63;
    for (const bit of bits.slice(6, whole)) {
      const top = (register >> 5) ^ bit;
      register = ((register << 1) & 63) ^ (top ? 3 : 0);
    }
    if (register !== ALPHABET.indexOf(text[0])) fail("damaged placeholder");
    if (bits[6] || bits[7]) fail("a placeholder of a later version");
    const payload = [];
    for (let n = 8; n < whole; n += 8) payload.push(parseInt(bits.slice(n, n + 8).join(""), 2));
    return payload;
  }

  /* Function that decodes one symbol after the other. */
  function decoder(payload) {
    let at = 0, code = 0, range = 4294967295;
    const next = () => (at < payload.length ? payload[at++] : 0);
    for (let n = 0; n < 4; n++) code = code * 256 + next();
    return (cumulative) => {
      const unit = Math.floor(range / TOTAL), value = Math.floor(code / unit);
      if (value >= TOTAL) fail("damaged placeholder");
      let symbol = 0;
      while (cumulative[symbol + 1] <= value) symbol++;
      code -= unit * cumulative[symbol];
      range = unit * (cumulative[symbol + 1] - cumulative[symbol]);
      while (range < 16777216) {
        code = code * 256 + next();
        range *= 256;
      }
      return symbol;
    };
  }

  function decode(text) {
    const { basis, mean, scales, octaves, largest, cumulative } = weights, get = decoder(unpack(text));
    const aspect = get(ASPECT_SUMS) - ASPECTS, quality = get(QUALITY_SUMS);
    const symbols = [], totals = new Array(SIZE).fill(0);
    for (let n = 0; n < COMPONENTS; n++) {
      const number = octaves[n] - FINEST - quality - LOWEST_CLASS;
      if (n && number < 0) break;
      const table = n ? Math.min(number, CLASSES - 1) : CLASSES + quality;
      const symbol = get(cumulative[table]) - largest[table];
      symbols.push(symbol);
      const gain = Math.floor((scales[n] * STEPS[quality] + 2048) / 4096);
      if (symbol) for (let k = 0; k < SIZE; k++) totals[k] += symbol * gain * basis[n * SIZE + k];
    }
    return { aspect, quality, symbols, coefficients: totals.map((t, k) => mean[k] + Math.floor((t + 128) / 256)) };
  }

  function cosines(count, length) {
    return Array.from({ length: count }, (_, u) =>
      Array.from({ length }, (_, x) =>
        Math.floor(Math.cos((Math.PI * u * (2 * x + 1)) / (2 * length)) * 16384 + 0.5)));
  }

  /* p0, p1 or p2 from its coefficients, row after row. */
  function plane(coefficients, cutoff, across, down, width, height) {
    const lines = [], out = new Array(width * height);
    let at = 0;
    for (let u = 0; u < cutoff; u++) {
      const line = new Array(width).fill(0);
      for (let v = 0; v < cutoff - u; v++, at++)
        if (coefficients[at]) for (let x = 0; x < width; x++) line[x] += coefficients[at] * across[v][x];
      lines.push(line.map((sum) => Math.floor((sum + 8192) / 16384)));
    }
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) {
        let sum = 8192;
        for (let u = 0; u < cutoff; u++) sum += lines[u][x] * down[u][y];
        out[y * width + x] = Math.floor(sum / 16384);
      }
    return out;
  }

  function pixels(text, width, height) {
    const { coefficients } = decode(text), across = cosines(16, width), down = cosines(16, height);
    let at = 0;
    const planes = CUTOFFS.map((cutoff) => {
      const part = coefficients.slice(at, (at += (cutoff * (cutoff + 1)) / 2));
      return plane(part, cutoff, across, down, width, height);
    });
    const out = new Uint8ClampedArray(4 * width * height), level = (p) => Math.floor((p + 16384) / 128);
    for (let n = 0; n < width * height; n++) {
      const [p0, p1, p2] = planes.map((values) => values[n]);
      out.set([level(p0 + p1 + p2), level(p0 - 2 * p2), level(p0 - p1 + p2), 255], 4 * n);
    }
    return out;
  }

  function draw(canvas, text, width = 32) {
    const height = Math.max(1, Math.min(4096, Math.round(width / 2 ** (decode(text).aspect / 12))));
    canvas.width = width;
    canvas.height = height;
    canvas.getContext("2d").putImageData(new ImageData(pixels(text, width, height), width, height), 0, 0);
  }

  return { decode, pixels, draw };
})();

if (typeof module !== "undefined") module.exports = Placeholder;
if (typeof document !== "undefined")
  document.addEventListener("DOMContentLoaded", () => {
    for (const canvas of document.querySelectorAll("canvas[data-placeholder]"))
      try {
        Placeholder.draw(canvas, canvas.dataset.placeholder, Number(canvas.dataset.width) || 32);
      } catch (error) {
        console.warn(error.message); // the canvas stays empty
      }
  });
