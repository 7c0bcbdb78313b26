// Shows the studies that a search or a filter asks for; without it all of them are shown.
(function () {
  "use strict";
  const form = document.querySelector(".filter");
  const studies = Array.from(document.querySelectorAll(".study"));
  if (!form || studies.length < 2) return;
  const [search, found, said] = ["input", "select", "[role=status]"].map((s) => form.querySelector(s));
  function show() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    studies.forEach((study) => {
      const fits = words.every((word) => study.dataset.words.includes(word))
        && (!found.value || study.dataset.found.split(" ").includes(found.value));
      study.hidden = !fits;
      shown += fits ? 1 : 0;
    });
    said.textContent = shown === studies.length ? "" : `${shown} of ${studies.length} studies`;
  }
  form.hidden = false;
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
})();
