// Checks of deltas and tags filters.

import assert from 'node:assert/strict';
import { check } from './scenario.js';

const STATES = 20;

/** States that a channel may publish one after the other: a few rows change, move, appear and disappear. */
function states() {
  const rows = Array.from({ length: 40 }, (_, index) => ({ id: index, name: `район ${index}`, price: index * 1.5 }));
  return Array.from({ length: STATES }, (_, turn) => {
    rows[(turn * 7) % rows.length].price = turn / 3;
    rows[(turn * 11) % rows.length].name = `烽火 ${turn}`;
    if (turn % 4 === 1) {
      rows.push(...rows.splice(turn, 5));
    } else if (turn % 4 === 3) {
      rows.splice(turn, 1, { id: 100 + turn, note: 'new "here"\n' });
    }
    return structuredClone(rows);
  });
}

check('delta', async scenario => {
  const [peer, other] = [await scenario.connected(), await scenario.connected('bob')];
  const room = await peer.subscribe(scenario.prices, { delta: 'fossil' });
  const whole = await other.subscribe(scenario.prices);
  await scenario.backend.publish(scenario.prices, ...states());
  await room.waitPublications(...states());
  await whole.waitPublications(...states());
  const stats = room.subscription.deltaStats();
  assert.equal(stats.numFullPayloads + stats.numDeltaPayloads, STATES);
  // For JSON clients, a publication whose patch would split a character is complete. This happens, but not often.
  assert.ok(stats.numDeltaPayloads > STATES / 2, `${stats.numDeltaPayloads} patches`);
  assert.ok(stats.compressionRatio > 0.5, `saved ${stats.compressionRatio}`);
});

check('delta_after_recovery', async scenario => {
  const all = states();
  const proxy = await scenario.proxy();
  const peer = await scenario.connected('ann', { port: proxy.port });
  const room = await peer.subscribe(scenario.prices, { delta: 'fossil' });
  await scenario.backend.publish(scenario.prices, ...all.slice(0, 5));
  await room.waitPublications(...all.slice(0, 5));
  proxy.cut();
  await room.eventLog.wait('subscribing', { code: 1 });
  await scenario.backend.publish(scenario.prices, ...all.slice(5, 10));
  proxy.restore();
  const context = await room.eventLog.wait('subscribed', { number: 2 });
  assert.ok(context.recovered);
  await scenario.backend.publish(scenario.prices, ...all.slice(10, 15));
  await room.waitPublications(...all.slice(0, 15));
  // A cut without anything missed: what comes first then is whole.
  proxy.cut();
  await room.eventLog.wait('subscribing', { code: 1, number: 2 });
  proxy.restore();
  await room.eventLog.wait('subscribed', { number: 3 });
  await scenario.backend.publish(scenario.prices, ...all.slice(15));
  await room.waitPublications(...all);
  assert.ok(room.subscription.deltaStats().numDeltaPayloads > STATES / 2);
});

check('delta_not_allowed', async scenario => {
  const peer = await scenario.connected();
  const room = await peer.subscribe(scenario.small, { delta: 'fossil' });
  await scenario.backend.publish(scenario.small, 'a', 'b');
  await room.waitPublications('a', 'b');
  assert.equal(room.subscription.deltaStats().numPublications, 0);
});

check('tags_filter', async scenario => {
  const proxy = await scenario.proxy();
  const peer = await scenario.connected('ann', { port: proxy.port });
  const tagsFilter = {
    op: 'and', nodes: [{ key: 'kind', cmp: 'in', vals: ['fire', 'flood'] }, { key: 'level', cmp: 'gte', val: '2' }],
  };
  const room = await peer.subscribe(scenario.prices, { tagsFilter });
  const publish = (data, kind, level) => (
    scenario.backend.call('publish', { channel: scenario.prices, data, tags: { kind, level } })
  );
  await publish(1, 'fire', '3');
  await publish(2, 'fire', '1');
  await publish(3, 'flood', '10');
  await room.waitPublications(1, 3);
  proxy.cut();
  await room.eventLog.wait('subscribing', { code: 1 });
  await publish(4, 'fire', '2');
  await publish(5, 'storm', '9');
  proxy.restore();
  const context = await room.eventLog.wait('subscribed', { number: 2 });
  assert.ok(context.recovered);
  await publish(6, 'storm', '9');
  await publish(7, 'flood', '2.5');
  await room.waitPublications(1, 3, 4, 7);
  assert.equal(room.eventLog.all('unsubscribed', 'subscribing').length, 2);
});

check('tags_filter_refused', async scenario => {
  const peer = await scenario.connected();
  const wrong = { [scenario.small]: { key: 'kind', cmp: 'ex' }, [scenario.prices]: { key: 'kind', cmp: 'like', val: 'x' } };
  for (const [channel, tagsFilter] of Object.entries(wrong)) {
    const room = peer.room(channel, { tagsFilter });
    room.subscription.subscribe();
    await room.eventLog.wait('unsubscribed', { code: 107 });
  }
});
