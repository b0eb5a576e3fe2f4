"""Greedy, beam and lexicon search against exhaustive scoring of a small random model."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from str_app.buckets import bucket_sizes
from str_app.decoding import Decoded, Scorer, Trie, beam_search, lexicon_search
from str_app.decoding.greedy import decoded_steps
from str_app.decoding.scoring import log_softmax
from str_app.engines.torch_engine import TorchEngine
from str_app.models.charset import Charset
from str_app.models.preprocessing import Preprocessing, pad_right
from str_app.models.recognizer import Recognizer
from str_app.policy import SearchPolicy
from str_app.reader import Reader
from str_app.views import levelling
from tests.str_app.fake_engine import AS_PAINTED, FakeEngine, paint
from tests.tiny_recognizer import tiny_config


def random_scorer(seed=0, max_length=4, charset="abAB"):
    torch.manual_seed(seed)
    architecture = tiny_config(embedding_size=64, max_length=max_length)
    model = Recognizer(architecture, Charset(charset), Preprocessing())
    with torch.no_grad():  # fresh weights say the same at every step; louder ones have opinions
        for parameter in model.decoder.parameters():
            parameter.mul_(3.0)
    return Scorer(TorchEngine(model, {"temperature": 0.7}))


def greedy(scorer: Scorer, canvases: np.ndarray, widths: np.ndarray) -> list[Decoded]:
    steps = scorer.decode_greedy(*scorer.encode(canvases, widths))
    return decoded_steps(steps, scorer.charset, scorer.max_length)


def crops(batch, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (batch, 32, 128, 3), dtype=np.uint8), random.integers(8, 129, batch)


def levelled(scorer, canvas, width):
    """The crop laid level by its greedy reading, on the widest canvas, and the columns it covers there."""
    (reading,) = greedy(scorer, canvas[None], np.array([width]))
    line = levelling.fit_line(reading.attention[: len(reading.text)], canvas.shape[:2])
    seen, covered = scorer.preprocessing(levelling.level(canvas[:, :width], line))
    return pad_right(seen, scorer.preprocessing.width), covered


def distributions(scorer, canvas, width, tokens, looks=1):
    """Log-probabilities at each of `tokens` and at the end: of the canvas, or the mean with further looks'."""
    steps = []
    for seen, covered in [(canvas, width), (255 - canvas, width), levelled(scorer, canvas, width)][:looks]:
        memory, state = scorer.encode(seen[None], np.array([covered]))
        steps.append([])
        for previous in [0, *tokens]:
            step = scorer.step(memory, state, np.array([previous]), *np.zeros((2, 1), np.int64))
            state = step.state
            steps[-1].append(np.exp(step.log_probs[0].astype(float)))
    return np.log(np.mean(steps, axis=0))


def score(scorer, canvas, width, tokens, looks=1):
    """Log-probability of `tokens` and the end after them."""
    chances = distributions(scorer, canvas, width, tokens, looks)
    return sum(float(step[token]) for step, token in zip(chances, [*tokens, 0], strict=True))


ONE_LOOK = replace(AS_PAINTED, faint=0.0, doubted=0.0)
THREE_LOOKS = SearchPolicy(faint=np.inf, doubted=np.inf)


@pytest.fixture(params=[1, 3], ids=["one look", "three looks"])
def looks(request):
    """How often everything that is searched is looked at."""
    return request.param


def policy_of(looks, **choices):
    return replace({1: ONE_LOOK, 3: THREE_LOOKS}[looks], **choices)


@pytest.mark.parametrize("seed", range(6))
def test_early_stop_reads_the_same(seed):
    one = random_scorer(seed, max_length=12)
    canvases, widths = crops(8, seed)
    memory, state = one.encode(canvases, widths)
    early = one.decode_greedy(memory, state)
    tokens = np.zeros(8, np.int64)
    for place in range(one.max_length + 1):
        step = one.step(memory, state, tokens, np.arange(8), np.arange(8))
        state, tokens = step.state, step.log_probs.argmax(axis=1)
        if place < early.log_probs.shape[1]:
            np.testing.assert_array_equal(early.log_probs[:, place], step.log_probs)
            np.testing.assert_array_equal(early.attention[:, place], step.attention)
    texts = [reading.text for reading in greedy(one, canvases, widths)]
    assert max(map(len, texts)) + 1 == early.log_probs.shape[1], "and no longer than the longest needs"


def test_stops_when_every_sequence_has_ended():
    """A model that wants to end at once is asked for one step only."""
    one = random_scorer(max_length=25)
    with torch.no_grad():
        one.engine._model.decoder.classifier.bias[0] = 1e3
    assert [reading.text for reading in greedy(one, *crops(3))] == ["", "", ""]
    assert one.decode_greedy(*one.encode(*crops(3))).log_probs.shape[1] == 1


def test_no_end_token_keeps_every_character():
    one = random_scorer(max_length=4)
    with torch.no_grad():
        one.engine._model.decoder.classifier.bias[0] = -1e3
    for reading in greedy(one, *crops(3)) + beam_search(one, *crops(3), policy=SearchPolicy(beam=2)):
        assert len(reading.text) == 4
        assert len(reading.character_log_probs) == 5
        assert reading.attention.shape == (5, 2, 32)


@pytest.mark.parametrize("seed", range(6))
def test_beam_of_one_is_greedy(seed):
    one = random_scorer(seed, max_length=10)
    canvases, widths = crops(5, seed)
    for a, b in zip(
        greedy(one, canvases, widths), beam_search(one, canvases, widths, policy=SearchPolicy(beam=1)), strict=True
    ):
        assert a.text == b.text
        np.testing.assert_allclose(a.character_log_probs, b.character_log_probs, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(a.attention, b.attention, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_the_most_probable_text(seed, looks):
    one = random_scorer(seed, max_length=3, charset="abc")
    canvases, widths = crops(3, seed)
    readings = beam_search(one, canvases, widths, policy=policy_of(looks, beam=60))
    everything = [tokens for length in range(4) for tokens in itertools.product((1, 2, 3), repeat=length)]
    assert max(reading.log_prob for reading in greedy(one, canvases, widths)) < np.log(0.5), "all are searched"
    for reading, canvas, width in zip(readings, canvases, widths, strict=True):
        best = max(everything, key=lambda tokens: score(one, canvas, width, tokens, looks))
        assert reading.text == one.charset.decode(best)
        assert reading.log_prob == pytest.approx(score(one, canvas, width, best, looks), abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_beam_is_never_worse_than_greedy(seed):
    one = random_scorer(seed, max_length=10)
    canvases, widths = crops(6, seed)
    found = zip(
        greedy(one, canvases, widths), beam_search(one, canvases, widths, policy=policy_of(1, beam=16)), strict=True
    )
    assert all(wide.log_prob >= narrow.log_prob - 1e-4 for narrow, wide in found)


class Table:
    """A prior of a few texts."""

    def __init__(self, bonuses):
        self.bonuses, self.max_bonus = bonuses, max(bonuses.values(), default=0.0)

    def __call__(self, text):
        return self.bonuses.get(text.lower(), 0.0)

    def upper_bound(self, prefix):
        return max([bonus for text, bonus in self.bonuses.items() if text.startswith(prefix.lower())], default=0.0)


@pytest.mark.parametrize("seed", range(6))
def test_prior_finds_the_best_of_all_texts(seed, looks):
    policy = policy_of(looks, beam=60, sure=1.0)
    one = random_scorer(seed, max_length=3, charset="abc")
    canvases, widths = crops(3, seed)
    random = np.random.default_rng(seed)
    everything = [tokens for length in range(4) for tokens in itertools.product((1, 2, 3), repeat=length)]
    prior = Table({one.charset.decode(tokens): float(random.uniform(0, 6)) for tokens in everything[::3]})
    for reading, canvas, width in zip(beam_search(one, canvases, widths, prior, policy), canvases, widths, strict=True):
        scores = {one.charset.decode(tokens): score(one, canvas, width, tokens, looks) for tokens in everything}
        best = max(scores, key=lambda text: scores[text] + prior(text))
        assert reading.text == best
        assert reading.log_prob == pytest.approx(scores[best], abs=1e-4)
        assert reading.log_confidence <= 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_prior_without_bonuses_changes_nothing(seed):
    one = random_scorer(seed, max_length=6)
    canvases, widths = crops(6, seed)
    plain, with_prior = (beam_search(one, canvases, widths, prior=prior) for prior in (None, Table({})))
    for a, b in zip(plain, with_prior, strict=True):
        assert a.text == b.text
        assert a.log_confidence == pytest.approx(sum(a.character_log_probs))
        assert b.log_confidence == pytest.approx(min(0.0, a.log_confidence), abs=1e-4)


def test_prior_settles_doubts_and_leaves_what_is_sure_alone():
    fake = FakeEngine()
    prior = Table({"cat": 4.0, "dog": 2.0})
    readings = Reader(fake, prior=prior).recognize([paint("bat", [0.6, 0.9, 0.9]), paint("bat", 0.99)])
    assert [reading.text for reading in readings] == ["cat", "bat"]
    (known,), (unknown,) = (Reader(fake, prior=prior).recognize(paint(text, 0.95)) for text in ("dog", "dox"))
    assert known.confidence > unknown.confidence
    assert unknown.confidence == pytest.approx(Reader(fake).recognize(paint("dox", 0.95))[0].confidence)


def test_texts_that_were_not_found_count_with_half_of_the_bonus():
    crop = paint("dog", 0.95)
    (plain,), (known,) = (Reader(FakeEngine(), prior=prior).recognize(crop) for prior in (None, Table({"dog": 2.0})))
    weighed, rest = plain.confidence * np.exp(2.0), (1 - plain.confidence) * np.exp(1.0)
    assert known.confidence == pytest.approx(weighed / (weighed + rest))


def test_confidence_with_a_prior_is_a_share_of_the_rivals_found_too():
    crop, prior = paint("bat", [0.6, 0.95, 0.95]), Table({"bat": 1.7, "cat": 2.0})
    (plain,), (known,) = (Reader(FakeEngine(), prior=each, policy=ONE_LOOK).recognize(crop) for each in (None, prior))
    bat, cat = plain.confidence, plain.confidence * 0.4 / 0.6
    weighed, rest = bat * np.exp(1.7), (1 - bat - cat) * np.exp(1.7 / 2)
    assert known.text == "bat"
    assert known.confidence == pytest.approx(weighed / (weighed + cat * np.exp(2.0) + rest), rel=1e-2)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("abAB", min_size=1, max_size=4), min_size=1, max_size=12), st.integers(1, 8))
def test_lexicon_search_returns_lexicon_words_only(words, width):
    one = random_scorer()
    found = lexicon_search(one, *crops(3), Trie(words, one.charset), width)
    assert all(reading.text in words for reading in found)
    assert all(len(reading.character_log_probs) == len(reading.text) + 1 for reading in found)


@pytest.mark.parametrize("seed", range(4))
def test_lexicon_search_finds_the_most_probable_word(seed):
    one = random_scorer(seed, charset="abc")  # one case, so that a word has one spelling
    words = ["a", "ab", "abc", "ca", "cab", "bb", "cccc"]
    canvases, widths = crops(4, seed)
    for reading, canvas, width in zip(
        lexicon_search(one, canvases, widths, Trie(words, one.charset), 10), canvases, widths, strict=True
    ):
        best = max(words, key=lambda word: score(one, canvas, width, one.charset.encode(word)[:-1]))
        assert reading.text == best


@pytest.mark.parametrize("seed", range(2))
def test_lexicon_search_adds_the_probabilities_of_both_cases(seed):
    one = random_scorer(seed)
    words = ["a", "ab", "ba", "abb", "bbb"]
    canvases, widths = crops(2, seed)
    found = lexicon_search(one, canvases, widths, Trie(words, one.charset), 10)
    for reading, canvas, width in zip(found, canvases, widths, strict=True):
        scores = {}
        for word in words:
            tokens, scores[word] = [], 0.0
            for char in word:
                chances = distributions(one, canvas, width, tokens)[-1]
                cases = one.charset.encode(char + char.upper())[:-1]
                tokens.append(max(cases, key=lambda token, chances=chances: chances[token]))  # the likelier is fed
                scores[word] += np.logaddexp.reduce(chances[cases])
            scores[word] += distributions(one, canvas, width, tokens)[-1][0]
        assert reading.text == max(scores, key=scores.get)
        assert reading.log_prob == pytest.approx(scores[reading.text], abs=1e-4)


def test_lexicon_search_forgives_a_letter_that_is_surely_misread():
    """`dat` begins with what the engine gives a ten-millionth: another word begins better, and goes on worse."""
    (reading,) = Reader(FakeEngine()).recognize(paint("bat", 0.999), lexicon=["dat", "bxyz"])
    assert reading.text == "dat"


def test_each_crop_its_own_lexicon_and_spelling():
    one = random_scorer()
    tries = [Trie([word], one.charset) for word in ("Ab", "BA", "aaa")]
    assert [reading.text for reading in lexicon_search(one, *crops(3), tries)] == ["Ab", "BA", "aaa"]


def test_of_words_that_differ_in_case_alone_the_first_is_returned():
    one = random_scorer()
    assert lexicon_search(one, *crops(1), Trie(["aB", "Ab", "ab"], one.charset))[0].text == "aB"


@pytest.mark.parametrize(
    ("charset", "word"),
    [("b\u00fc", "bu\u0308b"), ("bu\u0308", "bu\u0308b"), ("b\u09dc", "b\u09dc")],  # NFC divides the last in two
)
def test_a_lexicon_may_have_accents_in_another_form_than_the_charset(charset, word):
    one = random_scorer(charset=charset)
    assert lexicon_search(one, *crops(1), Trie([word], one.charset))[0].text == word


def test_a_word_of_a_lexicon_may_be_as_long_as_a_reading():
    one = random_scorer(max_length=4)
    assert lexicon_search(one, *crops(1), Trie(["abab"], one.charset, one.max_length))[0].text == "abab"
    with pytest.raises(ValueError, match="5 characters, more than the 4"):
        Trie(["ababa"], one.charset, one.max_length)


@pytest.mark.parametrize(("words", "message"), [([], "empty"), (["a", ""], "empty word"), (["a-b"], "has no '-'")])
def test_unusable_lexicons(words, message):
    with pytest.raises(ValueError, match=message):
        Trie(words, Charset("abAB"))


def test_lexicon_of_words_too_long_for_the_model():
    one = random_scorer(max_length=4)
    with pytest.raises(ValueError, match="at most 4"):
        lexicon_search(one, *crops(1), Trie(["ababa"], one.charset))


def test_readings_do_not_depend_on_the_batch():
    one = random_scorer(max_length=10)
    canvases, widths = crops(7)
    together = greedy(one, canvases, widths)
    for row in range(7):
        alone = greedy(one, canvases[row : row + 1], widths[row : row + 1])[0]
        assert alone.text == together[row].text
        np.testing.assert_allclose(alone.character_log_probs, together[row].character_log_probs, rtol=1e-4, atol=1e-5)


def test_logits_are_divided_by_the_temperature():
    logits = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    expected = torch.log_softmax(torch.from_numpy(logits) / 2.0, dim=-1)
    np.testing.assert_allclose(log_softmax(logits, 2.0), expected, atol=1e-6)
    cold, hot = FakeEngine(), FakeEngine()
    hot.info = {"temperature": 2.0}
    readings = [Reader(engine).recognize(paint("a", 0.9), beam=1)[0] for engine in (cold, hot)]
    assert readings[1].confidence < readings[0].confidence


def test_nothing_in_nothing_out():
    one = random_scorer()
    nothing = (np.zeros((0, 32, 128, 3), dtype=np.uint8), np.zeros(0, dtype=np.int64))
    assert beam_search(one, *nothing) == []


@pytest.mark.parametrize(
    ("prior", "searched"),
    [
        (None, ["doubtful"]),
        # "word" is favoured as much as anything.
        (Table({"word": 3.0}), ["doubtful", "likely"]),
    ],
)
def test_only_what_may_be_beaten_is_searched(prior, searched):
    fake = FakeEngine()
    rows = record_steps(fake)
    chances = {"doubtful": ("abcd", 0.7), "likely": ("abcd", 0.9), "known": ("word", 0.9), "sure": ("abcd", 0.996)}
    pictures = {name: paint(*given) for name, given in chances.items()}
    Reader(fake, prior=prior, policy=ONE_LOOK).recognize(list(pictures.values()))
    assert [list(pictures)[row] for row in rows[0]] == searched


def test_a_search_meets_few_sizes_of_step():
    """However many prefixes it has: the engine takes memory for each size."""
    fake = FakeEngine()
    rows = record_steps(fake)
    Reader(fake).recognize([paint("abcdef", 0.4 + 0.01 * k) for k in range(9)], beam=5)
    sizes = {len(crops) for crops in rows}
    assert max(sizes) > 9
    assert sizes <= set(bucket_sizes(192))  # variants come in batches of 32


def record_steps(fake):
    """The crops of each step from now on."""
    rows, step = [], fake.step
    fake.step = lambda memory, state, tokens, crops, parents: (
        rows.append(crops) or step(memory, state, tokens, crops, parents)
    )
    return rows


def test_a_search_that_finds_nothing_better_keeps_the_greedy_reading():
    kept = []
    for seed in (2, 3):
        one = random_scorer(seed, max_length=10)
        canvases, widths = crops(6, seed)
        searched = beam_search(one, canvases, widths, policy=ONE_LOOK)
        for before, after in zip(greedy(one, canvases, widths), searched, strict=True):
            kept.append(after.text == before.text)
            if kept[-1]:
                assert after.character_log_probs == before.character_log_probs
            else:
                assert after.log_prob > before.log_prob + ONE_LOOK.margin / 2
    assert any(kept)
    assert not all(kept)


def test_a_character_is_as_sure_as_both_its_cases(looks):
    one = random_scorer(1, max_length=6)
    canvases, widths = crops(4, 1)
    assert max(reading.log_prob for reading in greedy(one, canvases, widths)) < np.log(0.5), "all are searched"
    for readings, seen in (
        (greedy(one, canvases, widths), 1),
        (beam_search(one, canvases, widths, policy=policy_of(looks)), looks),
    ):
        for reading, canvas, width in zip(readings, canvases, widths, strict=True):
            tokens = one.charset.encode(reading.text)[:-1]
            chances = distributions(one, canvas, width, tokens, seen)
            for char, found, step in zip([*reading.text, None], reading.character_log_probs, chances, strict=True):
                cases = [0] if char is None else one.charset.encode(char.lower() + char.upper())[:-1]
                assert found == pytest.approx(np.logaddexp.reduce(step[cases]), abs=1e-4)
            assert reading.log_prob == pytest.approx(score(one, canvas, width, tokens, seen), abs=1e-4)


def test_attention_is_the_mean_of_the_crop_and_its_negative():
    """Levelled, its characters stand elsewhere."""
    one = random_scorer(1, max_length=6)
    canvases, widths = crops(3, 1)
    readings = beam_search(one, canvases, widths, policy=THREE_LOOKS)
    for reading, canvas, width in zip(readings, canvases, widths, strict=True):
        maps = []
        for seen in (canvas, 255 - canvas):
            memory, state = one.encode(seen[None], np.array([width]))
            maps.append(one.step(memory, state, *np.zeros((3, 1), np.int64)).attention[0])
        np.testing.assert_allclose(reading.attention[0], np.mean(maps, axis=0), atol=1e-6)


def test_only_what_a_search_leaves_in_doubt_is_looked_at_three_times():
    fake = FakeEngine()
    looks, encode, rows = [], fake.encode, record_steps(fake)
    fake.encode = lambda canvases, widths: looks.append(canvases) or encode(canvases, widths)
    pictures = {
        "faint": paint("abcd", 0.7),
        "settled by the prior": paint("word", 0.87),
        "doubtful": paint("abcd", 0.87),
        "sure": paint("abcd", 0.996),
    }
    prior = Table({"word": 6.0, "other": 8.0})
    Reader(fake, 32, prior, AS_PAINTED).recognize(list(pictures.values()), beam=4)
    assert [list(pictures)[row] for row in rows[0]] == ["settled by the prior", "doubtful"], "searched in one look"
    first, negatives, levelled = looks
    np.testing.assert_array_equal(negatives, 255 - first[[0, 2]])
    assert levelled.shape == negatives.shape
    Reader(fake).recognize([paint("abcd", 0.7)], beam=1)
    assert len(looks) == 4, "greedily once"


def test_a_text_less_likely_than_any_float_has_no_confidence():
    torch.manual_seed(0)
    model = Recognizer(tiny_config(embedding_size=64, max_length=4), Charset("abAB"), Preprocessing())
    with torch.no_grad():
        model.decoder.classifier.bias[0] = -1e4  # the longest text has to end nevertheless
    readings = beam_search(Scorer(TorchEngine(model, {})), *crops(2), Table({}))
    assert [len(reading.text) for reading in readings] == [4, 4]
    assert [reading.log_confidence for reading in readings] == [-np.inf] * 2
