// Checks of everyday life in a channel.

import assert from 'node:assert/strict';
import { WAIT_DEADLINE_MS } from './peer.js';
import { check } from './scene.js';

const PAGE_SIZE = 10;

const range = (start, end) => Array.from({ length: end - start }, (_, index) => start + index);

function told(peer, { user, client, connInfo, chanInfo }) {
  return { user, client, connInfo: peer.decode(connInfo), chanInfo: peer.decode(chanInfo) };
}

function expected(room, user) {
  return { user, client: room.peer.id, connInfo: { name: user }, chanInfo: { role: 'guest' } };
}

async function present(scene) {
  const { presence } = await scene.backend.call('presence', { channel: scene.channel });
  return presence;
}

check('connect', async scene => {
  const peer = await scene.connected();
  assert.ok(peer.id);
});

check('subscribe', async scene => {
  const peer = await scene.connected();
  const token = scene.token('ann', { data: { topic: 'fires' } });
  const room = await peer.subscribe(scene.channel, { token });
  const [context] = room.diary.all('subscribed');
  assert.ok(context.recoverable && context.positioned);
  assert.ok(context.streamPosition.epoch);
  assert.equal(context.streamPosition.offset, 0);
  assert.ok(!context.wasRecovering && !context.recovered);
  assert.deepEqual(peer.decode(context.data), { topic: 'fires' });
});

check('publish_echo', async scene => {
  const room = await scene.joined();
  await room.publish({ text: 'fire! 烽火', number: 1.5 });
  await room.publish([1, null]);
  await room.waitHeard({ text: 'fire! 烽火', number: 1.5 }, [1, null]);
  const publications = room.diary.all('publication');
  assert.deepEqual(publications.map(publication => publication.offset), [1, 2]);
  for (const publication of publications) {
    assert.deepEqual(told(room.peer, publication.info), expected(room, scene.user('ann')));
  }
});

check('second_client', async scene => {
  const [ann, bob] = [await scene.joined('ann'), await scene.joined('bob')];
  for (const number of range(0, 20)) {
    await ann.publish(number);
  }
  await bob.waitHeard(...range(0, 20));
  assert.deepEqual(told(bob.peer, bob.diary.all('publication')[0].info), expected(ann, scene.user('ann')));
});

check('across_codecs', async scene => {
  const text = await scene.joined('ann', { protobuf: false });
  const binary = await scene.joined('bob', { protobuf: true });
  await text.publish({ by: ['烽', 1.5] });
  await binary.publish({ by: 'bob' });
  for (const room of [text, binary]) {
    await room.waitHeard({ by: ['烽', 1.5] }, { by: 'bob' });
    const [first, second] = room.diary.all('publication');
    assert.deepEqual(told(room.peer, first.info), expected(text, scene.user('ann')));
    assert.deepEqual(told(room.peer, second.info), expected(binary, scene.user('bob')));
  }
});

check('backend_publication', async scene => {
  const room = await scene.joined();
  await scene.backend.call('publish', { channel: scene.channel, data: { from: 'backend' }, tags: { kind: 'news' } });
  await room.waitHeard({ from: 'backend' });
  const [publication] = room.diary.all('publication');
  assert.equal(publication.info, undefined);
  assert.deepEqual({ ...publication.tags }, { kind: 'news' });
  assert.equal(publication.offset, 1);
});

check('presence', async scene => {
  const [ann, bob] = [await scene.joined('ann'), await scene.joined('bob')];
  const { clients } = await ann.subscription.presence();
  assert.equal(Object.keys(clients).length, 2);
  assert.deepEqual(told(ann.peer, clients[ann.peer.id]), expected(ann, scene.user('ann')));
  assert.deepEqual(told(ann.peer, clients[bob.peer.id]), expected(bob, scene.user('bob')));
});

check('presence_stats', async scene => {
  const ann = await scene.joined('ann');
  await scene.joined('ann');
  await scene.joined('bob');
  const { numClients, numUsers } = await ann.subscription.presenceStats();
  assert.deepEqual([numClients, numUsers], [3, 2]);
});

check('join_leave', async scene => {
  const ann = await scene.joined('ann');
  const own = await ann.diary.wait('join');
  assert.deepEqual(told(ann.peer, own.info), expected(ann, scene.user('ann')));
  const [bob, eve] = [await scene.joined('bob'), await scene.joined('eve')];
  await ann.diary.wait('join', { number: 3 });
  bob.subscription.unsubscribe();
  await ann.diary.wait('leave');
  const others = [expected(bob, scene.user('bob')), expected(eve, scene.user('eve'))];
  eve.peer.client.disconnect();
  await ann.diary.wait('leave', { number: 2 });
  assert.deepEqual(ann.diary.all('join').slice(1).map(context => told(ann.peer, context.info)), others);
  assert.deepEqual(ann.diary.all('leave').map(context => told(ann.peer, context.info)), others);
});

check('history_pages', async scene => {
  const room = await scene.joined();
  await scene.backend.publish(scene.channel, ...range(0, 25));
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

check('history_position', async scene => {
  const room = await scene.joined();
  const { epoch } = room.diary.all('subscribed')[0].streamPosition;
  assert.deepEqual(await room.subscription.history({}), { publications: [], offset: 0, epoch });
  await scene.backend.publish(scene.channel, 'a', 'b');
  assert.deepEqual(await room.subscription.history({ limit: 0 }), { publications: [], offset: 2, epoch });
});

check('history_all', async scene => {
  const room = await scene.joined();
  await scene.backend.publish(scene.channel, 'a', 'b', 'c');
  const { publications } = await room.subscription.history({ limit: -1 });
  assert.deepEqual(publications.map(publication => room.peer.decode(publication.data)), ['a', 'b', 'c']);
  assert.deepEqual(publications.map(publication => publication.offset), [1, 2, 3]);
});

check('unsubscribe', async scene => {
  const room = await scene.joined();
  const marker = await room.peer.subscribe(scene.small);
  room.subscription.unsubscribe();
  assert.equal(room.diary.all('unsubscribed')[0].code, 0);
  // The answer to a later command: on a WebSocket the unsubscribe has been handled.
  await marker.publish('marker');
  await scene.backend.publish(scene.channel, 'too late');
  await scene.backend.publish(scene.small, 'second marker');
  await marker.waitHeard('marker', 'second marker');
  assert.deepEqual(room.heard(), []);
  if (scene.transport !== 'websocket') {
    // Beside a stream commands are requests that the SDK does not wait for: the unsubscribe may be the later of the two.
    const patience = AbortSignal.timeout(WAIT_DEADLINE_MS);
    while (!patience.aborted && Object.keys(await present(scene)).length);
  }
  assert.deepEqual(await present(scene), {});
});

check('subscribe_again', async scene => {
  const room = await scene.joined();
  room.subscription.unsubscribe();
  await scene.backend.publish(scene.channel, 'meanwhile');
  room.subscription.subscribe();
  const context = await room.diary.wait('subscribed', { number: 2 });
  assert.ok(context.recovered);
  await room.waitHeard('meanwhile');
});

check('many_subscribes_in_a_frame', async scene => {
  const peer = scene.peer();
  const channels = range(0, 50).map(number => `small:${scene.name}-${number}`);
  const rooms = channels.map(channel => peer.room(channel));
  rooms.forEach(room => room.subscription.subscribe());
  await peer.connect();
  await Promise.all(rooms.map(room => room.diary.wait('subscribed')));
  const active = await scene.backend.call('channels', { pattern: `small:${scene.name}-*` });
  assert.deepEqual(Object.keys(active.channels).sort(), channels.sort());
});

check('unsubscribe_in_the_same_frame', async scene => {
  const peer = await scene.connected();
  const room = peer.room(scene.channel, { token: scene.token() });
  peer.batch(() => {
    room.subscription.subscribe();
    room.subscription.unsubscribe();
  });
  const marker = await peer.subscribe(scene.small);
  assert.deepEqual(await present(scene), {});
  await scene.backend.publish(scene.channel, 'too late');
  await scene.backend.publish(scene.small, 'marker');
  await marker.waitHeard('marker');
  assert.deepEqual(room.diary.all('subscribed', 'publication'), []);
  room.subscription.subscribe();
  await room.diary.wait('subscribed');
  await scene.backend.publish(scene.channel, 'once');
  await room.waitHeard('once');
});

check('all_at_once', async scene => {
  const rooms = [];
  for (const name of ['ann', 'bob', 'eve']) {
    rooms.push(await scene.joined(name));
  }
  await Promise.all(rooms.flatMap((room, index) => range(0, 20).map(number => room.publish([index, number]))));
  await Promise.all(rooms.map(room => room.diary.wait('publication', { number: 60 })));
  const [ann, bob, eve] = rooms;
  assert.deepEqual(ann.diary.all('publication').map(publication => publication.offset), range(1, 61));
  assert.deepEqual(ann.heard(), bob.heard());
  assert.deepEqual(ann.heard(), eve.heard());
});
