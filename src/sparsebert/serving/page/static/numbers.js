// Formats numbers for people, and summarises measurements.

/** "0.84 ms", "12.3 ms", "1.24 s" */
export function duration(milliseconds) {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(2)} s`;
  return `${significant(milliseconds)} ms`;
}

/** Up to three figures, or a whole number: 0.84, 12.3, 4,123 */
export function significant(value) {
  if (value >= 100) return Math.round(value).toLocaleString("en");
  if (value >= 10) return value.toFixed(1);
  return value.toFixed(2);
}

export function whole(value) {
  return Math.round(value).toLocaleString("en");
}

export function counted(count, one, many = `${one}s`) {
  return `${whole(count)} ${count === 1 ? one : many}`;
}

/** The quantile of the values, by nearest rank; null if there are none. */
export function quantile(values, share) {
  if (!values.length) return null;
  const sorted = [...values].sort((left, right) => left - right);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
}

export function median(values) {
  return quantile(values, 0.5);
}

/** The cosine of two vectors; null if one of them is zero or they differ in length. */
export function cosine(left, right) {
  if (left.length !== right.length) return null;
  let dot = 0;
  let leftSquare = 0;
  let rightSquare = 0;
  for (let place = 0; place < left.length; place += 1) {
    dot += left[place] * right[place];
    leftSquare += left[place] ** 2;
    rightSquare += right[place] ** 2;
  }
  const lengths = Math.sqrt(leftSquare * rightSquare);
  return lengths ? dot / lengths : null;
}
