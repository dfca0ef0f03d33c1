"use strict";
for (const table of document.querySelectorAll("table")) {
  table.querySelectorAll("th button").forEach((button, column) => button.addEventListener("click", () => {
    const head = button.parentElement, body = table.tBodies[0];
    const down = head.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)], [m, n] = [Number(x), Number(y)];
      return x !== "" && y !== "" && !isNaN(m) && !isNaN(n) ? m - n : x.localeCompare(y);
    };
    body.append(...[...body.rows].sort((a, b) => (down ? -1 : 1) * compare(a, b)));
  }));
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((details) => { details.open = true; }));
for (const canvas of document.querySelectorAll(".canvas")) {
  const steps = Number(canvas.dataset.steps), slider = canvas.querySelector("input");
  const button = canvas.querySelector("button"), output = canvas.querySelector("output"), tokens = canvas.querySelectorAll(".t");
  let timer = null;
  const show = (step) => {
    slider.value = step;
    output.textContent = `${step} of ${steps}`;
    for (const token of tokens) {
      const at = Number(token.dataset.step);
      token.classList.toggle("mask", at > step);
      token.classList.toggle("new", at === step && step < steps);
    }
  };
  const stop = () => { clearInterval(timer); timer = null; button.textContent = "▶"; };
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  button.addEventListener("click", () => {
    if (timer !== null) { stop(); return; }
    let step = Number(slider.value) < steps ? Number(slider.value) : 0;
    button.textContent = "⏸";
    show(step);
    timer = setInterval(() => { step += 1; show(step); if (step >= steps) stop(); }, Math.max(40, Math.min(250, 8000 / steps)));
  });
  addEventListener("beforeprint", () => { stop(); show(steps); });
}
