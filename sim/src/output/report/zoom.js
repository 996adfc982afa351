// Stretches the time line: buttons, or the wheel with Ctrl. Everything on it is placed in shares of its width.
(() => {
  const view = document.getElementById("time");
  const picture = view && view.querySelector("svg");
  if (!picture) return;
  let zoom = 1;
  const stretch = (factor, at) => {
    const before = picture.getBoundingClientRect();
    const x = at ?? view.getBoundingClientRect().left + view.clientWidth / 2;
    const share = (x - before.left) / before.width;
    zoom = Math.min(Math.max(zoom * factor, 1), 400);
    picture.style.width = zoom * 100 + "%";
    picture.classList.toggle("near", zoom >= 4);
    picture.classList.toggle("close", zoom >= 20);
    const after = picture.getBoundingClientRect();
    view.scrollLeft += after.left + share * after.width - x;
  };
  const bar = document.createElement("p");
  bar.className = "zoom";
  for (const [words, factor] of [["+", 2], ["\u2212", 0.5], ["whole run", 0]]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = words;
    button.setAttribute("aria-label", words === "+" ? "stretch" : words === "\u2212" ? "shrink" : words);
    button.onclick = () => stretch(factor || 1 / zoom);
    bar.append(button);
  }
  view.parentElement.before(bar);
  view.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    stretch(event.deltaY < 0 ? 1.25 : 0.8, event.clientX);
  }, { passive: false });
})();
