"""The embedded corpus: English sentences and their Italian translations, written by a small bilingual grammar.

One lexicon and a handful of rules build a sentence in both languages at once, so every translation is exact, and no English
sentence has two. The rules are those that make translation hard to do word by word: agreement in gender and number, adjectives
that change places, articles that follow the next word's sound, dropped subjects, pronouns that jump before the verb, and
*i like the cats*, which in Italian is *the cats please me*.

Three conventions keep it a function. *You* is one friend (*tu*). Speakers whose gender is not said are masculine (*sono
stanco*), and so are *it* and *them* with nothing to refer to. Text is lower-case, without a full stop.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product
from typing import NamedTuple

Pair = tuple[str, str]  # an adjective or a verb, and the noun it goes with: what the compositional split holds out

# The lexicon ----------------------------------------------------------------------------------------------------------
# Tags say what makes sense together: an adjective or a verb takes the nouns that share one of its tags.

NOUNS = """
man men           | uomo uomini         | m | person adult
woman women       | donna donne         | f | person adult
boy boys          | ragazzo ragazzi     | m | person
girl girls        | ragazza ragazze     | f | person
child children    | bambino bambini     | m | person
student students  | studente studenti   | m | person adult
cat cats          | gatto gatti         | m | animal pet
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

# I, you, he or she, we, they; who does it; to what.
VERBS = """
love / loves         | amo ami ama amiamo amano                          | person animal | person animal place
see / sees           | vedo vedi vede vediamo vedono                     | person animal | person animal small painted place
eat / eats           | mangio mangi mangia mangiamo mangiano             | person animal | food
read / reads         | leggo leggi legge leggiamo leggono                | person        | text
buy / buys           | compro compri compra compriamo comprano           | person        | pet small painted
want / wants         | voglio vuoi vuole vogliamo vogliono               | person        | pet small painted
wait for / waits for | aspetto aspetti aspetta aspettiamo aspettano      | person animal | person
have / has           | ho hai ha abbiamo hanno                           | person        | animal small painted place
sleep / sleeps       | dormo dormi dorme dormiamo dormono                | person animal | -
be / is              | sono sei è siamo sono                             | person animal | -
"""

# Who does the first to something may then do the second: "i see the apple and eat it".
SEQUENCES = {"see": ("love", "eat", "read", "buy", "want", "wait for"), "buy": ("eat", "read"), "want": ("buy",)}

PLACES = {
    "on": {"person": "mat chair bed", "pet": "mat table chair bed car tree", "fruit": "tree",
           "small": "mat table chair bed box backpack"},
    "in": {"person": "house garden car bed", "animal": "house garden", "pet": "car box",
           "small": "house car box backpack", "furniture": "house garden"},
    "under": {"person": "tree", "animal": "tree", "pet": "table chair bed car", "small": "table chair bed tree"},
    "behind": {"person": "house tree car", "animal": "house tree car", "small": "chair bed box", "furniture": "house"},
}  # fmt: skip

PERSONS = ("1s", "2s", "3s", "1p", "3p")
# Person, gender, and "to me", which is how Italian says who likes something.
SUBJECTS = {"i": ("1s", "m", "mi"), "you": ("2s", "m", "ti"), "he": ("3s", "m", "gli"), "she": ("3s", "f", "le"),
            "we": ("1p", "m", "ci"), "they": ("3p", "m", "a loro")}  # fmt: skip
OBJECTS = {"me": ("1s", "mi"), "you": ("2s", "ti"), "him": ("3s", "lo"), "her": ("3s", "la"), "it": ("3s", "lo"),
           "us": ("1p", "ci"), "them": ("3p", "li")}  # fmt: skip
NAMES = {"sara": "f", "maria": "f", "luca": "m", "marco": "m"}
# Whose objects are not "the", "a", "my" or "two".
DETERMINERS = {"love": "the my your", "have": "a two three many"}
COUPLES = {("sara", "maria"): "f", ("luca", "marco"): "m", ("maria", "luca"): "m"}  # one man makes it masculine

POSSESSIVES = {"my": ("mio", "mia", "miei", "mie"), "your": ("tuo", "tua", "tuoi", "tue")}
QUANTITIES = {"two": ("due", "due"), "three": ("tre", "tre"), "many": ("molti", "molte"), "no": ("", "")}
ARTICLES = {  # gender and number, then the sound that follows
    "ms": {"plain": "il", "hard": "lo", "vowel": "l'"}, "fs": {"plain": "la", "hard": "la", "vowel": "l'"},
    "mp": {"plain": "i", "hard": "gli", "vowel": "gli"}, "fp": {"plain": "le", "hard": "le", "vowel": "le"},
}  # fmt: skip
INDEFINITE = {
    "ms": {"plain": "un", "hard": "uno", "vowel": "un"}, "fs": {"plain": "una", "hard": "una", "vowel": "un'"},
}  # fmt: skip
FORMS = ("ms", "fs", "mp", "fp")
CLITICS = {"ms": "lo", "fs": "la", "mp": "li", "fp": "le"}
MELTING = {"on": "su", "in": "ne", "to": "a"}
PREPOSITIONS = {"under": "sotto", "behind": "dietro"}


class Noun(NamedTuple):
    en: tuple[str, ...]  # singular, plural
    it: tuple[str, ...]
    gender: str
    tags: frozenset[str]


class Adjective(NamedTuple):
    en: str
    it: dict[str, str]  # by form
    position: str
    tags: frozenset[str]


class Verb(NamedTuple):
    en: tuple[str, str]  # base, third person singular
    it: dict[str, str]  # by person
    subjects: frozenset[str]
    objects: frozenset[str]


class Phrase(NamedTuple):
    """A subject, an object or a place in both languages, with all that other words must agree with."""

    en: str
    it: str
    form: str  # gender and number
    person: str
    tags: frozenset[str]
    nouns: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()
    article: str = ""  # the definite article that `it` starts with, and what follows it: prepositions melt with the one
    bare: str = ""


class Sentence(NamedTuple):
    """A sentence, its translation, the construction it shows and the combinations of words in it."""

    en: str
    it: str
    construction: str
    pairs: tuple[Pair, ...]


class Splits(NamedTuple):
    """English-Italian pairs for training, validation, test, and a test on combinations never seen in the other three."""

    train: list[tuple[str, str]]
    val: list[tuple[str, str]]
    test: list[tuple[str, str]]
    compositional: list[tuple[str, str]]


def _rows(table: str) -> Iterator[list[str]]:
    for line in table.strip().splitlines():
        yield [cell.strip() for cell in line.split("|")]


def _tags(cell: str) -> frozenset[str]:
    return frozenset(cell.split())


LEXICON = [Noun(tuple(en.split()), tuple(it.split()), g, _tags(tags)) for en, it, g, tags in _rows(NOUNS)]
QUALITIES = [
    Adjective(en, dict(zip(FORMS, it.split(), strict=True)), position, _tags(tags))
    for en, it, position, tags in _rows(ADJECTIVES)
]
ACTIONS = {
    en.split(" / ")[0]: Verb(tuple(en.split(" / ")), dict(zip(PERSONS, it.split(), strict=True)), _tags(who), _tags(what))
    for en, it, who, what in _rows(VERBS)
}


TAGS = tuple(dict.fromkeys(tag for *_, tags in _rows(NOUNS) for tag in tags.split()))


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
    if preposition in MELTING:
        return join(melt(MELTING[preposition], phrase.article), phrase.bare)
    return join(PREPOSITIONS[preposition], phrase.it)


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


def noun_phrases(determiners: str, most: int = 0, tags: Iterable[str] = (), nouns: str = "") -> list[Phrase]:
    """Return the phrases with these determiners, at most `most` adjectives, and nouns by tag or by name."""
    phrases = []
    for noun, det, number in product(LEXICON, determiners.split(), "sp"):
        wanted = noun.en[0] in nouns.split() or not noun.tags.isdisjoint(tags)
        if not wanted or (det == "a" and number == "p") or (det in QUANTITIES and number == "s"):
            continue
        if det in POSSESSIVES and "person" in noun.tags:
            continue
        fitting = [a for a in QUALITIES if not a.tags.isdisjoint(noun.tags)]
        adjectives = [(), *((a,) for a in fitting if most)]
        if most == 2:
            adjectives += [(a, b) for a, b in product(fitting, repeat=2) if (a.position, b.position) == ("before", "colour")]
        phrases += [noun_phrase(det, chosen, noun, number) for chosen in adjectives]
    return phrases


def pronouns() -> list[Phrase]:
    """Return the subject pronouns, which Italian leaves out."""
    return [Phrase(en, "", g + p[1], p, frozenset({"person"})) for en, (p, g, _) in SUBJECTS.items()]


def names() -> list[Phrase]:
    """Return the people who have a name."""
    return [Phrase(n, n, g + "s", "3s", frozenset({"person"}), (n,), bare=n) for n, g in NAMES.items()]


def couples() -> list[Phrase]:
    """Return two people with names: in Italian one man is enough to make them masculine."""
    people = frozenset({"person"})
    return [
        Phrase(f"{a} and {b}", f"{a} e {b}", g + "p", "3p", people, (a, b), bare=f"{a} e {b}") for (a, b), g in COUPLES.items()
    ]


def subjects(tags: Iterable[str] = ("person", "animal")) -> list[Phrase]:
    """Return short subjects: pronouns, names, and nouns without adjectives."""
    return pronouns() + names() + couples() + noun_phrases("the my", 0, tags)


def places(most: int = 0) -> list[tuple[str, str, Phrase]]:
    """Return every preposition, tag of what can be there, and phrase for the place."""
    return [
        (preposition, tag, place)
        for preposition, there in PLACES.items()
        for tag, nouns in there.items()
        for place in noun_phrases("the my your", most, nouns=nouns)
    ]


def located(things: list[Phrase], most: int = 0) -> Iterator[tuple[Phrase, str, str, tuple[Pair, ...]]]:
    """Yield each thing with the places it can be in, in English and in Italian, and the pairs of words in both."""
    for preposition, tag, place in places(most):
        en, it = f"{preposition} {place.en}", prepositional(preposition, place)
        for thing in things:
            one_thing_in_many = place.form[1] == "p" and thing.form[1] == "s"
            if tag in thing.tags and thing.nouns != place.nouns and not one_thing_in_many:
                yield thing, en, it, thing.pairs + place.pairs


# Clauses: each comes as a statement, a denial and a question ----------------------------------------------------------

Clauses = list[tuple[str, str]]


def italian(subject: str, clitic: str, verb: str, rest: str) -> list[str]:
    """Return the Italian clauses: a pronoun stands before the verb, "non" before both, and a question is only a mark."""
    statement = join(subject, clitic, verb, rest)
    return [statement, join(subject, "non", clitic, verb, rest), statement + "?"]


def do_clauses(subject: Phrase, verb: str, en: str, its: list[str]) -> Clauses:
    """Return clauses of any verb but to be: English denies and asks with "do"."""
    base, third = ACTIONS[verb].en if verb in ACTIONS else (verb, verb + "s")
    do, does = ("does", third) if subject.person == "3s" else ("do", base)
    who = subject.en
    return list(zip((f"{who} {does} {en}", f"{who} {do} not {base} {en}", f"{do} {who} {base} {en}?"), its, strict=True))


def be_clauses(subject: Phrase, en: str, it: str) -> Clauses:
    """Return clauses of the verb to be."""
    who, be = subject.en, {"1s": "am", "3s": "is"}.get(subject.person, "are")
    its = italian(subject.it, "", ACTIONS["be"].it[subject.person], it)
    return list(zip((f"{who} {be} {en}", f"{who} {be} not {en}", f"{be} {who} {en}?"), its, strict=True))


# Constructions: each yields English, Italian and the pairs of words whose combination can be held out -----------------

Pairs = Iterator[tuple[str, str, tuple[Pair, ...]]]


def phrases() -> Pairs:
    """the big red house → la grande casa rossa"""
    for p in noun_phrases("the a my your two three many", 2, TAGS):
        yield p.en, p.it, p.pairs


def descriptions() -> Pairs:
    """the girls are very tired → le ragazze sono molto stanche"""
    before = {a.en for a in QUALITIES if a.position == "before"}
    everyone = pronouns() + names() + couples() + noun_phrases("the my your", 1, TAGS)
    for s, adj in product(everyone, QUALITIES):
        clash = s.pairs and (s.pairs[0][0] not in before or adj.en in before)  # "the small house is big"
        if clash or s.tags.isdisjoint(adj.tags):
            continue
        pairs = s.pairs + tuple((adj.en, noun) for noun in s.nouns)
        for very, molto in [("", ""), ("very", "molto")][: 1 if adj.position == "colour" else 2]:
            for en, it in be_clauses(s, join(very, adj.en), join(molto, adj.it[s.form])):
                yield en, it, pairs


def locations() -> Pairs:
    """the cat is on the mat → il gatto è sul tappeto"""
    for thing, en_place, it_place, pairs in located(subjects() + noun_phrases("the my your", 0, ("small", "furniture")), 1):
        for en, it in be_clauses(thing, en_place, it_place):
            yield en, it, pairs


def existence() -> Pairs:
    """there is a cat on the mat → c'è un gatto sul tappeto"""
    for thing, en, it, pairs in located(noun_phrases("a two three many no", 1, ("person", "animal", "small", "furniture"))):
        be, there = ("is", "c'è") if thing.form[1] == "s" else ("are", "ci sono")
        if thing.en.startswith("no "):
            yield f"there are {thing.en} {en}", f"non ci sono {thing.it} {it}", pairs
        else:
            yield f"there {be} {thing.en} {en}", f"{there} {thing.it} {it}", pairs
            yield f"{be} there {thing.en} {en}?", f"{there} {thing.it} {it}?", pairs


def actions() -> Pairs:
    """does the girl read the interesting book? → la ragazza legge il libro interessante?"""
    for name in ("see", "eat", "read", "buy", "want", "wait for", "love", "have"):
        verb = ACTIONS[name]
        objects = noun_phrases(DETERMINERS.get(name, "the a my two"), 1, verb.objects)
        objects += names() if "person" in verb.objects else []
        for s, o in product(subjects(verb.subjects), objects):
            if set(s.nouns).isdisjoint(o.nouns):
                pairs = o.pairs + tuple((name, noun) for noun in o.nouns)
                for en, it in do_clauses(s, name, o.en, italian(s.it, "", verb.it[s.person], o.it)):
                    yield en, it, pairs


def pronoun_objects() -> Pairs:
    """i love you very much → ti amo molto"""
    for name, s, (o, (person, clitic)) in product(ACTIONS, subjects(), OBJECTS.items()):
        verb = ACTIONS[name]
        himself = s.person[0] == person[0] != "3"
        fits = "person" in verb.objects or (o in ("it", "them") and name != "have")
        if himself or not fits or not verb.objects or s.tags.isdisjoint(verb.subjects):
            continue
        for very_much, molto in [("", ""), (" very much", "molto")][: 2 if name == "love" else 1]:
            for en, it in do_clauses(s, name, o + very_much, italian(s.it, clitic, verb.it[s.person], molto)):
                yield en, it, ()


def likes() -> Pairs:
    """sara likes the cats → a sara piacciono i gatti"""
    for s, o in product(subjects(("person",)), noun_phrases("the my your", 1, TAGS) + names()):
        if not set(s.nouns).isdisjoint(o.nouns):
            continue
        to_me = SUBJECTS[s.en][2] if s.en in SUBJECTS else prepositional("to", s)
        before, clitic = (to_me, "") if " " in to_me or s.nouns else ("", to_me)  # only a clitic follows "non"
        pleases = "piace" if o.form[1] == "s" else "piacciono"
        pairs = o.pairs + tuple(("like", noun) for noun in o.nouns)
        for very_much, molto in [("", ""), (" very much", "molto")]:
            for en, it in do_clauses(s, "like", o.en + very_much, italian(before, clitic, pleases, join(molto, o.it))):
                yield en, it, pairs


def sleeping() -> Pairs:
    """does the duck sleep under the tree? → l'anatra dorme sotto l'albero?"""
    for s, en_place, it_place, pairs in located(subjects(), 1):
        its = italian(s.it, "", ACTIONS["sleep"].it[s.person], it_place)
        for en, it in do_clauses(s, "sleep", en_place, its):
            yield en, it, pairs


def sequences() -> Pairs:
    """she sees the red apples and eats them → vede le mele rosse e le mangia"""
    for first, seconds in SEQUENCES.items():
        for second, s in product(seconds, subjects()):
            one, two = ACTIONS[first], ACTIONS[second]
            if s.tags.isdisjoint(one.subjects) or s.tags.isdisjoint(two.subjects):
                continue
            en, en_too, en_not = (first, second, f"do not {second}")
            if s.person == "3s":
                en, en_too, en_not = (one.en[1], two.en[1], f"does not {second}")
            it, it_too = one.it[s.person], two.it[s.person]
            for o in noun_phrases("the a my two", 1, one.objects & two.objects):
                if s.nouns == o.nouns:
                    continue
                them = "them" if o.form[1] == "p" else ("her" if o.form == "fs" else "him") if "person" in o.tags else "it"
                clitic = CLITICS[o.form]
                pairs = (*o.pairs, (first, o.nouns[0]), (second, o.nouns[0]))
                en_start, it_start = f"{s.en} {en} {o.en}", join(s.it, it, o.it)
                also = f"{en_too} {them}"
                yield f"{en_start} and {also}", join(it_start, "e", clitic, it_too), pairs
                yield f"{en_start} but {en_not} {them}", join(it_start, "ma non", clitic, it_too), pairs


CONSTRUCTIONS = (
    phrases, descriptions, locations, existence, actions, pronoun_objects, likes, sleeping, sequences,
)  # fmt: skip


def sentences() -> Iterator[Sentence]:
    """Yield every sentence of the grammar once, construction by construction."""
    for construction in CONSTRUCTIONS:
        for en, it, pairs in construction():
            yield Sentence(en, it, construction.__name__, pairs)
