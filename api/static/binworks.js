// What the page does beyond links and forms: a chart that grows, a sign that the line is open, buttons that copy.
// Everything else is HTML that the server has made; see templates/ and page_live.py.
"use strict";

(() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const short = (value) => {
    for (const [size, prefix] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
      if (Math.abs(value) >= size) return `${+(value / size).toPrecision(3)}${prefix}`;
    }
    return `${+value.toPrecision(3)}`;
  };

  const clock = (self, ticks, axis, space, step) => ticks.map((tick) => {
    const time = new Date(1000 * tick).toISOString();  // in UTC, as everywhere on the page
    return step >= 86400 ? time.slice(5, 10) : step >= 60 ? time.slice(11, 16) : time.slice(11, 19);
  });

  function chart(place) {
    const points = JSON.parse(document.getElementById(place.dataset.points).textContent);
    const data = [points.map((point) => point[0]), points.map((point) => point[1])];
    let plot = null;

    function draw() {
      if (data[0].length < 2) return;
      if (plot) plot.destroy();
      place.replaceChildren();
      const quiet = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
      plot = new uPlot({
        width: place.clientWidth, height: place.clientHeight, legend: { show: false }, cursor: { y: false },
        scales: { y: { range: (self, low, high) => [0, high > 0 ? 1.1 * high : 1] } },
        axes: [{ ...quiet, size: 28, values: clock }, { ...quiet, size: 58, values: (self, ticks) => ticks.map(short) }],
        series: [{}, { label: "events/s", stroke: colour("--accent"), width: 1.5, fill: colour("--busy-soft"), points: { show: false } }],
      }, data, place);
      const canvas = place.querySelector("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `Events per second over time, now ${short(data[1].at(-1))}`);
    }

    place.addEventListener("htmx:sseBeforeMessage", (event) => {
      event.preventDefault();  // it is a point, no HTML
      const [time, rate] = JSON.parse(event.detail.data);
      if (data[0].length && time <= data[0].at(-1)) return;
      data[0].push(time);
      data[1].push(rate);
      if (plot) plot.setData(data); else draw();
    });
    new ResizeObserver(() => plot && plot.setSize({ width: place.clientWidth, height: place.clientHeight })).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    draw();
  }

  addEventListener("pageshow", (event) => event.persisted && location.reload());

  function tellLine(sign) {
    const say = (word, text) => { sign.className = `live ${word}`; sign.textContent = text; };
    document.body.addEventListener("htmx:sseOpen", (event) => {
      say("on", "live");
      // a page that the browser keeps for the way back would hold its line, and there are few
      addEventListener("pagehide", () => event.detail.source.close());
    });
    document.body.addEventListener("htmx:sseError", () => say("off", "connecting…"));
    document.body.addEventListener("htmx:sseClose", () => say("", ""));
  }

  function copyable(block) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    const title = document.getElementById(block.getAttribute("aria-labelledby"));
    button.setAttribute("aria-label", `Copy: ${title.textContent}`);
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    title.append(button);
  }

  document.addEventListener("DOMContentLoaded", () => {
    const sign = document.getElementById("live");
    if (sign) tellLine(sign);
    document.querySelectorAll("[data-points]").forEach(chart);
    if (navigator.clipboard) document.querySelectorAll(".snippets pre").forEach(copyable);
  });
})();
