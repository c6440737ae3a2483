"""The grammar of the embedded corpus: English sentences and their Italian translations.

The rules build a sentence in both languages at once from one lexicon, so every translation is
exact, and no English sentence has two. The rules are those that make a word-by-word translation
fail: agreement in gender and number, adjectives that change places, articles that depend on the
next word's sound, dropped subjects, pronouns that move before the verb, and *i like the cats*,
which in Italian is *the cats please me*.

Three conventions leave one translation for each sentence. *You* is one friend (*tu*). Speakers
whose gender is not said are masculine (*sono stanco*), and so are *it* and *them* with nothing to
refer to. Text is lower-case, without a full stop.
"""

from collections.abc import Iterator
from itertools import product

from transformer.corpora.lexicon import (
    ADJECTIVES,
    ALL_TAGS,
    DETERMINERS,
    OBJECT_PRONOUNS,
    SEQUENCES,
    SUBJECT_PRONOUNS,
    VERBS,
    VERY,
    VERY_MUCH,
    Adjective,
    Verb,
)
from transformer.corpora.phrases import (
    PEOPLE,
    PRONOUNS,
    Phrase,
    WordPair,
    join,
    located,
    noun_phrases,
    object_pronoun,
    prepositional,
    subjects,
)

# English, Italian, and the word pairs in them.
Sentences = Iterator[tuple[str, str, tuple[WordPair, ...]]]


# --- clauses: each comes as a statement, a negation and a question -----------------------------


def english_clauses(subject: Phrase, verb: str, rest: str) -> tuple[str, str, str]:
    """Return the English clauses: every verb but "be" negates and asks with "do"."""
    who = subject.en
    if verb == "be":
        be = {"1s": "am", "3s": "is"}.get(subject.person, "are")
        return f"{who} {be} {rest}", f"{who} {be} not {rest}", f"{be} {who} {rest}?"
    base, third = VERBS[verb].en
    do, does = ("does", third) if subject.person == "3s" else ("do", base)
    return f"{who} {does} {rest}", f"{who} {do} not {base} {rest}", f"{do} {who} {base} {rest}?"


def italian_clauses(subject: str, clitic: str, verb: str, rest: str) -> tuple[str, str, str]:
    """Return the Italian clauses.

    A pronoun stands before the verb, "non" before both, and a question differs only in its mark.
    """
    statement = join(subject, clitic, verb, rest)
    return statement, join(subject, "non", clitic, verb, rest), statement + "?"


def clauses(
    subject: Phrase,
    verb: str,
    en: str,
    it: str,
    pairs: tuple[WordPair, ...] = (),
    clitic: str = "",
) -> Sentences:
    """Yield the clauses of a subject in both languages; `en` and `it` are what follows the verb."""
    italian = italian_clauses(subject.it, clitic, VERBS[verb].it[subject.person], it)
    yield from zip(english_clauses(subject, verb, en), italian, (pairs,) * 3, strict=True)


def with_nouns(word: str, phrase: Phrase) -> tuple[WordPair, ...]:
    """Return the word pairs of a phrase and those of a verb or adjective with its nouns."""
    return phrase.pairs + tuple((word, noun) for noun in phrase.nouns)


# --- constructions -----------------------------------------------------------------------------


def phrases() -> Sentences:
    """Yield noun phrases: the big red house → la grande casa rossa."""
    for phrase in noun_phrases("the a my your two three many", 2, ALL_TAGS):
        yield phrase.en, phrase.it, phrase.pairs


def descriptions() -> Sentences:
    """Yield predicate adjectives: the girls are very tired → le ragazze sono molto stanche."""
    things = PRONOUNS + PEOPLE + noun_phrases("the my your", 1, ALL_TAGS)
    for s, adjective in product(things, ADJECTIVES):
        if s.tags.isdisjoint(adjective.tags) or clash(s, adjective):
            continue
        degrees = VERY[:1] if adjective.position == "colour" else VERY
        for very, molto in degrees:
            en = join(very, adjective.en)
            it = join(molto, adjective.it[s.form])
            yield from clauses(s, "be", en, it, with_nouns(adjective.en, s))


def clash(subject: Phrase, adjective: Adjective) -> bool:
    """Return whether an adjective is too like the subject's own: "the small house is big"."""
    before = {a.en for a in ADJECTIVES if a.position == "before"}
    own = [word for word, _ in subject.pairs]
    return bool(own) and (own[0] not in before or adjective.en in before)


def locations() -> Sentences:
    """Yield where things are: the cat is on the mat → il gatto è sul tappeto."""
    things = subjects("person", "animal") + noun_phrases("the your", 0, ("small", "furniture"))
    for thing, en, it, pairs in located(things, 1):
        yield from clauses(thing, "be", en, it, pairs)


def sleeping() -> Sentences:
    """Yield where someone sleeps: does the duck sleep under the tree? → l'anatra dorme sotto …?"""
    for s, en, it, pairs in located(subjects("person", "animal"), 1):
        yield from clauses(s, "sleep", en, it, pairs)


def existence() -> Sentences:
    """Yield what there is: there is a cat on the mat → c'è un gatto sul tappeto."""
    things = noun_phrases("a two three many no", 1, ("person", "animal", "small", "furniture"))
    for thing, en, it, pairs in located(things):
        be, there = ("is", "c'è") if thing.form[1] == "s" else ("are", "ci sono")
        if thing.en.startswith("no "):
            yield f"there are {thing.en} {en}", f"non ci sono {thing.it} {it}", pairs
        else:
            yield f"there {be} {thing.en} {en}", f"{there} {thing.it} {it}", pairs
            yield f"{be} there {thing.en} {en}?", f"{there} {thing.it} {it}?", pairs


def transitive(who: list[Phrase]) -> Sentences:
    """Yield what these subjects do to the things that suit the verb, never to themselves."""
    for name, determiners in DETERMINERS.items():
        verb = VERBS[name]
        people = PEOPLE if "person" in verb.objects else []
        objects = noun_phrases(determiners, 1, verb.objects) + people
        for s, o in product(who, objects):
            if not s.tags.isdisjoint(verb.subjects) and set(s.nouns).isdisjoint(o.nouns):
                yield from clauses(s, name, o.en, o.it, with_nouns(name, o))


def actions() -> Sentences:
    """Yield actions: does the girl read the book? → la ragazza legge il libro?"""
    yield from transitive(PEOPLE + noun_phrases("the", 0, ("person", "animal")))


def dropped_subjects() -> Sentences:
    """Yield actions of pronouns: we do not have two cars → non abbiamo due macchine."""
    yield from transitive(PRONOUNS)


def pronoun_objects() -> Sentences:
    """Yield actions on pronouns: i love you very much → ti amo molto."""
    who = subjects("person", "animal")
    for name, s, (o, (person, clitic)) in product(DETERMINERS, who, OBJECT_PRONOUNS.items()):
        verb = VERBS[name]
        thing = o in ("it", "them") and name != "have"  # "i have it" would be "ce l'ho"
        suits = "person" in verb.objects or thing
        reflexive = s.person[0] == person[0] != "3"
        if suits and not reflexive and not s.tags.isdisjoint(verb.subjects):
            degrees = VERY_MUCH if name == "love" else VERY_MUCH[:1]
            for very_much, molto in degrees:
                yield from clauses(s, name, join(o, very_much), molto, clitic=clitic)


def likes() -> Sentences:
    """Yield what someone likes: sara likes the cats → a sara piacciono i gatti."""
    for s, o in product(subjects("person"), noun_phrases("the your", 1, ALL_TAGS) + PEOPLE):
        if not set(s.nouns).isdisjoint(o.nouns):
            continue
        to_whom = SUBJECT_PRONOUNS[s.en][2] if s.en in SUBJECT_PRONOUNS else prepositional("to", s)
        is_clitic = not s.nouns and s.en != "they"  # "a loro" is none
        who, clitic = ("", to_whom) if is_clitic else (to_whom, "")
        pleases = VERBS["like"].it[o.person]
        for very_much, molto in VERY_MUCH:
            english = english_clauses(s, "like", join(o.en, very_much))
            italian = italian_clauses(who, clitic, pleases, join(molto, o.it))
            yield from zip(english, italian, (with_nouns("like", o),) * 3, strict=True)


def sequences() -> Sentences:
    """Yield two actions: she sees the apples and eats them → vede le mele e le mangia."""
    objects = {name: noun_phrases("the a", 1, verb.objects) for name, verb in VERBS.items()}
    for (first, seconds), s in product(SEQUENCES.items(), subjects("person", "animal")):
        for second in seconds:
            one = VERBS[first]
            two = VERBS[second]
            if not s.tags.isdisjoint(one.subjects) and not s.tags.isdisjoint(two.subjects):
                yield from sequence(s, one, two, objects[second])


def sequence(s: Phrase, one: Verb, two: Verb, objects: list[Phrase]) -> Sentences:
    """Yield one action followed by another one, or not, on each of the objects."""
    third = s.person == "3s"
    does = "does" if third else "do"
    for o in objects:
        if s.nouns == o.nouns or o.tags.isdisjoint(one.objects):
            continue
        pairs = o.pairs + tuple((verb.en[0], noun) for verb in (one, two) for noun in o.nouns)
        en = f"{s.en} {one.en[third]} {o.en}"
        it = join(s.it, one.it[s.person], o.it)
        them, clitic = object_pronoun(o)
        then = f"{clitic} {two.it[s.person]}"
        yield f"{en} and {two.en[third]} {them}", f"{it} e {then}", pairs
        yield f"{en} but {does} not {two.en[0]} {them}", f"{it} ma non {then}", pairs


CONSTRUCTIONS = (
    phrases,
    descriptions,
    locations,
    sleeping,
    existence,
    actions,
    dropped_subjects,
    pronoun_objects,
    likes,
    sequences,
)


def sentences() -> Iterator[tuple[str, str, str, tuple[WordPair, ...]]]:
    """Yield every sentence once: its construction, English, Italian, and the word pairs in it."""
    for construction in CONSTRUCTIONS:
        for en, it, pairs in construction():
            yield construction.__name__, en, it, pairs
