// What on a page can hardly be read, or has no name; evaluates to a list of texts.
() => {
  const channel = (value) => {
    const part = value / 255;
    return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  };
  const parse = (text) => {
    const parts = (text.match(/[\d.]+/g) || []).map(Number);
    return text.startsWith("color(srgb ") ? parts.map((part, place) => (place < 3 ? part * 255 : part)) : parts;
  };
  const lightness = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const over = (under, [r, g, b, a]) => [r, g, b].map((part, place) => part * a + under[place] * (1 - a));

  function behind(element) {
    const layers = [];
    for (let one = element; one; one = one.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(one).backgroundColor);
      if (a > 0) layers.push([r, g, b, a]);
      if (a === 1) break;
    }
    return layers.reverse().reduce(over, [255, 255, 255]);
  }

  function contrast(element) {
    const colour = parse(getComputedStyle(element).color);
    const [r, g, b, a = 1] = colour;
    const under = behind(element);
    const [more, less] = [over(under, [r, g, b, a]), under].map(lightness).sort((one, other) => other - one);
    return (more + 0.05) / (less + 0.05);
  }

  const found = new Set();
  const apart = "svg, script, style, template, .skip, .visually-hidden, .modal";
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    if (!text || element.closest(apart) || !element.checkVisibility()) continue;
    const ratio = contrast(element);
    // WCAG 2, level AA.
    if (ratio < 4.5) found.add(`${element.tagName}.${element.className} ${ratio.toFixed(1)}: ${text.slice(0, 30)}`);
  }
  for (const one of document.querySelectorAll("a, button, input:not([type=hidden]), select, textarea, [tabindex='0']")) {
    if (!one.checkVisibility() || one.closest(".modal")) continue;
    const name = one.textContent.trim() || one.getAttribute("aria-label") || one.title || (one.labels || []).length;
    if (!name) found.add(`no name: ${one.outerHTML.slice(0, 100)}`);
  }
  if (document.documentElement.scrollWidth > window.innerWidth) found.add("wider than the window");
  return [...found];
}
