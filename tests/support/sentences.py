"""English for the tests: sentences of many lengths, and stretches of text as long as one likes."""

from __future__ import annotations

SENTENCES = (
    "Yes.",
    "The ferry leaves at noon.",
    "Nobody expected the old bridge to hold, yet it did.",
    "She planted two rows of beans beside the wall and waited for rain.",
    "What a dull, noisy and needlessly long film this turned out to be!",
    "The committee voted 7 to 5 against the new parking fees on Tuesday.",
    "A kind word costs nothing; a careless one can cost a friendship.",
    "Our train was late again, so we missed the first act of the play.",
    "Copper conducts electricity well because its electrons move freely.",
    "Few readers will finish this novel, and fewer still will regret it.",
    "The lighthouse keeper wrote down the weather every evening for forty years.",
    "Can you tell me whether the museum is open on public holidays?",
    "Rivers that freeze in winter carry less silt than those that flow all year.",
    "He's the cook who, at twenty-three, opened the best small restaurant in town.",
    "The recipe calls for 250 g of flour, three eggs and a pinch of salt.",
    "Although the song is simple, its melody stays with you for days.",
    "Most of the birds had gone south before the first heavy snow fell.",
    "The judge asked the witness to repeat the answer slowly and clearly.",
    "An engine that skips half of the work should be faster, but it rarely is.",
    "In the harbour the boats knocked softly against each other until the wind, which had "
    "been rising since the afternoon, finally drove everyone home, and only the lamps stayed.",
)


def long_text(words: int) -> str:
    """A text of that many words: the sentences, one after the other, from the start again."""
    stock = " ".join(SENTENCES).split()
    return " ".join(stock[place % len(stock)] for place in range(words))
