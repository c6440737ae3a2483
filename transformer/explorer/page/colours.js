// Colours: one ramp for all weights, and the switch between light and dark.

const preference = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : preference.matches;
}

// The colour of a weight from 0 to 1. Lightness in OKLCH is linear in the weight, so equal
// differences look equal, in grey and to the colour-blind too.
function ramp(weight) {
  const bow = 4 * weight * (1 - weight); // 0 at both ends, 1 in the middle
  if (isDark()) {
    const lightness = 0.24 + 0.71 * weight;
    return `oklch(${lightness.toFixed(3)} ${(0.02 + 0.13 * bow + 0.03 * weight).toFixed(3)} 296)`;
  }
  const lightness = 0.975 - 0.675 * weight;
  return `oklch(${lightness.toFixed(3)} ${(0.008 + 0.12 * bow + 0.11 * weight).toFixed(3)} 293)`;
}

// Whether text on this weight's colour should be light.
function wantsLightText(weight) {
  return isDark() ? weight < 0.45 : weight > 0.5;
}

// Let a button switch the theme; `redraw` is called whenever the colours have changed.
function followTheme(button, redraw) {
  const tell = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    redraw();
  };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    tell();
  });
  preference.addEventListener("change", tell);
  tell();
}
