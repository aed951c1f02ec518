"use strict";
// Tables sort by a click or by Enter on a heading; check boxes show and hide a run in every chart.
function valueOf(cell) {
  const number = parseFloat(cell.dataset.value ?? cell.textContent);
  return Number.isNaN(number) ? null : number;
}

function sortBy(table, column, ascending) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const numeric = rows.some((row) => valueOf(row.cells[column]) !== null && row.cells[column].classList.contains("number"));
  rows.sort((one, other) => {
    const [a, b] = [one.cells[column], other.cells[column]];
    if (!numeric) return a.textContent.localeCompare(b.textContent) * (ascending ? 1 : -1);
    const [x, y] = [valueOf(a), valueOf(b)];
    if (x === null || y === null) return (x === null) - (y === null); // what was not measured comes last
    return (x - y) * (ascending ? 1 : -1);
  });
  body.append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    heading.querySelector("button")?.addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sortBy(table, column, ascending);
    });
  });
}

for (const box of document.querySelectorAll("input[data-run]")) {
  box.addEventListener("change", () => {
    for (const part of document.querySelectorAll(`[id$="-run${box.dataset.run}"]`)) part.style.display = box.checked ? "" : "none";
  });
}

for (const group of document.querySelectorAll("[data-layers]")) {
  for (const choice of group.querySelectorAll("input")) {
    choice.addEventListener("change", () => {
      for (const picture of document.querySelectorAll(`[data-layer-of="${group.dataset.layers}"] img`)) {
        picture.hidden = picture.dataset.layer !== choice.value;
      }
    });
  }
}
