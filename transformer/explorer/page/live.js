// The live page: type a sentence, and watch the model translate it.

const FRAME = 420; // milliseconds that a step is shown while the model writes
const form = document.querySelector(".ask");
const say = (text, problem = false) => {
  const status = form.querySelector(".status");
  status.textContent = text;
  status.classList.toggle("problem", problem);
};
const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

const live = createExplorer(
  document.querySelector(".explorer"),
  JSON.parse(document.getElementById("translation").textContent),
);

// Why a text cannot be translated, as the library says it; "" if it can.
function problemOf(model, text, ids) {
  const { tokenizer, config } = model;
  if (!text) return "There is nothing to translate.";
  const empty = new Set([tokenizer.unknown, tokenizer.ids.get(SPACE)]);
  if (ids.every((id) => empty.has(id))) return "The vocabulary knows no character of this.";
  if (ids.length >= config.max_len) return "This is too long for the model: split it.";
  return "";
}

// Translate at once, without the views; the tests compare this with the library.
async function translateLive(model, text, beamSize = 5) {
  let last = null;
  for await (const step of searchLive(model, cleanText(text), beamSize)) last = step;
  return last.data.target;
}

async function follow(model, text, beamSize) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const start = performance.now();
  let shown = 0;
  for await (const { done, data } of searchLive(model, text, beamSize)) {
    shown += 1;
    live.show(data, { filming: !done });
    say(done ? "" : `Step ${shown}: “${data.target.text}”`);
    if (!done && !calm) await wait(FRAME);
  }
  const steps = `${plural(live.data.steps.length, "token")} in ${plural(shown, "step")}`;
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  say(`${steps}, ${seconds} s with pauses to watch. Nothing has left this machine.`);
}

async function answer(model) {
  const text = cleanText(form.elements.sentence.value);
  const problem = problemOf(model, text, model.tokenizer.encode(text));
  if (problem) {
    say(problem, true);
    return;
  }
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    await follow(model, text, +form.elements.beam.value);
  } catch (error) {
    say(`The model stopped: ${error.message}`, true);
  } finally {
    button.disabled = false;
  }
}

async function startLive() {
  form.addEventListener("submit", (event) => event.preventDefault());
  if (location.protocol === "file:") {
    say(
      "Opened as a file, this page shows a recorded translation only: a browser loads no model from " +
        "a folder. Serve it, for example with: python -m http.server",
      true,
    );
    return;
  }
  try {
    const model = await LiveModel.load();
    form.addEventListener("submit", () => answer(model));
    form.querySelector("button").disabled = false;
    window.liveTranslator = {
      encode: (text) => model.tokenizer.encode(cleanText(text)),
      translate: (text, beamSize) => translateLive(model, text, beamSize),
    };
    say("Ready. The model runs here, in your browser.");
  } catch (error) {
    say(`The model could not be loaded: ${error.message}`, true);
  }
}

startLive();
