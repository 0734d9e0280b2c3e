// @ts-check
// What an EventSource of some package gets: one line of JSON for each event, until standard input ends.
//
// node events.js PACKAGE URL

const [name, url] = process.argv.slice(2);
const loaded = await import(name);
// Version 2 is a class, later ones have it among what they export.
const EventSource = loaded.EventSource ?? loaded.default;

const source = new EventSource(url);
const tell = (/** @type {unknown} */ what) => process.stdout.write(JSON.stringify(what) + '\n');
source.onmessage = (/** @type {any} */ event) => tell({ data: JSON.parse(event.data), id: event.lastEventId });
source.onerror = (/** @type {any} */ event) => tell({ error: event.message ?? 'the stream ended' });

process.stdin.on('end', () => source.close());
process.stdin.resume();
