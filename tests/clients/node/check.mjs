// What the programs in this folder share: one line per check, end with 1 at the first that fails.

import { isDeepStrictEqual } from 'node:util';

const patience = setTimeout(() => fail('the program', 'an end within 60 s', 'none'), 60_000);

export function check(name, got, want) {
  if (!isDeepStrictEqual(got, want)) fail(name, want, got);
  console.log(`ok   ${name}`);
}

export function done() {
  clearTimeout(patience);
}

function fail(name, want, got) {
  console.log(`FAIL ${name}: expected ${JSON.stringify(want)}, got ${JSON.stringify(got)}`);
  process.exit(1);
}
