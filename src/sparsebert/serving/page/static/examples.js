// Example texts, by task. Keys other than `name` are the ids of the task's fields in `tasks.js`.

const SEARCH = {
  name: "A question to support",
  first: "How do I change my password?",
  many: [
    "To set a new password, open Settings, choose Security, and select Reset.",
    "Your invoice is sent by e-mail on the first day of each month.",
    "We refund orders that are returned within thirty days.",
    "Passwords must have at least twelve characters and one digit.",
    "The app is available for Android and iOS.",
  ],
};

const SCIENCE = {
  name: "Why is the sky blue?",
  first: "Why is the sky blue?",
  many: [
    "Air scatters short wavelengths of sunlight more strongly than long ones, so blue light reaches us from all directions.",
    "The sea looks blue because water absorbs red light.",
    "At sunset the light travels further through the air, and most of the blue is lost on the way.",
    "The Blue Danube is a waltz by Johann Strauss II.",
  ],
};

const PARAPHRASE = {
  name: "A paraphrase",
  first: "A man is playing a guitar.",
  many: [
    "Someone makes music on a string instrument.",
    "A man is playing the flute.",
    "A woman is slicing an onion.",
    "The stock market fell sharply on Monday.",
  ],
};

const EMBED = [
  { name: "A sentence", first: "Half of these weights are zero." },
  { name: "A headline", first: "Astronomers find water vapour around a small planet 97 light years away" },
];

const REVIEWS = [
  { name: "A good review", first: "A gripping, moving film, and funnier than anyone had a right to expect." },
  { name: "A bad review", first: "Two hours I will not get back; even the dog looked bored." },
  { name: "A mixed one", first: "The acting is superb, which makes it all the sadder that there is no story." },
];

const ENTAILMENT = [
  { name: "Follows", first: "A man inspects the uniform of a figure in some East Asian country.", second: "A person looks at clothing." },
  { name: "Contradicts", first: "Three children are playing football in the rain.", second: "The children are asleep." },
  { name: "Open", first: "An older and a younger man smile at each other.", second: "They are father and son." },
];

const QUESTIONS = [
  {
    name: "Apollo 11",
    first: "Who stayed in orbit around the Moon?",
    second:
      "Apollo 11 was the first mission to land people on the Moon. On 20 July 1969 Neil Armstrong and Buzz Aldrin " +
      "came down in the lunar module Eagle and spent two and a half hours outside, while Michael Collins stayed in " +
      "lunar orbit in the command module Columbia. They brought back 21.5 kilograms of rock.",
  },
  {
    name: "Hedgehogs",
    first: "What do hedgehogs eat?",
    second:
      "Hedgehogs are nocturnal. A hedgehog walks up to two kilometres in a night in search of beetles, caterpillars " +
      "and earthworms, and it can roll into a ball when it is in danger. From November it sleeps until spring.",
  },
];

/** Examples for a task of `tasks.js`; those of a classifier depend on its labels. */
export function examplesFor(task, labels) {
  if (task === "classify") {
    return labels.some((label) => /entail|contradict/i.test(label)) ? ENTAILMENT : REVIEWS;
  }
  return {
    compare: [SEARCH, SCIENCE, PARAPHRASE],
    rank: [SEARCH, SCIENCE],
    embed: EMBED,
    answer: QUESTIONS,
  }[task];
}
