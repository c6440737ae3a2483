"""The words of the embedded corpus, with what decides how they are combined.

Tags say what makes sense together: an adjective or a verb takes the nouns that share one of its
tags.
"""

from typing import NamedTuple

FORMS = ("ms", "fs", "mp", "fp")  # gender and number
PERSONS = ("1s", "2s", "3s", "1p", "3p")


class Noun(NamedTuple):
    """A noun in the singular and in the plural."""

    en: tuple[str, ...]
    it: tuple[str, ...]
    gender: str
    tags: frozenset[str]


class Adjective(NamedTuple):
    """An adjective, its Italian by form."""

    en: str
    it: dict[str, str]
    position: str  # in Italian: before the noun, after it, or after it as a colour
    tags: frozenset[str]


class Verb(NamedTuple):
    """A verb: in English the base form and the third person, in Italian all by person."""

    en: tuple[str, str]
    it: dict[str, str]
    subjects: frozenset[str]  # tags
    objects: frozenset[str]  # tags


NOUN_TABLE = """
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

# Masculine and feminine singular, then plural; the position in Italian; what it can be said of.
ADJECTIVE_TABLE = """
beautiful   | bello bella belli belle              | before | person animal food text painted place
big         | grande grande grandi grandi          | before | animal food painted place
small       | piccolo piccola piccoli piccole      | before | animal food painted place
old         | vecchio vecchia vecchi vecchie       | before | animal text painted place
young       | giovane giovane giovani giovani      | before | adult animal
red         | rosso rossa rossi rosse              | colour | painted fruit
green       | verde verde verdi verdi              | colour | painted fruit
blue        | blu blu blu blu                      | colour | painted
black       | nero nera neri nere                  | colour | painted animal
tired       | stanco stanca stanchi stanche        | after  | person animal
happy       | felice felice felici felici          | after  | person animal
interesting | interessante interessante interessanti interessanti | after | text
"""

# The Italian for I, you, he or she, we and they; who does it; to what. The verb "like" has no
# objects here, because what is liked is the subject of the Italian "piacere", to please.
VERB_TABLE = """
love | loves | amo ami ama amiamo amano | person animal | person animal place
see | sees | vedo vedi vede vediamo vedono | person animal | person animal small painted place
eat | eats | mangio mangi mangia mangiamo mangiano | person animal | food
read | reads | leggo leggi legge leggiamo leggono | person | text
buy | buys | compro compri compra compriamo comprano | person | pet small painted
want | wants | voglio vuoi vuole vogliamo vogliono | person | pet small painted
wait for | waits for | aspetto aspetti aspetta aspettiamo aspettano | person animal | person
have | has | ho hai ha abbiamo hanno | person | animal small painted place
sleep | sleeps | dormo dormi dorme dormiamo dormono | person animal |
like | likes | piaccio piaci piace piacciamo piacciono | person |
be | is | sono sei è siamo sono | person animal |
"""


def _rows(table: str) -> list[list[list[str]]]:
    """Return the words of each cell of each line."""
    return [[cell.split() for cell in line.split("|")] for line in table.strip().splitlines()]


NOUNS = [
    Noun(tuple(en), tuple(it), gender, frozenset(tags))
    for en, it, [gender], tags in _rows(NOUN_TABLE)
]
ADJECTIVES = [
    Adjective(en, dict(zip(FORMS, it, strict=True)), position, frozenset(tags))
    for [en], it, [position], tags in _rows(ADJECTIVE_TABLE)
]
VERBS = {
    " ".join(base): Verb(
        (" ".join(base), " ".join(third)),
        dict(zip(PERSONS, it, strict=True)),
        frozenset(subjects),
        frozenset(objects),
    )
    for base, third, it, subjects, objects in _rows(VERB_TABLE)
}
ALL_TAGS = tuple(dict.fromkeys(tag for noun in _rows(NOUN_TABLE) for tag in noun[3]))

# The determiners of each verb's objects.
DETERMINERS = {
    "love": "the my your",
    "see": "the a",
    "eat": "the a my",
    "read": "the a my",
    "buy": "the a two",
    "want": "the a your",
    "wait for": "the a",
    "have": "a two many",
}
# Who does the first to something may then do the second: "i see the apple and eat it".
SEQUENCES = {
    "see": ("eat", "read", "buy", "want", "wait for"),
    "buy": ("eat", "read"),
    "want": ("buy",),
}

# By preposition: which things, by tag, can be at which places.
PLACES = {
    "on": {
        "person": "mat chair",
        "pet": "mat table chair bed car",
        "climber": "tree",
        "fruit": "tree",
        "small": "mat table chair bed box backpack",
    },
    "in": {
        "person": "house garden car",
        "animal": "house garden",
        "pet": "car box",
        "small": "house car box backpack",
        "furniture": "house garden",
    },
    "under": {
        "person": "tree",
        "animal": "tree",
        "pet": "table chair bed car",
        "small": "table chair bed tree",
    },
    "behind": {
        "person": "house tree car",
        "animal": "house tree car",
        "small": "chair bed box",
        "furniture": "house",
    },
}

# Person, gender, and "to me", which is how Italian says who likes something.
SUBJECT_PRONOUNS = {
    "i": ("1s", "m", "mi"),
    "you": ("2s", "m", "ti"),
    "he": ("3s", "m", "gli"),
    "she": ("3s", "f", "le"),
    "we": ("1p", "m", "ci"),
    "they": ("3p", "m", "a loro"),
}
OBJECT_PRONOUNS = {
    "me": ("1s", "mi"),
    "you": ("2s", "ti"),
    "him": ("3s", "lo"),
    "her": ("3s", "la"),
    "it": ("3s", "lo"),
    "us": ("1p", "ci"),
    "them": ("3p", "li"),
}
NAMES = {  # the Italian differs in "e" for "and"
    "sara": "fs",
    "maria": "fs",
    "luca": "ms",
    "marco": "ms",
    "sara and maria": "fp",
    "luca and marco": "mp",
    "maria and luca": "mp",
}

POSSESSIVES = {  # by form
    "my": ("mio", "mia", "miei", "mie"),
    "your": ("tuo", "tua", "tuoi", "tue"),
}
QUANTITIES = {  # masculine, feminine
    "two": ("due", "due"),
    "three": ("tre", "tre"),
    "many": ("molti", "molte"),
    "no": ("", ""),
}
ARTICLES = {  # by form, then by the sound that follows
    "ms": {"plain": "il", "hard": "lo", "vowel": "l'"},
    "fs": {"plain": "la", "hard": "la", "vowel": "l'"},
    "mp": {"plain": "i", "hard": "gli", "vowel": "gli"},
    "fp": {"plain": "le", "hard": "le", "vowel": "le"},
}
INDEFINITE = {
    "ms": {"plain": "un", "hard": "uno", "vowel": "un"},
    "fs": {"plain": "una", "hard": "una", "vowel": "un'"},
}
CLITICS = {"ms": "lo", "fs": "la", "mp": "li", "fp": "le"}
PREPOSITIONS = {"on": "su", "in": "ne", "to": "a", "under": "sotto", "behind": "dietro"}
VERY = (("", ""), ("very", "molto"))
VERY_MUCH = (("", ""), ("very much", "molto"))
