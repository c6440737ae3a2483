// Colours: one ramp for all weights, and the switch between light and dark.

const preference = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : preference.matches;
}

// Linear red, green and blue, from 0 to 1, of a colour in OKLCH. Source: Björn Ottosson 2020, "A
// perceptual color space for image processing".
function linearRgb(lightness, chroma, hue) {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((x) => Math.min(1, Math.max(0, x)));
}

// The colour of a weight from 0 to 1, as linear red, green and blue. Its lightness is linear in the
// weight, so equal differences look equal, in grey and to the colour-blind too.
function linearRamp(weight) {
  const bow = 4 * weight * (1 - weight); // 0 at both ends, 1 in the middle
  return isDark()
    ? linearRgb(0.24 + 0.71 * weight, 0.02 + 0.13 * bow + 0.02 * weight, 296)
    : linearRgb(0.975 - 0.675 * weight, 0.008 + 0.12 * bow + 0.11 * weight, 293);
}

function ramp(weight) {
  const coded = (x) => (x <= 0.0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - 0.055);
  return `rgb(${linearRamp(weight).map((x) => Math.round(255 * coded(x))).join(", ")})`;
}

// Black or white, whichever has the larger contrast on this weight's colour: at least 4.5 : 1.
function textOn(weight) {
  const [red, green, blue] = linearRamp(weight);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000000" : "#ffffff";
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
