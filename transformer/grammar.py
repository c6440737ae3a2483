"""The embedded corpus: English sentences and their Italian translations, written by a small bilingual grammar.

One lexicon and a handful of rules build a sentence in both languages at once, so every translation is exact, and no English
sentence has two. The rules are those that make translation hard to do word by word: agreement in gender and number, adjectives
that change places, articles that follow the next word's sound, dropped subjects, pronouns that jump before the verb, and
*i like the cats*, which in Italian is *the cats please me*.

Three conventions keep it a function. *You* is one friend (*tu*). Speakers whose gender is not said are masculine (*sono
stanco*), and so are *it* and *them* with nothing to refer to. Text is lower-case, without a full stop.
"""

import random
from collections import Counter, namedtuple
from collections.abc import Iterable, Iterator
from itertools import product
from typing import NamedTuple

Pair = tuple[str, str]  # an adjective or a verb, and the noun it goes with: what the compositional split holds out
Made = Iterator[tuple[str, str, tuple[Pair, ...]]]  # English, Italian, and the pairs in them

# The lexicon ----------------------------------------------------------------------------------------------------------
# Tags say what makes sense together: an adjective or a verb takes the nouns that share one of its tags.

NOUNS = """
man men           | uomo uomini         | m | person adult
woman women       | donna donne         | f | person adult
boy boys          | ragazzo ragazzi     | m | person climber
girl girls        | ragazza ragazze     | f | person climber
child children    | bambino bambini     | m | person climber
student students  | studente studenti   | m | person adult
cat cats          | gatto gatti         | m | animal pet climber
dog dogs          | cane cani           | m | animal pet
duck ducks        | anatra anatre       | f | animal pet
donkey donkeys    | asino asini         | m | animal
apple apples      | mela mele           | f | small food fruit
orange oranges    | arancia arance      | f | small food fruit
cake cakes        | torta torte         | f | small food
book books        | libro libri         | m | small text painted
letter letters    | lettera lettere     | f | small text
box boxes         | scatola scatole     | f | small painted
backpack backpacks | zaino zaini        | m | small painted
chair chairs      | sedia sedie         | f | furniture painted
table tables      | tavolo tavoli       | m | furniture painted
bed beds          | letto letti         | m | furniture painted
mat mats          | tappeto tappeti     | m | furniture painted
car cars          | macchina macchine   | f | painted
house houses      | casa case           | f | place painted
garden gardens    | giardino giardini   | m | place
tree trees        | albero alberi       | m | place
"""

# Masculine and feminine singular, then plural; where the adjective stands in Italian; what it can be said of.
ADJECTIVES = """
beautiful   | bello bella belli belle                                 | before | person animal food text painted place
big         | grande grande grandi grandi                             | before | animal food painted place
small       | piccolo piccola piccoli piccole                         | before | animal food painted place
old         | vecchio vecchia vecchi vecchie                          | before | animal text painted place
young       | giovane giovane giovani giovani                         | before | adult animal
red         | rosso rossa rossi rosse                                 | colour | painted fruit
green       | verde verde verdi verdi                                 | colour | painted fruit
blue        | blu blu blu blu                                         | colour | painted
black       | nero nera neri nere                                     | colour | painted animal
tired       | stanco stanca stanchi stanche                           | after  | person animal
happy       | felice felice felici felici                             | after  | person animal
interesting | interessante interessante interessanti interessanti     | after  | text
"""

# What I, you, he or she, we and they do; who does it; to what. (What is liked is the subject of piacere: it pleases.)
VERBS = """
love     | loves     | amo ami ama amiamo amano                     | person animal | person animal place
see      | sees      | vedo vedi vede vediamo vedono                | person animal | person animal small painted place
eat      | eats      | mangio mangi mangia mangiamo mangiano        | person animal | food
read     | reads     | leggo leggi legge leggiamo leggono           | person        | text
buy      | buys      | compro compri compra compriamo comprano      | person        | pet small painted
want     | wants     | voglio vuoi vuole vogliamo vogliono          | person        | pet small painted
wait for | waits for | aspetto aspetti aspetta aspettiamo aspettano | person animal | person
have     | has       | ho hai ha abbiamo hanno                      | person        | animal small painted place
sleep    | sleeps    | dormo dormi dorme dormiamo dormono           | person animal |
like     | likes     | piaccio piaci piace piacciamo piacciono      | person        |
be       | is        | sono sei è siamo sono                        | person animal |
"""
PERSONS = ("1s", "2s", "3s", "1p", "3p")

# The determiners of each verb's objects.
DETERMINERS = {"love": "the my your", "see": "the a", "eat": "the a my", "read": "the a my", "buy": "the a two",
               "want": "the a your", "wait for": "the a", "have": "a two many"}  # fmt: skip
# Who does the first to something may then do the second: "i see the apple and eat it".
SEQUENCES = {"see": ("eat", "read", "buy", "want", "wait for"), "buy": ("eat", "read"), "want": ("buy",)}

# What can be where.
PLACES = {
    "on": {"person": "mat chair", "pet": "mat table chair bed car", "climber": "tree", "fruit": "tree",
           "small": "mat table chair bed box backpack"},
    "in": {"person": "house garden car", "animal": "house garden", "pet": "car box",
           "small": "house car box backpack", "furniture": "house garden"},
    "under": {"person": "tree", "animal": "tree", "pet": "table chair bed car", "small": "table chair bed tree"},
    "behind": {"person": "house tree car", "animal": "house tree car", "small": "chair bed box", "furniture": "house"},
}  # fmt: skip

# Person, gender, and "to me", which is how Italian says who likes something.
SUBJECTS = {"i": ("1s", "m", "mi"), "you": ("2s", "m", "ti"), "he": ("3s", "m", "gli"), "she": ("3s", "f", "le"),
            "we": ("1p", "m", "ci"), "they": ("3p", "m", "a loro")}  # fmt: skip
OBJECTS = {"me": ("1s", "mi"), "you": ("2s", "ti"), "him": ("3s", "lo"), "her": ("3s", "la"), "it": ("3s", "lo"),
           "us": ("1p", "ci"), "them": ("3p", "li")}  # fmt: skip
NAMES = {"sara": "fs", "maria": "fs", "luca": "ms", "marco": "ms",
         "sara and maria": "fp", "luca and marco": "mp", "maria and luca": "mp"}  # fmt: skip
PERSON = frozenset({"person"})

FORMS = ("ms", "fs", "mp", "fp")  # gender and number
POSSESSIVES = {"my": ("mio", "mia", "miei", "mie"), "your": ("tuo", "tua", "tuoi", "tue")}
QUANTITIES = {"two": ("due", "due"), "three": ("tre", "tre"), "many": ("molti", "molte"), "no": ("", "")}
ARTICLES = {  # by form, then by the sound that follows
    "ms": {"plain": "il", "hard": "lo", "vowel": "l'"}, "fs": {"plain": "la", "hard": "la", "vowel": "l'"},
    "mp": {"plain": "i", "hard": "gli", "vowel": "gli"}, "fp": {"plain": "le", "hard": "le", "vowel": "le"},
}  # fmt: skip
INDEFINITE = {
    "ms": {"plain": "un", "hard": "uno", "vowel": "un"}, "fs": {"plain": "una", "hard": "una", "vowel": "un'"},
}  # fmt: skip
CLITICS = {"ms": "lo", "fs": "la", "mp": "li", "fp": "le"}
PREPOSITIONS = {"on": "su", "in": "ne", "to": "a", "under": "sotto", "behind": "dietro"}
VERY = (("", ""), ("very", "molto"))
VERY_MUCH = (("", ""), ("very much", "molto"))


Noun = namedtuple("Noun", "en it gender tags")  # en and it: singular, plural
Adjective = namedtuple("Adjective", "en it position tags")  # it: by form
Verb = namedtuple("Verb", "en it subjects objects")  # en: base, third person; it: by person


class Phrase(NamedTuple):
    """A subject, an object or a place in both languages, with all that other words must agree with."""

    en: str
    it: str
    form: str  # gender and number
    person: str
    tags: frozenset[str]
    nouns: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()
    article: str = ""  # `it` is a definite article, with which a preposition melts, and the bare rest
    bare: str = ""


class Splits(NamedTuple):
    """English-Italian pairs to train on, to validate, to test, and to test on combinations that the others never show."""

    train: list[tuple[str, str]]
    val: list[tuple[str, str]]
    test: list[tuple[str, str]]
    compositional: list[tuple[str, str]]


def _rows(table: str) -> list[list[list[str]]]:
    return [[cell.split() for cell in line.split("|")] for line in table.strip().splitlines()]


LEXICON = [Noun(tuple(en), tuple(it), *gender, frozenset(tags)) for en, it, gender, tags in _rows(NOUNS)]
QUALITIES = [Adjective(*en, dict(zip(FORMS, it)), *where, frozenset(tags)) for en, it, where, tags in _rows(ADJECTIVES)]
ACTIONS = {
    " ".join(en): Verb((" ".join(en), " ".join(third)), dict(zip(PERSONS, it)), frozenset(who), frozenset(what))
    for en, third, it, who, what in _rows(VERBS)
}
PRONOUNS = [Phrase(en, "", gender + p[1], p, PERSON) for en, (p, gender, _) in SUBJECTS.items()]  # Italian drops them
PEOPLE = [
    Phrase(en, it, form, "3" + form[1], PERSON, tuple(en.split(" and ")), bare=it)
    for en, it, form in ((en, en.replace(" and ", " e "), form) for en, form in NAMES.items())
]
TAGS = tuple(dict.fromkeys(tag for *_, tags in _rows(NOUNS) for tag in tags))


# Words that depend on their neighbours --------------------------------------------------------------------------------


def join(*words: str) -> str:
    """Return the words as one text: empty ones dropped, no space after an apostrophe."""
    return " ".join(filter(None, words)).replace("' ", "'")


def sound(word: str) -> str:
    """Return the kind of sound an Italian word begins with, which decides the article before it."""
    if word[0] in "aeiou":
        return "vowel"
    return "hard" if word[0] == "z" or (word[0] == "s" and word[1] not in "aeiou") else "plain"


def melt(stem: str, article: str) -> str:
    """Return a stem and a definite article as one word: su + il = sul, ne + la = nella, a + l' = all', be + gli = begli."""
    if article == "il":
        return stem + "l"
    return stem + ("l" if article.startswith("l") else "") + article


def prepositional(preposition: str, phrase: Phrase) -> str:
    """Return the Italian of an English preposition and a phrase: "on" and "il tappeto" give "sul tappeto"."""
    stem = PREPOSITIONS[preposition]
    if preposition in ("on", "in", "to"):
        return join(melt(stem, phrase.article), phrase.bare)
    return join(stem, phrase.it)


def adjective(adj: Adjective, form: str, following: str = "") -> str:
    """Return an adjective's Italian form; before its noun, bello melts with the article that the noun would have."""
    if following and adj.en == "beautiful":
        return melt("be", ARTICLES[form][sound(following)])
    return adj.it[form]


def determiner(en: str, form: str, following: str) -> tuple[str, str]:
    """Return the Italian definite article, if the determiner has one, and the rest of it: "my" gives "il", "mio"."""
    if en == "the":
        return ARTICLES[form][sound(following)], ""
    if en == "a":
        return "", INDEFINITE[form][sound(following)]
    if en in POSSESSIVES:
        return ARTICLES[form]["plain"], POSSESSIVES[en][FORMS.index(form)]
    return "", QUANTITIES[en][form[0] == "f"]


# Phrases --------------------------------------------------------------------------------------------------------------


def noun_phrase(det: str, adjectives: tuple[Adjective, ...], noun: Noun, number: str) -> Phrase:
    """Return a phrase such as "my old red car", "la mia vecchia macchina rossa"."""
    plural, form = number == "p", noun.gender + number
    word = noun.it[plural]
    before = [adjective(a, form, word) for a in adjectives if a.position == "before"]
    after = [adjective(a, form) for a in adjectives if a.position != "before"]
    article, rest = determiner(det, form, (*before, word)[0])
    bare = join(rest, *before, word, *after)
    en = join(*(a.en for a in adjectives), noun.en[plural])
    en = join("an" if det == "a" and en[0] in "aeiou" else det, en)
    pairs = tuple((a.en, noun.en[0]) for a in adjectives)
    return Phrase(en, join(article, bare), form, "3" + number, noun.tags, noun.en[:1], pairs, article, bare)


def adjective_choices(noun: Noun, most: int) -> Iterator[tuple[Adjective, ...]]:
    """Yield no adjective, each one that fits the noun, and then two on either side of it, as far as `most` goes."""
    fitting = [a for a in QUALITIES if not a.tags.isdisjoint(noun.tags)]
    yield from [(), *((a,) for a in fitting)][: None if most else 1]
    if most == 2:
        yield from (two for two in product(fitting, repeat=2) if [a.position for a in two] == ["before", "colour"])


def noun_phrases(determiners: str, most: int = 0, tags: Iterable[str] = (), nouns: Iterable[str] = ()) -> list[Phrase]:
    """Return the phrases with these determiners, at most `most` adjectives, and nouns by tag or by name."""
    phrases: list[Phrase] = []
    for noun, det, number in product(LEXICON, determiners.split(), "sp"):
        wanted = noun.en[0] in nouns or not noun.tags.isdisjoint(tags)
        counted = det != "a" if number == "p" else det not in QUANTITIES
        possible = det not in POSSESSIVES or "person" not in noun.tags  # people belong to nobody
        if wanted and counted and possible:
            phrases += [noun_phrase(det, adjectives, noun, number) for adjectives in adjective_choices(noun, most)]
    return phrases


def subjects(*tags: str) -> list[Phrase]:
    """Return short subjects: pronouns, names, and nouns without adjectives."""
    return PRONOUNS + PEOPLE + noun_phrases("the", 0, tags)


def located(things: list[Phrase], most: int = 0) -> Iterator[tuple[Phrase, str, str, tuple[Pair, ...]]]:
    """Yield each thing with the places where it can be, in English and in Italian, and the word pairs of both."""
    for preposition, places in PLACES.items():
        for tag, nouns in places.items():
            for place, thing in product(noun_phrases("the my", most, nouns=nouns.split()), things):
                one_in_many = place.form[1] == "p" and thing.form[1] == "s"
                if tag in thing.tags and thing.nouns != place.nouns and not one_in_many:
                    yield (
                        thing,
                        f"{preposition} {place.en}",
                        prepositional(preposition, place),
                        thing.pairs + place.pairs,
                    )


def referring(phrase: Phrase) -> tuple[str, str]:
    """Return the pronoun that stands for a phrase: English asks how many and whether it is a person, Italian its gender."""
    if phrase.form[1] == "p":
        return "them", CLITICS[phrase.form]
    person = "her" if phrase.form == "fs" else "him"
    return person if "person" in phrase.tags else "it", CLITICS[phrase.form]


# Clauses: each comes as a statement, a denial and a question ----------------------------------------------------------


def english(subject: Phrase, verb: str, rest: str) -> tuple[str, str, str]:
    """Return the English clauses: every verb but "be" denies and asks with "do"."""
    who, person = subject.en, subject.person
    if verb == "be":
        be = {"1s": "am", "3s": "is"}.get(person, "are")
        return f"{who} {be} {rest}", f"{who} {be} not {rest}", f"{be} {who} {rest}?"
    base, third = ACTIONS[verb].en
    do, does = ("does", third) if person == "3s" else ("do", base)
    return f"{who} {does} {rest}", f"{who} {do} not {base} {rest}", f"{do} {who} {base} {rest}?"


def italian(subject: str, clitic: str, verb: str, rest: str) -> tuple[str, str, str]:
    """Return the Italian clauses: a pronoun stands before the verb, "non" before both, and a question is only a mark."""
    statement = join(subject, clitic, verb, rest)
    return statement, join(subject, "non", clitic, verb, rest), statement + "?"


def clauses(subject: Phrase, verb: str, en: str, it: str, pairs: tuple[Pair, ...] = (), clitic: str = "") -> Made:
    """Yield what a subject does, in both languages; `en` and `it` are what follows the verb."""
    its = italian(subject.it, clitic, ACTIONS[verb].it[subject.person], it)
    yield from zip(english(subject, verb, en), its, (pairs,) * 3, strict=True)


# Constructions: each yields English, Italian, and the pairs of words in them ------------------------------------------


def phrases() -> Made:
    """the big red house → la grande casa rossa"""
    for phrase in noun_phrases("the a my your two three many", 2, TAGS):
        yield phrase.en, phrase.it, phrase.pairs


def descriptions() -> Made:
    """the girls are very tired → le ragazze sono molto stanche"""
    before = {a.en for a in QUALITIES if a.position == "before"}
    for s, adj in product(PRONOUNS + PEOPLE + noun_phrases("the my your", 1, TAGS), QUALITIES):
        clash = s.pairs and (s.pairs[0][0] not in before or adj.en in before)  # "the small house is big"
        if clash or s.tags.isdisjoint(adj.tags):
            continue
        pairs = s.pairs + tuple((adj.en, noun) for noun in s.nouns)
        for very, molto in VERY[: 1 if adj.position == "colour" else 2]:
            yield from clauses(s, "be", join(very, adj.en), join(molto, adj.it[s.form]), pairs)


def locations() -> Made:
    """the cat is on the mat → il gatto è sul tappeto"""
    for thing, en, it, pairs in located(
        subjects("person", "animal") + noun_phrases("the your", 0, ("small", "furniture")), 1
    ):
        yield from clauses(thing, "be", en, it, pairs)


def sleeping() -> Made:
    """does the duck sleep under the tree? → l'anatra dorme sotto l'albero?"""
    for s, en, it, pairs in located(subjects("person", "animal"), 1):
        yield from clauses(s, "sleep", en, it, pairs)


def existence() -> Made:
    """there is a cat on the mat → c'è un gatto sul tappeto"""
    things = noun_phrases("a two three many no", 1, ("person", "animal", "small", "furniture"))
    for thing, en, it, pairs in located(things):
        be, there = ("is", "c'è") if thing.form[1] == "s" else ("are", "ci sono")
        if thing.en.startswith("no "):
            yield f"there are {thing.en} {en}", f"non ci sono {thing.it} {it}", pairs
        else:
            yield f"there {be} {thing.en} {en}", f"{there} {thing.it} {it}", pairs
            yield f"{be} there {thing.en} {en}?", f"{there} {thing.it} {it}?", pairs


def act(who: list[Phrase]) -> Made:
    """Yield what some subjects do to the things that fit the verb, never to themselves."""
    for name, determiners in DETERMINERS.items():
        verb = ACTIONS[name]
        objects = noun_phrases(determiners, 1, verb.objects) + (PEOPLE if "person" in verb.objects else [])
        for s, o in product(who, objects):
            if not s.tags.isdisjoint(verb.subjects) and set(s.nouns).isdisjoint(o.nouns):
                yield from clauses(s, name, o.en, o.it, o.pairs + tuple((name, noun) for noun in o.nouns))


def actions() -> Made:
    """does the girl read the interesting book? → la ragazza legge il libro interessante?"""
    yield from act(PEOPLE + noun_phrases("the", 0, ("person", "animal")))


def dropped_subjects() -> Made:
    """we do not have two cars → non abbiamo due macchine"""
    yield from act(PRONOUNS)


def pronoun_objects() -> Made:
    """i love you very much → ti amo molto"""
    for name, s, (o, (person, clitic)) in product(DETERMINERS, subjects("person", "animal"), OBJECTS.items()):
        verb = ACTIONS[name]
        fits = "person" in verb.objects or (o in ("it", "them") and name != "have")  # "i have it" is "ce l'ho"
        himself = s.person[0] == person[0] != "3"
        if fits and not himself and not s.tags.isdisjoint(verb.subjects):
            for very_much, molto in VERY_MUCH[: 2 if name == "love" else 1]:
                yield from clauses(s, name, join(o, very_much), molto, clitic=clitic)


def likes() -> Made:
    """sara likes the cats → a sara piacciono i gatti"""
    for s, o in product(subjects("person"), noun_phrases("the your", 1, TAGS) + PEOPLE):
        if not set(s.nouns).isdisjoint(o.nouns):
            continue
        to_me = SUBJECTS[s.en][2] if s.en in SUBJECTS else prepositional("to", s)
        who, clitic = (to_me, "") if s.nouns or s.en == "they" else ("", to_me)  # "a loro" is no clitic
        pleases = ACTIONS["like"].it[o.person]
        pairs = o.pairs + tuple(("like", noun) for noun in o.nouns)
        for very_much, molto in VERY_MUCH:
            its = italian(who, clitic, pleases, join(molto, o.it))
            yield from zip(english(s, "like", join(o.en, very_much)), its, (pairs,) * 3, strict=True)


def sequences() -> Made:
    """she sees the red apples and eats them → vede le mele rosse e le mangia"""
    for (first, seconds), s in product(SEQUENCES.items(), subjects("person", "animal")):
        for one, two in ((ACTIONS[first], ACTIONS[second]) for second in seconds):
            if s.tags.isdisjoint(one.subjects) or s.tags.isdisjoint(two.subjects):
                continue
            third = s.person == "3s"
            does, it_two = "does" if third else "do", two.it[s.person]
            for o in noun_phrases("the a", 1, two.objects):
                pairs = (*o.pairs, *((verb.en[0], noun) for verb in (one, two) for noun in o.nouns))
                en, it = f"{s.en} {one.en[third]} {o.en}", join(s.it, one.it[s.person], o.it)
                them, clitic = referring(o)
                if s.nouns != o.nouns and not o.tags.isdisjoint(one.objects):
                    yield f"{en} and {two.en[third]} {them}", f"{it} e {clitic} {it_two}", pairs
                    yield f"{en} but {does} not {two.en[0]} {them}", f"{it} ma non {clitic} {it_two}", pairs


CONSTRUCTIONS = (phrases, descriptions, locations, sleeping, existence, actions, dropped_subjects, pronoun_objects, likes,
                 sequences)  # fmt: skip


def sentences() -> Iterator[tuple[str, str, str, tuple[Pair, ...]]]:
    """Yield every sentence of the grammar once: its construction, English, Italian, and the pairs of words in it."""
    for construction in CONSTRUCTIONS:
        for en, it, pairs in construction():
            yield construction.__name__, en, it, pairs


# Splits ---------------------------------------------------------------------------------------------------------------


def choose_held_out(pairs: Iterable[Pair], rng: random.Random, most: int = 24) -> set[Pair]:
    """Return at most `most` pairs to hold out, such that no word loses more than a quarter of its partners."""
    pairs = list(pairs)
    left = {word: n // 4 for word, n in Counter(word for pair in pairs for word in pair).items()}
    chosen: set[Pair] = set()
    for word, noun in rng.sample(pairs, len(pairs)):
        if len(chosen) < most and left[word] and left[noun]:
            chosen.add((word, noun))
            left[word], left[noun] = left[word] - 1, left[noun] - 1
    return chosen


def draw_evenly(groups: list[list[tuple[str, str]]], n: int, rng: random.Random) -> list[tuple[str, str]]:
    """Return `n` members in random order, as many from each group as from any other, or all that a small one has."""
    drawn: list[tuple[str, str]] = []
    for i, group in enumerate(sorted(groups, key=len)):
        share = (n - len(drawn)) // (len(groups) - i)
        drawn += rng.sample(group, min(share, len(group)))
    if len(drawn) < n:
        raise ValueError(f"the grammar has {len(drawn):,} such pairs; {n:,} were asked for")
    rng.shuffle(drawn)
    return drawn


def english_italian(seed: int = 0, train: int = 100_000, held_out: int = 1_000) -> Splits:
    """Return `train` pairs to train on and `held_out` pairs in each of the other splits, all different.

    Each compositional sentence has an adjective or a verb with a noun that it meets in no other split, though both words meet
    many others there. The same arguments give the same pairs, in the same order, on every machine.
    Raises ValueError if a number of pairs is negative, or more than the grammar has.
    """
    for name, n in (("train", train), ("held_out", held_out)):
        if not isinstance(n, int) or n < 0:
            raise ValueError(f"{name} must be a whole number of pairs, 0 or more; got {n!r}")
    rng = random.Random(seed)
    universe = [list(construction()) for construction in CONSTRUCTIONS]
    held = choose_held_out(dict.fromkeys(pair for made in universe for *_, pairs in made for pair in pairs), rng)
    seen = [[(en, it) for en, it, pairs in made if held.isdisjoint(pairs)] for made in universe]
    unseen = [[(en, it) for en, it, pairs in made if not held.isdisjoint(pairs)] for made in universe]
    known, new = draw_evenly(seen, train + 2 * held_out, rng), draw_evenly(unseen, held_out, rng)
    return Splits(known[:train], known[train : train + held_out], known[train + held_out :], new)
