"use strict";

// Tables: a click on a title sorts by this column, another one the other way round. Empty cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const titles = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    const number = cell.dataset.value;
    return number === undefined ? cell.textContent : number === "inf" ? Infinity : Number(number);
  };
  const compare = (a, b) => (typeof a === "string" || typeof b === "string" ? String(a).localeCompare(String(b), undefined, { numeric: true }) : a - b);
  titles.forEach((title, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = title.textContent;
    title.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = title.getAttribute("aria-sort") !== "ascending";
      for (const other of titles) other.removeAttribute("aria-sort");
      title.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      const empty = (row) => row.cells[column].textContent === "";
      rows.sort((a, b) => empty(a) - empty(b) || (up ? 1 : -1) * compare(value(a, column), value(b, column)));
      table.tBodies[0].replaceChildren(...rows);
    });
  });
}

// Pictures of a file: one over another, cut at a slider, enlarged together.
for (const views of document.querySelectorAll(".pictures")) {
  const figures = [...views.querySelectorAll("figure")];
  if (figures.length < 2) continue;
  const element = (name, kind = "", text = "") => Object.assign(document.createElement(name), { className: kind, textContent: text });
  const compare = element("div", "compare"), controls = element("div", "controls");
  const stage = element("div", "stage"), sheet = element("div", "sheet"), handle = element("div", "handle");
  const captions = element("div", "captions");
  const sides = ["left", "right"].map((side, n) => {
    const label = element("label", "", `${side} `), select = element("select"), image = new Image();
    const caption = element("p", "note");
    image.alt = "";
    image.draggable = false;
    for (const figure of figures) select.append(element("option", "", figure.querySelector("b").textContent));
    select.selectedIndex = n;
    const show = () => {
      const figure = figures[select.selectedIndex];
      image.src = figure.querySelector("img").src;
      caption.textContent = `${side}: ${figure.querySelector("figcaption").textContent}`;
    };
    select.addEventListener("change", show);
    show();
    label.append(select);
    controls.append(label);
    captions.append(caption);
    sheet.append(image);
    return image;
  });
  const slider = Object.assign(element("input"), { type: "range", min: 0, max: 100, step: 0.1, value: 50 });
  slider.setAttribute("aria-label", "where the left picture ends and the right one begins");
  const cut = () => {
    sides[1].style.clipPath = `inset(0 0 0 ${slider.value}%)`;
    handle.style.left = `${slider.value}%`;
  };
  slider.addEventListener("input", cut);
  const drag = (event) => {
    if (event.type === "pointermove" && event.buttons === 0) return;
    const box = sheet.getBoundingClientRect();
    slider.value = (100 * (event.clientX - box.left)) / box.width;
    cut();
  };
  sheet.addEventListener("pointerdown", drag);
  sheet.addEventListener("pointermove", drag);
  const width = Number(figures[0].querySelector("img").getAttribute("width"));
  const buttons = ["fit", "1x", "2x", "4x", "8x"].map((name) => {
    const button = Object.assign(element("button", "", name), { type: "button" });
    button.addEventListener("click", () => {
      const before = stage.scrollWidth, middle = stage.scrollLeft + stage.clientWidth / 2;
      const height = stage.scrollHeight, center = stage.scrollTop + stage.clientHeight / 2;
      compare.style.maxWidth = name === "fit" ? `${width}px` : "none";
      sheet.style.width = name === "fit" ? "100%" : `${width * parseInt(name)}px`;
      sheet.classList.toggle("enlarged", parseInt(name) > 1);
      stage.scrollLeft = (middle / before) * stage.scrollWidth - stage.clientWidth / 2;
      stage.scrollTop = (center / height) * stage.scrollHeight - stage.clientHeight / 2;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    });
    controls.append(button);
    return button;
  });
  sheet.append(handle);
  stage.append(sheet);
  compare.append(controls, stage, slider, captions);
  const details = views.closest("details");
  details.before(compare);
  details.open = false;
  buttons[0].click();
  cut();
}
