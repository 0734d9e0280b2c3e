// @ts-check
// Prints the events of a package's EventSource as lines of JSON, until standard input ends.
//
// node events.js PACKAGE URL

const [name, url] = process.argv.slice(2);
const loaded = await import(name);
// Version 2 exports the class itself; later versions export it by name.
const EventSource = loaded.EventSource ?? loaded.default;

const source = new EventSource(url);
const print = (/** @type {unknown} */ value) => process.stdout.write(JSON.stringify(value) + '\n');
source.onmessage = (/** @type {any} */ event) => print({ data: JSON.parse(event.data), id: event.lastEventId });
source.onerror = (/** @type {any} */ event) => print({ error: event.message ?? 'the stream ended' });

process.stdin.on('end', () => source.close());
process.stdin.resume();
