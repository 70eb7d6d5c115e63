for (const figure of document.querySelectorAll("figure"))
  offer(figure, "SVG", "Save the chart", () => {
    const link = document.createElement("a");
    const text = new XMLSerializer().serializeToString(figure.querySelector("svg"));
    link.href = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
    link.download = figure.querySelector("strong").textContent.replace(/\W+/g, "-").toLowerCase() + ".svg";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
for (const table of document.querySelectorAll(".table"))
  offer(table.after.bind(table), "Copy", "Copy the table, for a spreadsheet", () =>
    navigator.clipboard.writeText([...table.querySelectorAll("tr")].map(
      (row) => [...row.cells].map((cell) => cell.innerText.trim()).join("\t")).join("\n")));
function offer(place, label, title, act) {
  const button = document.createElement("button");
  Object.assign(button, { textContent: label, title, onclick: act });
  typeof place === "function" ? place(button) : place.append(button);
}
