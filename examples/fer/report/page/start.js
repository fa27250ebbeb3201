// Event listeners of the page.

addEventListener("hashchange", show);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !panel.hidden) close();
});
document.addEventListener("click", (event) => {
  const face = event.target.closest("a.face");
  if (face) opener = face;
  const cell = event.target.closest(".confusion button");
  if (cell) showCell(cell);
  const choice = event.target.closest("#legend button");
  if (choice) toggleClass(Number(choice.dataset.class));
});
document.getElementById("color")?.addEventListener("change", paint);
if (maps.length) paint();
drawCharts();
show();
