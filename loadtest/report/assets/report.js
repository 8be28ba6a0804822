"use strict";
(() => {
  const { charts, bands, phases } = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const probe = root.appendChild(document.createElement("i"));
  probe.hidden = true;

  // color is the current value of a colour of the style sheet.
  function color(name) {
    probe.style.color = "var(--" + name + ")";
    return getComputedStyle(probe).color;
  }

  // Numbers with units, as in the tables.
  function digits(v) {
    const abs = Math.abs(v);
    return String(Number(v.toFixed(abs < 0.0005 ? 0 : abs < 9.995 ? 2 : abs < 99.95 ? 1 : 0)));
  }
  const grouped = (v) => Math.round(v).toString().replace(/\B(?=(\d{3})+$)/g, ",");
  function scaled(v, steps) {
    let i = 0;
    while (i < steps.length - 1 && Math.abs(v) >= steps[i + 1][0] * 0.9995) i++;
    return digits(v / steps[i][0]) + " " + steps[i][1];
  }
  const text = {
    us: (v) => scaled(v, [[1, "µs"], [1e3, "ms"], [1e6, "s"]]),
    ms: (v) => (Math.abs(v) < 1e4 ? digits(v) + " ms" : digits(v / 1e3) + " s"),
    bytes: (v) => scaled(v, [[1, "B"], [1e3, "kB"], [1e6, "MB"], [1e9, "GB"]]),
    percent: (v) => digits(v) + " %",
    count: grouped,
    rate: (v) => (Math.abs(v) < 100 && v % 1 !== 0 ? digits(v) : grouped(v)),
  };
  // short labels the ticks of an axis.
  function short(unit) {
    if (unit !== "count" && unit !== "rate") return text[unit];
    return (v) => (Math.abs(v) >= 1e6 ? digits(v / 1e6) + " m" : Math.abs(v) >= 1e4 ? digits(v / 1e3) + " k" : text[unit](v));
  }
  function time(s) {
    if (s < 120) return digits(s) + " s";
    const whole = Math.round(s), h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60;
    const two = (n) => String(n).padStart(2, "0");
    return (h > 0 ? h + ":" + two(m) : m) + ":" + two(whole % 60);
  }
  // percentile labels the x of a spectrum, 1 ÷ (1 − percentile).
  function percentile(x) {
    if (x <= 1) return "0 %";
    const nines = Math.max(0, Math.ceil(Math.log10(x) - 2 - 1e-9)) + (Number.isInteger(Math.log10(x)) ? 0 : 1);
    return String(Number((100 - 100 / x).toFixed(Math.min(8, nines)))) + " %";
  }

  const font = (px) => px + "px system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
  const ratio = () => uPlot.pxRatio;

  // drawUnder draws behind the lines: the times of the faults.
  function drawUnder(u) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.fillStyle = color("band");
    for (const b of bands) {
      const left = u.valToPos(b.start_s, "x", true), right = u.valToPos(b.end_s, "x", true);
      ctx.fillRect(left, bbox.top, Math.max(right - left, 2 * ratio()), bbox.height);
    }
    ctx.restore();
  }

  // drawOver draws the letters of the faults and the ends of the phases.
  function drawOver(u) {
    const { ctx, bbox } = u, r = ratio();
    const inside = (x) => x >= bbox.left && x <= bbox.left + bbox.width;
    ctx.save();
    ctx.font = font(11 * r);
    ctx.textBaseline = "bottom";
    ctx.strokeStyle = color("soft");
    ctx.lineWidth = r;
    ctx.setLineDash([2 * r, 3 * r]);
    for (const p of phases.slice(1)) {
      const x = u.valToPos(p.start_s, "x", true);
      if (!inside(x)) continue;
      line(ctx, x, bbox.top, x, bbox.top + bbox.height);
      ctx.fillStyle = color("soft");
      const wide = ctx.measureText(p.name).width;
      ctx.textAlign = x + wide + 4 * r > bbox.left + bbox.width ? "right" : "left";
      ctx.fillText(p.name, x, bbox.top - (bands.length > 0 ? 16 : 2) * r);
    }
    ctx.textAlign = "left";
    ctx.font = "bold " + ctx.font;
    ctx.fillStyle = color("orange");
    let taken = -Infinity; // a letter that would hide another moves right
    for (const b of [...bands].sort((a, b) => a.start_s - b.start_s)) {
      const from = u.valToPos(b.start_s, "x", true);
      if (!inside(from)) continue;
      const x = Math.max(from, taken);
      ctx.fillText(b.letter, x, bbox.top - 2 * r);
      taken = x + ctx.measureText(b.letter).width + 4 * r;
    }
    ctx.restore();
  }

  function line(ctx, x1, y1, x2, y2) {
    ctx.beginPath();
    ctx.moveTo(x1, y1);
    ctx.lineTo(x2, y2);
    ctx.stroke();
  }

  // drawMarks draws the marks.
  function drawMarks(chart) {
    return (u) => {
      const { ctx, bbox } = u, r = ratio();
      ctx.save();
      ctx.font = font(12 * r);
      for (const m of chart.marks) {
        ctx.strokeStyle = ctx.fillStyle = color(m.color);
        ctx.lineWidth = 1.5 * r;
        ctx.setLineDash([5 * r, 4 * r]);
        const at = u.valToPos(m.at, m.axis, true);
        if (m.axis === "x") {
          if (at < bbox.left - 1 || at > bbox.left + bbox.width + 1) continue;
          line(ctx, at, bbox.top - 4 * r, at, bbox.top + bbox.height);
          ctx.textBaseline = "bottom";
          ctx.textAlign = at + ctx.measureText(m.label).width > bbox.left + bbox.width ? "right" : "left";
          ctx.fillText(m.label, at, bbox.top - 4 * r);
        } else {
          if (at < bbox.top || at > bbox.top + bbox.height) continue;
          line(ctx, bbox.left, at, bbox.left + bbox.width, at);
          ctx.textBaseline = "bottom";
          ctx.textAlign = "right";
          ctx.fillText(m.label, bbox.left + bbox.width - 4 * r, at - 2 * r);
        }
      }
      ctx.restore();
    };
  }

  // drawBars draws a histogram: bar i is from x[i] to x[i + 1].
  function drawBars(chart) {
    return (u) => {
      if (!u.series[1].show) return;
      const { ctx } = u, [edges, counts] = u.data, r = ratio();
      const bound = chart.marks[1].at, zero = u.valToPos(0, "y", true);
      ctx.save();
      for (let i = 0; i < edges.length - 1; i++) {
        if (!counts[i]) continue;
        const left = u.valToPos(edges[i], "x", true), right = u.valToPos(edges[i + 1], "x", true);
        const top = Math.min(u.valToPos(counts[i], "y", true), zero - 2 * r);
        ctx.fillStyle = color(edges[i] >= bound || edges[i + 1] <= 0 ? "red" : "green");
        ctx.fillRect(left + r / 2, top, Math.max(right - left - r, r), zero - top);
      }
      ctx.restore();
    };
  }

  // options are the options of uPlot for a chart.
  function options(chart, width) {
    const ink = color("soft"), grid = { stroke: color("grid"), width: 1 }, small = font(12);
    const axis = (more) => ({ stroke: ink, font: small, grid, ticks: { stroke: color("line"), width: 1, size: 4 }, ...more });
    const right = chart.series.find((s) => s.right), left = chart.series.find((s) => !s.right);
    const scales = { x: { time: false }, y: {} };
    // A linear axis begins at zero.
    const from0 = (u, low, high) => [Math.min(0, low ?? 0), (high ?? 0) <= 0 ? 1 : high * 1.08];
    if (chart.log) {
      scales.y = { distr: 3, range: (u, low, high) => (low == null ? [1, 10] : logRange(u, low, high, chart)) };
    } else {
      scales.y = { range: from0 };
    }
    // A logarithmic axis shows only powers of ten.
    const powers = (u, ticks) => ticks.map((v) => (v > 0 && Math.abs(Math.log10(v) - Math.round(Math.log10(v))) < 1e-6 ? v : null));
    const few = chart.log ? { grid: { ...grid, filter: powers }, ticks: { stroke: color("line"), width: 1, size: 4, filter: powers } } : {};
    const axes = [axis({ size: 30 }), axis({ ...few, scale: "y", size: 68, values: (u, ticks) => ticks.map((v) => (v == null ? "" : short(left.unit)(v))) })];
    if (right) {
      scales.right = { range: from0 };
      axes.push(axis({ scale: "right", side: 1, size: 68, grid: { show: false }, values: (u, ticks) => ticks.map((v) => short(right.unit)(v)) }));
    }
    const hooks = { drawClear: [], draw: [] };
    let x = { label: "time", value: (u, v) => (v == null ? "–" : time(v)) };
    if (chart.kind === "time") {
      axes[0].values = (u, ticks) => ticks.map(time);
      scales.x.range = (u, low, high) => [Math.min(0, low), Math.max(high, low + 1)];
      hooks.drawClear.push(drawUnder);
      hooks.draw.push(drawOver);
    } else if (chart.kind === "spectrum") {
      scales.x = { time: false, distr: 3, range: (u, low, high) => [1, Math.max(high, 10)] };
      axes[0].splits = (u) => [1, 2, 4, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8].filter((v) => v <= u.scales.x.max);
      axes[0].filter = (u, splits) => splits;
      axes[0].values = (u, ticks) => ticks.map(percentile);
      x = { label: "percentile", value: (u, v) => (v == null ? "–" : percentile(v)) };
    } else {
      const edges = chart.data[0], width0 = edges[1] - edges[0];
      scales.x.range = () => [Math.min(edges[0], -width0 / 2), Math.max(edges[edges.length - 1], chart.marks[1].at + width0 / 2)];
      axes[0].values = (u, ticks) => ticks.map(text.ms);
      hooks.draw.push(drawBars(chart));
      x = { label: "error", value: (u, v, i, at) => (at == null || at >= edges.length - 1 ? "–" : text.ms(edges[at]) + " to " + text.ms(edges[at + 1])) };
    }
    hooks.draw.push(drawMarks(chart));
    return {
      width, height: chart.kind === "time" ? 190 : 300, padding: [chart.kind === "time" && bands.length > 0 ? 32 : 20, right ? 4 : chart.kind === "time" ? 72 : 26, 0, 0],
      scales, axes, hooks,
      legend: { live: true, markers: { dash: (u, i) => (u.series[i].dash ? "dashed" : "solid") } },
      cursor: {
        y: false,
        drag: { x: chart.kind !== "histogram", y: false },
        ...(chart.kind === "time" && { sync: { key: "time" } }),
        ...(chart.kind === "histogram" && { dataIdx: barAt }),
        points: { show: chart.kind !== "histogram", size: 7 },
      },
      series: [x].concat(chart.series.map((s) => ({
        label: s.label, scale: s.right ? "right" : "y", stroke: color(s.color), width: 1.75, dash: s.dash ? [5, 4] : undefined,
        spanGaps: false, points: { show: chart.kind === "time" && chart.data[0].length < 40, size: 5, fill: color(s.color) },
        paths: chart.kind === "histogram" ? () => null : undefined,
        value: (u, v) => (v == null ? "–" : text[s.unit](v)),
      }))),
    };
  }

  // barAt is the bar under the cursor, not the nearest edge.
  function barAt(u, series, i, x) {
    const edges = u.data[0];
    while (i > 0 && edges[i] > x) i--;
    while (i < edges.length - 2 && edges[i + 1] <= x) i++;
    return Math.min(i, edges.length - 2);
  }

  // logRange are the limits of a logarithmic axis: the values, and a mark near
  // them.
  function logRange(u, low, high, chart) {
    for (const m of chart.marks) if (m.axis === "y" && m.at <= high * 100) high = Math.max(high, m.at * 1.3);
    return [10 ** Math.floor(Math.log10(low)), high <= low ? low * 10 : high * 1.25];
  }

  // keys makes a chart usable without a mouse: arrow keys move the cursor, and
  // labels of the legend are switches.
  function keys(u, box) {
    box.onkeydown = (e) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
      if (e.target !== box || !step) return;
      e.preventDefault();
      const last = u.data[0].length - 1;
      let i = u.cursor.idx == null ? (step > 0 ? 0 : last) : u.cursor.idx + step * (e.shiftKey ? 10 : 1);
      i = Math.max(0, Math.min(last, i));
      u.setCursor({ left: u.valToPos(u.data[0][i], "x") + 0.01, top: u.bbox.height / 2 / ratio() });
    };
    box.onblur = () => u.setCursor({ left: -10, top: -10 });
    u.root.querySelectorAll(".u-legend .u-series").forEach((row, i) => {
      if (i === 0) return; // x
      const name = row.querySelector("th");
      name.tabIndex = 0;
      name.setAttribute("role", "switch");
      name.setAttribute("aria-checked", "true");
      name.title = "show or hide";
      name.onkeydown = (e) => {
        if (e.key !== " " && e.key !== "Enter") return;
        e.preventDefault();
        u.setSeries(i, { show: !u.series[i].show });
      };
    });
    u.hooks.setSeries = [(u, i) => {
      const rows = u.root.querySelectorAll(".u-legend .u-series");
      if (rows[i]) rows[i].querySelector("th").setAttribute("aria-checked", String(u.series[i].show));
    }];
  }

  const drawn = new Map();

  // draw redraws every chart, in the width of its container or the given one.
  function draw(width) {
    for (const chart of charts) {
      const box = document.getElementById("chart-" + chart.id);
      if (!box) continue;
      const old = drawn.get(chart.id), hidden = old ? old.series.map((s) => !s.show) : [];
      if (old) old.destroy();
      const o = options(chart, width || box.clientWidth);
      o.series.forEach((s, i) => { if (i > 0 && hidden[i]) s.show = false; });
      const u = new uPlot(o, chart.data, box);
      keys(u, box);
      drawn.set(chart.id, u);
    }
  }

  draw();
  const again = () => draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  let width = innerWidth, timer;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(timer);
    timer = setTimeout(again, 100);
  });
  addEventListener("beforeprint", () => { root.classList.add("print"); draw(680); });
  addEventListener("afterprint", () => { root.classList.remove("print"); draw(); });
})();
