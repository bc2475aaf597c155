// Before anything is painted: light or dark, as was chosen here, or else as the system has it.
(function () {
  var root = document.documentElement;
  function chosen() {
    try { return localStorage.getItem("billhook-theme"); } catch (_) { return null; }
  }
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function paint() {
    root.setAttribute("data-bs-theme", chosen() || (dark.matches ? "dark" : "light"));
  }
  paint();
  dark.addEventListener("change", paint);
  document.addEventListener("click", function (event) {
    if (!event.target.closest("[data-theme-toggle]")) return;
    var other = root.getAttribute("data-bs-theme") === "dark" ? "light" : "dark";
    try { localStorage.setItem("billhook-theme", other); } catch (_) { /* it holds for this page */ }
    root.setAttribute("data-bs-theme", other);
  });
})();
