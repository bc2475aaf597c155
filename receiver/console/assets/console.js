// What the pages do beside showing: actions with their confirmation, rows that lead somewhere, figures that keep up.
(function () {
  "use strict";
  var main = document.getElementById("main");

  if (main.dataset.rowAction && document.getElementById("modal-action")) {
    var manager = new ActionManager(
      "",
      main.dataset.rowAction,
      function (query, element) {
        var row = element.closest("tr");
        query.append("pk", main.dataset.pk || row.data("sa-pk"));
      },
      function (_name, _element, message) { successAlert(message); },
      function (_name, _element, message) {
        dangerAlert(message);
        document.getElementById("alertContainer").scrollIntoView({ block: "center" });
      }
    );
    manager.initNoConfirmationActions();
    manager.initActionModal();
    // A link that does something is a button: the space bar presses it.
    document.addEventListener("keydown", function (event) {
      var item = event.target.closest && event.target.closest("[data-sa-is-row-action]");
      if (item && event.key === " ") { event.preventDefault(); item.click(); }
    });
    // A form in the confirmation is sent with its button, not by the browser.
    document.getElementById("modal-action").addEventListener("submit", function (event) {
      event.preventDefault();
      document.querySelector('[data-sa-action="action-submit"]').click();
    });
  }

  document.querySelectorAll("tr[data-href]").forEach(function (row) {
    row.addEventListener("click", function (event) {
      if (event.target.closest("a, button, input, .dropdown") || String(window.getSelection())) return;
      row.querySelector("a.row-link").click();
    });
  });

  var pulse = document.getElementById("pulse");
  if (pulse) {
    var busy = false;
    var beat = function () {
      if (busy || document.hidden || pulse.contains(document.activeElement)) return;
      busy = true;
      fetch(pulse.dataset.pulse, { headers: { Accept: "text/plain" } })
        .then(function (answer) {
          if (answer.status === 401) { window.location.reload(); return null; }
          return answer.ok ? answer.text() : null;
        })
        .then(function (html) { if (html !== null) pulse.innerHTML = html; })
        .catch(function () { /* the next beat tries again */ })
        .finally(function () { busy = false; });
    };
    setInterval(beat, 5000);
    document.addEventListener("visibilitychange", beat);
  }
})();
