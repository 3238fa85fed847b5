// Charts of readings: the mean of each step, between its least and greatest value.
"use strict";
(() => {
  const lengths = { hour: 3600, day: 86400, week: 604800 };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function draw(details, range) {
    const place = details.querySelector(".plot"), caption = details.querySelector("figcaption"), unit = details.dataset.unit;
    fetch(`${details.dataset.series}&range=${range}`, { headers: { Accept: "application/json" } }).then((r) => {
      if (r.status === 401) location.reload();
      if (!r.ok) throw new Error(`status ${r.status}`);
      return r.json();
    }).then((s) => {
      place.replaceChildren();
      if (s.time.length === 0) {
        caption.textContent = "No values in this time.";
        return;
      }
      const show = (v) => `${Number(v.toPrecision(6))}${unit ? " " + unit : ""}`;
      caption.textContent = `Least ${show(Math.min(...s.least))}, greatest ${show(Math.max(...s.most))}, last ${show(s.mean[s.mean.length - 1])}.`;
      const axis = { stroke: colour("--text"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
      const band = { stroke: colour("--line"), width: 1, points: { show: false } };
      new uPlot({
        width: Math.max(place.clientWidth, 280), height: 220, legend: { show: false }, cursor: { y: false },
        scales: { x: { range: () => [Date.now() / 1000 - lengths[range], Date.now() / 1000] } },
        axes: [axis, { ...axis, size: 60 }],
        series: [{}, { stroke: colour("--link"), width: 2 }, band, band],
        bands: [{ series: [3, 2], fill: colour("--soft") }],
      }, [s.time, s.mean, s.least, s.most], place);
    }).catch(() => { caption.textContent = "The values cannot be read now."; });
  }

  for (const details of document.querySelectorAll("details.chart")) {
    const buttons = [...details.querySelectorAll("button[data-range]")];
    const chosen = () => buttons.find((b) => b.getAttribute("aria-pressed") === "true").dataset.range;
    details.addEventListener("toggle", () => { if (details.open) draw(details, chosen()); });
    for (const button of buttons) {
      button.addEventListener("click", () => {
        buttons.forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
        draw(details, chosen());
      });
    }
  }
  const first = document.querySelector("details.chart");
  if (first) first.open = true;
})();
