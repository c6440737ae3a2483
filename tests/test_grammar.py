"""What the embedded English-Italian corpus promises."""

import hashlib
import os
import random
import re
import subprocess
import sys
from collections import Counter

import pytest

from transformer.corpora import Corpus, english_italian
from transformer.corpora.english_italian import choose_held_out, draw_evenly
from transformer.corpora.grammar import CONSTRUCTIONS, sentences
from transformer.corpora.lexicon import ARTICLES, FORMS
from transformer.corpora.phrases import contract, initial_sound

# Written by hand, phenomenon by phenomenon: the grammar has to agree with them.
BY_HAND = """
i love you very much → ti amo molto
there is a cat on the mat → c'è un gatto sul tappeto
the cat is on the mat → il gatto è sul tappeto

the red house → la casa rossa
the beautiful house → la bella casa
the big red house → la grande casa rossa
two old black cats → due vecchi gatti neri
the interesting letters → le lettere interessanti
my blue car → la mia macchina blu

the student → lo studente
the backpack → lo zaino
the backpacks → gli zaini
the tree → l'albero
the trees → gli alberi
the orange → l'arancia
the oranges → le arance
an orange → un'arancia
a tree → un albero
a student → uno studente
the old tree → il vecchio albero
a young student → un giovane studente
the beautiful tree → il bell'albero
the beautiful backpacks → i begli zaini
a beautiful dog → un bel cane
the beautiful dogs → i bei cani
the beautiful student → il bello studente
my donkeys → i miei asini
your duck → la tua anatra

the girls are tired → le ragazze sono stanche
she is very tired → è molto stanca
i am tired → sono stanco
are you happy? → sei felice?
maria and luca are not tired → maria e luca non sono stanchi
sara and maria are beautiful → sara e maria sono belle
the old book is black → il vecchio libro è nero

the books are not in the backpack → i libri non sono nello zaino
are the apples in the boxes? → le mele sono nelle scatole?
the orange is on the tree → l'arancia è sull'albero
we are in my garden → siamo nel mio giardino
the duck is under the table → l'anatra è sotto il tavolo
there are no books in the car → non ci sono libri nella macchina
are there many letters on the table? → ci sono molte lettere sul tavolo?
there are two men behind the house → ci sono due uomini dietro la casa
does the dog sleep under the tree? → il cane dorme sotto l'albero?

do you love me? → mi ami?
she sees them → li vede
he does not see her → non la vede
do they wait for us? → ci aspettano?
the women want it → le donne lo vogliono
we wait for the child → aspettiamo il bambino
does the girl read the interesting book? → la ragazza legge il libro interessante?
the donkey eats the apple → l'asino mangia la mela
you do not have a dog → non hai un cane
i see sara and maria → vedo sara e maria

i like the cat → mi piace il gatto
i like the cats → mi piacciono i gatti
she does not like the orange → non le piace l'arancia
they like the red car → a loro piace la macchina rossa
sara likes your dogs very much → a sara piacciono molto i tuoi cani
do the boys like the cake? → ai ragazzi piace la torta?
the student likes maria → allo studente piace maria
the man likes the houses → all'uomo piacciono le case

i see the red apple and eat it → vedo la mela rossa e la mangio
she wants the books but does not buy them → vuole i libri ma non li compra
luca sees the woman and waits for her → luca vede la donna e la aspetta
"""
NONSENSE = """
the apple eats the boy
the donkey sleeps it
i have it
my woman
a blue cat
i see me
you love you
sara loves sara
the cat sees the cat
the bed is in the apple
the big house is small
the blue car is red
"""
PAIRS = [tuple(line.split(" → ")) for line in BY_HAND.strip().splitlines() if line]


def words(text: str) -> list[str]:
    """Split a sentence into words: "c'è" is two, and a question mark is none."""
    return re.findall(r"[^\W_]+'?", text)


@pytest.fixture(scope="module")
def universe() -> list:
    return list(sentences())


@pytest.fixture(scope="module")
def translations(universe) -> dict[str, str]:
    return {en: it for _, en, it, _ in universe}


@pytest.fixture(scope="module")
def combinations(universe) -> dict[str, tuple]:
    return {en: pairs for _, en, _, pairs in universe}


@pytest.fixture(scope="module")
def by_seed() -> dict[int, Corpus]:
    return {seed: english_italian(seed) for seed in (0, 1)}


@pytest.fixture(scope="module", params=[0, 1])
def corpus(request, by_seed) -> Corpus:
    return by_seed[request.param]


@pytest.fixture(scope="module")
def splits(corpus) -> list[list[tuple[str, str]]]:
    """Return the splits in order, the compositional one last."""
    return [corpus.train, corpus.val, corpus.test, corpus.more["compositional"]]


@pytest.mark.parametrize(("en", "it"), PAIRS, ids=[en for en, _ in PAIRS])
def test_the_grammar_agrees_with_pairs_written_by_hand(translations, en: str, it: str) -> None:
    assert translations.get(en) == it


def test_the_grammar_makes_no_nonsense(translations) -> None:
    assert [en for en in NONSENSE.strip().splitlines() if en in translations] == []


def test_no_sentence_has_two_translations(universe, translations) -> None:
    assert len(universe) == len(translations) > 103_000


@pytest.mark.parametrize("side", [1, 2], ids=["english", "italian"])
def test_each_language_has_at_most_200_words(universe, side: int) -> None:
    vocabulary = {word for sentence in universe for word in words(sentence[side])}
    assert 100 < len(vocabulary) <= 200


def test_text_is_lower_case_and_only_questions_end_in_a_mark(universe) -> None:
    plain = re.compile(r"[a-zè]+('?[a-zè]+)?( [a-zè]+('[a-zè]+)?)*")
    question = ("is ", "are ", "am ", "do ", "does ")
    for _, en, it, _ in universe:
        assert en.endswith("?") == it.endswith("?") == en.startswith(question), en
        assert plain.fullmatch(en.removesuffix("?")), en
        assert plain.fullmatch(it.removesuffix("?")), it


def test_italian_articles_suit_the_sound_that_follows(universe) -> None:
    vowel = "[aeiouè]"
    hard = "(?:z|s[^aeiou])"
    before_plain = (
        rf"\b(?:il|i|un|sul|sui|nel|nei|al|ai|bel|bei) (?:{hard}|(?<!un ){vowel})"
        rf"|\b(?:lo|una) {vowel}"
    )
    before_hard = (
        rf"\b(?:uno|gli|sullo|sugli|nello|negli|allo|agli|begli) (?!{vowel}|{hard})|\blo (?!{hard})"
    )
    before_vowel = rf"(?:l|un)'(?!{vowel})"
    wrong = re.compile(f"{before_plain}|{before_hard}|{before_vowel}")
    clitic = re.compile(r"\b(?:gli (?=piac)|lo (?=(?:am|aspett|mangi|legg|compr|vogl|vuo|ved)))")
    assert [it for *_, it, _ in universe if wrong.search(clitic.sub("", it))] == []
    mistakes = (
        "il zaino,un studente,lo gatto,la bell'casa,una anatra,"
        "i asini,gli cani,sul albero,lo uomo,begli gatti"
    )
    assert all(wrong.search(it) for it in mistakes.split(","))


@pytest.mark.parametrize(
    ("stem", "contracted"),
    [
        ("su", "sul sullo sull' sulla sui sugli sulle"),
        ("ne", "nel nello nell' nella nei negli nelle"),
        ("a", "al allo all' alla ai agli alle"),
        ("be", "bel bello bell' bella bei begli belle"),
    ],
)
def test_prepositions_and_bello_contract_with_every_article(stem: str, contracted: str) -> None:
    assert [
        contract(stem, article) for article in "il lo l' la i gli le".split()
    ] == contracted.split()


def test_sounds_are_told_apart() -> None:
    sounds = [initial_sound(word) for word in "gatto sedia zaino studente uomo".split()]
    assert sounds == ["plain", "plain", "hard", "hard", "vowel"]
    assert set(ARTICLES) == set(FORMS)


def test_splits_have_the_sizes_asked_for_and_share_no_sentence(splits, translations) -> None:
    assert [len(split) for split in splits] == [100_000, 1_000, 1_000, 1_000]
    english = [en for split in splits for en, _ in split]
    assert len(set(english)) == len(english)
    assert all(translations[en] == it for split in splits for en, it in split)


def test_compositional_sentences_hold_combinations_that_no_other_split_has(
    combinations, splits
) -> None:
    *known, compositional = splits
    seen = {pair for split in known for en, _ in split for pair in combinations[en]}
    assert all(set(combinations[en]) - seen for en, _ in compositional)
    new = {pair for en, _ in compositional for pair in combinations[en]} - seen
    everything = {pair for pairs in combinations.values() for pair in pairs}
    assert len(new) > 10
    for word in {word for pair in new for word in pair}:
        partners = [pair for pair in everything if word in pair]
        assert len(new.intersection(partners)) <= len(partners) / 4, word


def test_compositional_words_are_common_in_training(corpus) -> None:
    for side in (0, 1):
        common = Counter(word for pair in corpus.train for word in words(pair[side]))
        used = {word for pair in corpus.more["compositional"] for word in words(pair[side])}
        assert {word for word in used if common[word] < 50} == set()


def test_no_construction_dominates_training(universe, corpus) -> None:
    construction = {en: name for name, en, _, _ in universe}
    counts = Counter(construction[en] for en, _ in corpus.train)
    assert set(counts) == {c.__name__ for c in CONSTRUCTIONS}
    assert max(counts.values()) < 0.15 * 100_000 and min(counts.values()) > 0.02 * 100_000


def test_the_seed_decides_everything_and_hash_order_nothing(by_seed) -> None:
    code = "from transformer.corpora import english_italian; print(ascii(english_italian(1)))"
    env = os.environ | {"PYTHONHASHSEED": "1"}
    found = subprocess.check_output([sys.executable, "-c", code], env=env, text=True)
    assert found.strip() == ascii(by_seed[1])
    assert by_seed[0] != by_seed[1]


@pytest.mark.parametrize(
    ("seed", "digest"),
    [
        (0, "78f6c21d8883923b9fc18f3003d23753b4dfadca6d76782c684fb70a492ef103"),
        (1, "800b98551b96fb5fa86e0753f05ed43ffc4df4ca6e64c20c530e52f0b8e927b4"),
    ],
)
def test_a_seed_gives_the_sentences_that_it_always_gave(by_seed, seed: int, digest: str) -> None:
    corpus = by_seed[seed]
    everything = ascii([corpus.train, corpus.val, corpus.test, corpus.more])
    assert hashlib.sha256(everything.encode()).hexdigest() == digest


def test_the_corpus_says_what_it_is(corpus) -> None:
    assert (corpus.name, corpus.lowercase) == ("en-it", True)
    assert list(corpus.more) == ["compositional"]


def test_held_out_words_keep_three_quarters_of_their_partners() -> None:
    pairs = [(f"a{i}", f"n{j}") for i in range(4) for j in range(8)]
    held = choose_held_out(pairs, random.Random(0), most=100)
    assert (
        held
        and max(Counter(a for a, _ in held).values()) <= 2
        and max(Counter(n for _, n in held).values()) <= 1
    )


def test_drawing_is_even_until_a_group_is_empty() -> None:
    groups = [[(name, str(i)) for i in range(n)] for name, n in (("a", 100), ("b", 3), ("c", 50))]
    counts = Counter(name for name, _ in draw_evenly(groups, 63, random.Random(0)))
    assert counts == {"a": 30, "b": 3, "c": 30}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": -1}, r"train must be .* got -1"),
        ({"held_out": -5}, r"held_out must be .* got -5"),
        ({"train": 10**9}, r"1,000,002,000 were asked for"),
    ],
)
def test_impossible_numbers_are_refused_in_one_sentence(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        english_italian(**arguments)
