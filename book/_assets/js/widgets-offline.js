// Saved Jupyter widgets without a kernel and without a network. Loaded between require.js and embed-amd.js.
(function () {
  "use strict";

  // Modules and fonts come from our own folder, whatever page asks for them.
  requirejs.config({ baseUrl: new URL("../vendor/", document.currentScript.src).href });

  // noUiSlider's handles are focusable but nameless: give each the text of its widget's label.
  function nameHandles() {
    document.querySelectorAll(".noUi-handle:not([aria-label])").forEach(function (handle) {
      var widget = handle.closest(".jupyter-widgets");
      var label = widget && widget.querySelector(".widget-label");
      if (label) handle.setAttribute("aria-label", label.textContent);
    });
  }

  window.addEventListener("load", function () {
    // The widget manager speaks to MathJax 2; the book has MathJax 3, whose word for the same request is typesetPromise.
    var mathjax = window.MathJax;
    if (mathjax && mathjax.startup && !mathjax.Hub) {
      mathjax.Hub = {
        Queue: function (request) {
          mathjax.startup.promise.then(function () { return mathjax.typesetPromise([request[2]]); });
        }
      };
    }
    nameHandles();
    new MutationObserver(nameHandles).observe(document.body, { childList: true, subtree: true });
  });
})();
