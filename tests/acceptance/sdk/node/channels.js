// Checks of subscriptions, publications, presence and history.

import assert from 'node:assert/strict';
import { WAIT_DEADLINE_MS } from './peer.js';
import { check } from './scenario.js';

const PAGE_SIZE = 10;

const range = (start, end) => Array.from({ length: end - start }, (_, index) => start + index);

function told(peer, { user, client, connInfo, chanInfo }) {
  return { user, client, connInfo: peer.decode(connInfo), chanInfo: peer.decode(chanInfo) };
}

function expected(room, user) {
  return { user, client: room.peer.id, connInfo: { name: user }, chanInfo: { role: 'guest' } };
}

async function present(scenario) {
  const { presence } = await scenario.backend.call('presence', { channel: scenario.channel });
  return presence;
}

// The engine removes an entry after the unsubscribe reply. Over a stream, commands are requests that the SDK does not
// wait for.
async function nobodyPresent(scenario) {
  const patience = AbortSignal.timeout(WAIT_DEADLINE_MS);
  while (!patience.aborted && Object.keys(await present(scenario)).length);
  assert.deepEqual(await present(scenario), {});
}

check('connect', async scenario => {
  const peer = await scenario.connected();
  assert.ok(peer.id);
});

check('subscribe', async scenario => {
  const peer = await scenario.connected();
  const token = scenario.token('ann', { data: { topic: 'fires' } });
  const room = await peer.subscribe(scenario.channel, { token });
  const [context] = room.eventLog.all('subscribed');
  assert.ok(context.recoverable && context.positioned);
  assert.ok(context.streamPosition.epoch);
  assert.equal(context.streamPosition.offset, 0);
  assert.ok(!context.wasRecovering && !context.recovered);
  assert.deepEqual(peer.decode(context.data), { topic: 'fires' });
});

check('publish_echo', async scenario => {
  const room = await scenario.joined();
  await room.publish({ text: 'fire! 烽火', number: 1.5 });
  await room.publish([1, null]);
  await room.waitPublications({ text: 'fire! 烽火', number: 1.5 }, [1, null]);
  const publications = room.eventLog.all('publication');
  assert.deepEqual(publications.map(publication => publication.offset), [1, 2]);
  for (const publication of publications) {
    assert.deepEqual(told(room.peer, publication.info), expected(room, scenario.user('ann')));
  }
});

check('second_client', async scenario => {
  const [ann, bob] = [await scenario.joined('ann'), await scenario.joined('bob')];
  for (const number of range(0, 20)) {
    await ann.publish(number);
  }
  await bob.waitPublications(...range(0, 20));
  assert.deepEqual(told(bob.peer, bob.eventLog.all('publication')[0].info), expected(ann, scenario.user('ann')));
});

check('across_codecs', async scenario => {
  const text = await scenario.joined('ann', { protobuf: false });
  const binary = await scenario.joined('bob', { protobuf: true });
  await text.publish({ by: ['烽', 1.5] });
  await binary.publish({ by: 'bob' });
  for (const room of [text, binary]) {
    await room.waitPublications({ by: ['烽', 1.5] }, { by: 'bob' });
    const [first, second] = room.eventLog.all('publication');
    assert.deepEqual(told(room.peer, first.info), expected(text, scenario.user('ann')));
    assert.deepEqual(told(room.peer, second.info), expected(binary, scenario.user('bob')));
  }
});

check('backend_publication', async scenario => {
  const room = await scenario.joined();
  await scenario.backend.call('publish', { channel: scenario.channel, data: { from: 'backend' }, tags: { kind: 'news' } });
  await room.waitPublications({ from: 'backend' });
  const [publication] = room.eventLog.all('publication');
  assert.equal(publication.info, undefined);
  assert.deepEqual({ ...publication.tags }, { kind: 'news' });
  assert.equal(publication.offset, 1);
});

check('presence', async scenario => {
  const [ann, bob] = [await scenario.joined('ann'), await scenario.joined('bob')];
  const { clients } = await ann.subscription.presence();
  assert.equal(Object.keys(clients).length, 2);
  assert.deepEqual(told(ann.peer, clients[ann.peer.id]), expected(ann, scenario.user('ann')));
  assert.deepEqual(told(ann.peer, clients[bob.peer.id]), expected(bob, scenario.user('bob')));
});

check('presence_stats', async scenario => {
  const ann = await scenario.joined('ann');
  await scenario.joined('ann');
  await scenario.joined('bob');
  const { numClients, numUsers } = await ann.subscription.presenceStats();
  assert.deepEqual([numClients, numUsers], [3, 2]);
});

check('join_leave', async scenario => {
  const ann = await scenario.joined('ann');
  const own = await ann.eventLog.wait('join');
  assert.deepEqual(told(ann.peer, own.info), expected(ann, scenario.user('ann')));
  const [bob, eve] = [await scenario.joined('bob'), await scenario.joined('eve')];
  await ann.eventLog.wait('join', { number: 3 });
  bob.subscription.unsubscribe();
  await ann.eventLog.wait('leave');
  const others = [expected(bob, scenario.user('bob')), expected(eve, scenario.user('eve'))];
  eve.peer.client.disconnect();
  await ann.eventLog.wait('leave', { number: 2 });
  assert.deepEqual(ann.eventLog.all('join').slice(1).map(context => told(ann.peer, context.info)), others);
  assert.deepEqual(ann.eventLog.all('leave').map(context => told(ann.peer, context.info)), others);
});

check('history_pages', async scenario => {
  const room = await scenario.joined();
  await scenario.backend.publish(scenario.channel, ...range(0, 25));
  for (const reverse of [false, true]) {
    const [sizes, values] = [[], []];
    let since;
    for (;;) {
      const page = await room.subscription.history({ limit: PAGE_SIZE, since, reverse });
      assert.equal(page.offset, 25);
      sizes.push(page.publications.length);
      values.push(...page.publications.map(publication => room.peer.decode(publication.data)));
      if (page.publications.length < PAGE_SIZE) {
        break;
      }
      since = { offset: page.publications.at(-1).offset, epoch: page.epoch };
    }
    assert.deepEqual(sizes, [10, 10, 5]);
    assert.deepEqual(values, reverse ? range(0, 25).reverse() : range(0, 25));
  }
});

check('history_position', async scenario => {
  const room = await scenario.joined();
  const { epoch } = room.eventLog.all('subscribed')[0].streamPosition;
  assert.deepEqual(await room.subscription.history({}), { publications: [], offset: 0, epoch });
  await scenario.backend.publish(scenario.channel, 'a', 'b');
  assert.deepEqual(await room.subscription.history({ limit: 0 }), { publications: [], offset: 2, epoch });
});

check('history_all', async scenario => {
  const room = await scenario.joined();
  await scenario.backend.publish(scenario.channel, 'a', 'b', 'c');
  const { publications } = await room.subscription.history({ limit: -1 });
  assert.deepEqual(publications.map(publication => room.peer.decode(publication.data)), ['a', 'b', 'c']);
  assert.deepEqual(publications.map(publication => publication.offset), [1, 2, 3]);
});

check('unsubscribe', async scenario => {
  const room = await scenario.joined();
  const marker = await room.peer.subscribe(scenario.small);
  room.subscription.unsubscribe();
  assert.equal(room.eventLog.all('unsubscribed')[0].code, 0);
  // The reply to a later command shows that the server has handled the unsubscribe, over WebSocket.
  await marker.publish('marker');
  await scenario.backend.publish(scenario.channel, 'too late');
  await scenario.backend.publish(scenario.small, 'second marker');
  await marker.waitPublications('marker', 'second marker');
  assert.deepEqual(room.published(), []);
  await nobodyPresent(scenario);
});

check('subscribe_again', async scenario => {
  const room = await scenario.joined();
  room.subscription.unsubscribe();
  await scenario.backend.publish(scenario.channel, 'meanwhile');
  room.subscription.subscribe();
  const context = await room.eventLog.wait('subscribed', { number: 2 });
  assert.ok(context.recovered);
  await room.waitPublications('meanwhile');
});

check('many_subscribes_in_a_frame', async scenario => {
  const peer = scenario.peer();
  const channels = range(0, 50).map(number => `small:${scenario.name}-${number}`);
  const rooms = channels.map(channel => peer.room(channel));
  rooms.forEach(room => room.subscription.subscribe());
  await peer.connect();
  await Promise.all(rooms.map(room => room.eventLog.wait('subscribed')));
  const active = await scenario.backend.call('channels', { pattern: `small:${scenario.name}-*` });
  assert.deepEqual(Object.keys(active.channels).sort(), channels.sort());
});

check('unsubscribe_in_the_same_frame', async scenario => {
  const peer = await scenario.connected();
  const room = peer.room(scenario.channel, { token: scenario.token() });
  peer.batch(() => {
    room.subscription.subscribe();
    room.subscription.unsubscribe();
  });
  const marker = await peer.subscribe(scenario.small);
  await nobodyPresent(scenario);
  await scenario.backend.publish(scenario.channel, 'too late');
  await scenario.backend.publish(scenario.small, 'marker');
  await marker.waitPublications('marker');
  assert.deepEqual(room.eventLog.all('subscribed', 'publication'), []);
  room.subscription.subscribe();
  await room.eventLog.wait('subscribed');
  await scenario.backend.publish(scenario.channel, 'once');
  await room.waitPublications('once');
});

check('concurrent_publications', async scenario => {
  const rooms = [];
  for (const name of ['ann', 'bob', 'eve']) {
    rooms.push(await scenario.joined(name));
  }
  await Promise.all(rooms.flatMap((room, index) => range(0, 20).map(number => room.publish([index, number]))));
  await Promise.all(rooms.map(room => room.eventLog.wait('publication', { number: 60 })));
  const [ann, bob, eve] = rooms;
  assert.deepEqual(ann.eventLog.all('publication').map(publication => publication.offset), range(1, 61));
  assert.deepEqual(ann.published(), bob.published());
  assert.deepEqual(ann.published(), eve.published());
});
