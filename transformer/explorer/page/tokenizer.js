// The tokenizer: byte-pair encoding as in tokenizer.json, with the same ids as in Python.

const SPACE = "▁"; // stands for the space before a word
// \w of the library's regular expressions: letters, marks, decimal digits, connectors.
const WORD = String.raw`[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]`;
const PIECES = new RegExp(`${SPACE}?${WORD}+|${SPACE}?(?:(?!${WORD})[^${SPACE}])+|${SPACE}`, "gu");

// A text as one line in Unicode's composed form, words separated by one space (texts.clean).
function cleanText(text) {
  const controls = /[\u0000-\u001f\u007f-\u009f]/gu;
  const words = text.toWellFormed().replace(controls, " ").replaceAll("\ufeff", "");
  return words.split(/\s+/u).filter(Boolean).join(" ").normalize("NFC");
}

class BpeTokenizer {
  // `file` is the parsed tokenizer.json.
  constructor(file) {
    this.ids = new Map(Object.entries(file.model.vocab));
    this.tokens = [];
    for (const [token, id] of this.ids) this.tokens[id] = token;
    this.ranks = new Map(file.model.merges.map((pair, rank) => [pair.join(" "), rank]));
    this.unknown = this.ids.get(file.model.unk_token);
    this.special = new Set(file.added_tokens.map((token) => token.id));
    const names = (file.normalizer?.normalizers ?? []).map((each) => each.type);
    this.lowercase = names.includes("Lowercase");
  }

  // The ids of a clean text, without an end.
  encode(text) {
    if (!text) return [];
    let spelled = text.normalize("NFC");
    if (this.lowercase) spelled = [...spelled].map((c) => c.toLowerCase()).join("");
    spelled = spelled.replaceAll(" ", SPACE);
    if (!spelled.startsWith(SPACE)) spelled = SPACE + spelled;
    const words = spelled.split(new RegExp(`(?=${SPACE})`, "u"));
    return words.flatMap((word) => word.match(PIECES) ?? []).flatMap((piece) => this.merge(piece));
  }

  // Join the two neighbours that were merged first in training, again and again.
  merge(piece) {
    const parts = [...piece];
    for (;;) {
      let best = Infinity;
      let place = -1;
      for (let i = 0; i + 1 < parts.length; i += 1) {
        const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
        if (rank < best) [best, place] = [rank, i];
      }
      if (place < 0) return parts.map((part) => this.ids.get(part) ?? this.unknown);
      parts.splice(place, 2, parts[place] + parts[place + 1]);
    }
  }

  token(id) {
    return this.tokens[id] ?? "?";
  }

  // The text of ids, up to the first `end`.
  decode(ids, end) {
    const stop = ids.indexOf(end);
    const body = (stop < 0 ? ids : ids.slice(0, stop)).filter((id) => !this.special.has(id));
    return cleanText(body.map((id) => this.tokens[id]).join("").replaceAll(SPACE, " "));
  }
}
