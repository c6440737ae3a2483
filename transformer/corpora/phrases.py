"""Noun phrases and pronouns in English and Italian, with the agreement that they demand."""

from collections.abc import Iterable, Iterator
from itertools import product
from typing import NamedTuple

from transformer.corpora.lexicon import (
    ADJECTIVES,
    ARTICLES,
    CLITICS,
    FORMS,
    INDEFINITE,
    NAMES,
    NOUNS,
    PLACES,
    POSSESSIVES,
    PREPOSITIONS,
    QUANTITIES,
    SUBJECT_PRONOUNS,
    Adjective,
    Noun,
)

# An adjective or a verb, and the noun that it goes with: what the compositional split holds out.
WordPair = tuple[str, str]

PERSON = frozenset({"person"})


class Phrase(NamedTuple):
    """A subject, an object or a place in both languages, with all that other words agree with."""

    en: str
    it: str
    form: str  # gender and number
    person: str
    tags: frozenset[str]
    nouns: tuple[str, ...] = ()
    pairs: tuple[WordPair, ...] = ()
    article: str = ""  # the definite article of `it`, which contracts with a preposition
    bare: str = ""  # `it` without that article


# --- words that depend on their neighbours -----------------------------------------------------


def join(*words: str) -> str:
    """Return the words as one text: empty ones dropped, no space after an apostrophe."""
    return " ".join(filter(None, words)).replace("' ", "'")


def initial_sound(word: str) -> str:
    """Return how an Italian word begins, which decides the article before it."""
    if word[0] in "aeiou":
        return "vowel"
    if word[0] == "z" or (word[0] == "s" and word[1] not in "aeiou"):
        return "hard"
    return "plain"


def contract(stem: str, article: str) -> str:
    """Return a stem and a definite article as one word.

    su + il = sul, ne + la = nella, a + l' = all', be + gli = begli.
    """
    if article == "il":
        return stem + "l"
    return stem + ("l" if article.startswith("l") else "") + article


def prepositional(preposition: str, phrase: Phrase) -> str:
    """Return the Italian of an English preposition and a phrase: "on" gives "sul tappeto"."""
    stem = PREPOSITIONS[preposition]
    if preposition in ("on", "in", "to"):
        return join(contract(stem, phrase.article), phrase.bare)
    return join(stem, phrase.it)


def inflect(adjective: Adjective, form: str, following: str = "") -> str:
    """Return the Italian form of an adjective; `following` is the noun that it stands before.

    There "bello" has the endings of the article: bel, bell', bei, begli.
    """
    if following and adjective.en == "beautiful":
        return contract("be", ARTICLES[form][initial_sound(following)])
    return adjective.it[form]


def determiner(en: str, form: str, following: str) -> tuple[str, str]:
    """Return an Italian determiner as definite article and rest: "my" is "il" and "mio"."""
    if en == "the":
        return ARTICLES[form][initial_sound(following)], ""
    if en == "a":
        return "", INDEFINITE[form][initial_sound(following)]
    if en in POSSESSIVES:
        return ARTICLES[form]["plain"], POSSESSIVES[en][FORMS.index(form)]
    return "", QUANTITIES[en][form[0] == "f"]


# --- phrases -----------------------------------------------------------------------------------


def noun_phrase(det: str, adjectives: tuple[Adjective, ...], noun: Noun, number: str) -> Phrase:
    """Return a phrase such as "my old red car", "la mia vecchia macchina rossa"."""
    form = noun.gender + number
    en_noun, it_noun = (words[number == "p"] for words in (noun.en, noun.it))
    en_words = join(*(adjective.en for adjective in adjectives), en_noun)
    en_det = "an" if det == "a" and en_words[0] in "aeiou" else det
    before = [inflect(a, form, it_noun) for a in adjectives if a.position == "before"]
    after = [inflect(a, form) for a in adjectives if a.position != "before"]
    article, rest = determiner(det, form, [*before, it_noun][0])
    bare = join(rest, *before, it_noun, *after)
    return Phrase(
        en=join(en_det, en_words),
        it=join(article, bare),
        form=form,
        person="3" + number,
        tags=noun.tags,
        nouns=noun.en[:1],
        pairs=tuple((adjective.en, noun.en[0]) for adjective in adjectives),
        article=article,
        bare=bare,
    )


def adjective_choices(noun: Noun, max_adjectives: int) -> Iterator[tuple[Adjective, ...]]:
    """Yield the choices of at most `max_adjectives` adjectives that suit a noun.

    Of two, one stands before the Italian noun, and a colour after it.
    """
    suitable = [adjective for adjective in ADJECTIVES if not adjective.tags.isdisjoint(noun.tags)]
    yield ()
    if max_adjectives >= 1:
        yield from ((adjective,) for adjective in suitable)
    if max_adjectives >= 2:
        for first, second in product(suitable, repeat=2):
            if first.position == "before" and second.position == "colour":
                yield first, second


def noun_phrases(
    determiners: str,
    max_adjectives: int = 0,
    tags: Iterable[str] = (),
    nouns: Iterable[str] = (),
) -> list[Phrase]:
    """Return the phrases with these determiners, and with nouns by tag or by name."""
    phrases: list[Phrase] = []
    for noun, det, number in product(NOUNS, determiners.split(), "sp"):
        wanted = noun.en[0] in nouns or not noun.tags.isdisjoint(tags)
        counted = det != "a" if number == "p" else det not in QUANTITIES
        possible = det not in POSSESSIVES or "person" not in noun.tags  # people belong to nobody
        if wanted and counted and possible:
            choices = adjective_choices(noun, max_adjectives)
            phrases += [noun_phrase(det, adjectives, noun, number) for adjectives in choices]
    return phrases


# Italian drops the pronoun.
PRONOUNS = [
    Phrase(en, "", gender + person[1], person, PERSON)
    for en, (person, gender, _) in SUBJECT_PRONOUNS.items()
]
PEOPLE = [
    Phrase(en, it, form, "3" + form[1], PERSON, nouns=tuple(en.split(" and ")), bare=it)
    for en, it, form in ((en, en.replace(" and ", " e "), form) for en, form in NAMES.items())
]


def subjects(*tags: str) -> list[Phrase]:
    """Return short subjects: pronouns, names, and nouns without adjectives."""
    return PRONOUNS + PEOPLE + noun_phrases("the", tags=tags)


def located(
    things: list[Phrase], max_adjectives: int = 0
) -> Iterator[tuple[Phrase, str, str, tuple[WordPair, ...]]]:
    """Yield each thing with its possible places in English and Italian, and the word pairs of both.

    `max_adjectives` is for the places.
    """
    for preposition, nouns_by_tag in PLACES.items():
        for tag, nouns in nouns_by_tag.items():
            places = noun_phrases("the my", max_adjectives, nouns=nouns.split())
            for place, thing in product(places, things):
                one_in_many = place.form[1] == "p" and thing.form[1] == "s"
                if tag in thing.tags and thing.nouns != place.nouns and not one_in_many:
                    en = f"{preposition} {place.en}"
                    yield thing, en, prepositional(preposition, place), thing.pairs + place.pairs


def object_pronoun(phrase: Phrase) -> tuple[str, str]:
    """Return the pronoun for a phrase, in English by number and person, in Italian by gender."""
    if phrase.form[1] == "p":
        return "them", CLITICS[phrase.form]
    if "person" not in phrase.tags:
        return "it", CLITICS[phrase.form]
    return "her" if phrase.form == "fs" else "him", CLITICS[phrase.form]
