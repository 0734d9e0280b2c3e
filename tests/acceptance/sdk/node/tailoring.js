// Checks of what a subscription may ask to get otherwise: patches instead of whole publications, or a part of them.

import assert from 'node:assert/strict';
import { check } from './scene.js';

const STATES = 20;

/** What a channel may say again and again: rows of which few change, change places, come and go. */
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

check('delta', async scene => {
  const [peer, other] = [await scene.connected(), await scene.connected('bob')];
  const room = await peer.subscribe(scene.prices, { delta: 'fossil' });
  const whole = await other.subscribe(scene.prices);
  await scene.backend.publish(scene.prices, ...states());
  await room.waitHeard(...states());
  await whole.waitHeard(...states());
  const stats = room.subscription.deltaStats();
  assert.equal(stats.numFullPayloads + stats.numDeltaPayloads, STATES);
  // A patch that would cut a character in two comes whole to JSON clients; that may happen, but not often.
  assert.ok(stats.numDeltaPayloads > STATES / 2, `${stats.numDeltaPayloads} patches`);
  assert.ok(stats.compressionRatio > 0.5, `saved ${stats.compressionRatio}`);
});

check('delta_after_recovery', async scene => {
  const all = states();
  const link = await scene.link();
  const peer = await scene.connected('ann', { port: link.port });
  const room = await peer.subscribe(scene.prices, { delta: 'fossil' });
  await scene.backend.publish(scene.prices, ...all.slice(0, 5));
  await room.waitHeard(...all.slice(0, 5));
  link.cut();
  await room.diary.wait('subscribing', { code: 1 });
  await scene.backend.publish(scene.prices, ...all.slice(5, 10));
  link.mend();
  const context = await room.diary.wait('subscribed', { number: 2 });
  assert.ok(context.recovered);
  await scene.backend.publish(scene.prices, ...all.slice(10, 15));
  await room.waitHeard(...all.slice(0, 15));
  // A cut without anything missed: what comes first then is whole.
  link.cut();
  await room.diary.wait('subscribing', { code: 1, number: 2 });
  link.mend();
  await room.diary.wait('subscribed', { number: 3 });
  await scene.backend.publish(scene.prices, ...all.slice(15));
  await room.waitHeard(...all);
  assert.ok(room.subscription.deltaStats().numDeltaPayloads > STATES / 2);
});

check('delta_not_allowed', async scene => {
  const peer = await scene.connected();
  const room = await peer.subscribe(scene.small, { delta: 'fossil' });
  await scene.backend.publish(scene.small, 'a', 'b');
  await room.waitHeard('a', 'b');
  assert.equal(room.subscription.deltaStats().numPublications, 0);
});

check('tags_filter', async scene => {
  const link = await scene.link();
  const peer = await scene.connected('ann', { port: link.port });
  const tagsFilter = {
    op: 'and', nodes: [{ key: 'kind', cmp: 'in', vals: ['fire', 'flood'] }, { key: 'level', cmp: 'gte', val: '2' }],
  };
  const room = await peer.subscribe(scene.prices, { tagsFilter });
  const publish = (data, kind, level) => (
    scene.backend.call('publish', { channel: scene.prices, data, tags: { kind, level } })
  );
  await publish(1, 'fire', '3');
  await publish(2, 'fire', '1');
  await publish(3, 'flood', '10');
  await room.waitHeard(1, 3);
  link.cut();
  await room.diary.wait('subscribing', { code: 1 });
  await publish(4, 'fire', '2');
  await publish(5, 'storm', '9');
  link.mend();
  const context = await room.diary.wait('subscribed', { number: 2 });
  assert.ok(context.recovered);
  await publish(6, 'storm', '9');
  await publish(7, 'flood', '2.5');
  await room.waitHeard(1, 3, 4, 7);
  assert.equal(room.diary.all('unsubscribed', 'subscribing').length, 2);
});

check('tags_filter_refused', async scene => {
  const peer = await scene.connected();
  const wrong = { [scene.small]: { key: 'kind', cmp: 'ex' }, [scene.prices]: { key: 'kind', cmp: 'like', val: 'x' } };
  for (const [channel, tagsFilter] of Object.entries(wrong)) {
    const room = peer.room(channel, { tagsFilter });
    room.subscription.subscribe();
    await room.diary.wait('unsubscribed', { code: 107 });
  }
});
